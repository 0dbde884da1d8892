"""Turns the numbers of a table into text, once, at the end: for notebooks, CSV, Markdown and LaTeX."""

from collections.abc import Iterable
from html import escape

import pandas as pd
from IPython.display import HTML, Markdown

from mmel.report import frames
from mmel.report.frames import ARM_LABELS, Table, task_of
from mmel.report.runs import device_label, finished
from mmel.report.specs import AVERAGE, COLUMNS, DATASET_LABELS

TIME = "Time (ratio to Baseline)"
# Words of the tables for `claims.verdict`.
VERDICTS = {"supported": "holds", "opposed": "contradicted"}


def level(mean: float, sd: float, n: float, decimals: int = 2) -> str:
    """`92.53 ± 0.10 (5)`; without a deviation of one run, without a number of runs that is not known; `-` of none."""
    if n == 0:
        return "-"
    spread = "" if pd.isna(sd) else f" ± {sd:.2f}"
    return f"{mean:.{decimals}f}{spread}" + ("" if pd.isna(n) else f" ({n:.0f})")


def interval(difference: float, low: float, high: float) -> str:
    """`+0.63 [+0.48, +0.78]`; the difference alone without an interval."""
    return f"{difference:+.2f}" + ("" if pd.isna(low) else f" [{low:+.2f}, {high:+.2f}]")


def duration(seconds: float) -> str:
    """`45 s`, or `1.5 h` from an hour on."""
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def ratio(value: float, missing: str = "-") -> str:
    """One decimal."""
    return missing if pd.isna(value) else f"{value:.1f}"


def model_label(model: str) -> str:
    """`ResNet-20` of `resnet20`, `ResNet-18 (narrow)` of `resnet18_narrow`."""
    depth, _, kind = model.removeprefix("resnet").partition("_")
    return f"ResNet-{depth}" + (f" ({kind})" if kind else "")


def kinds(runs: pd.DataFrame) -> dict[str, str]:
    """Task -> how its data differ from the GLUE task of that name: `miniature`, `subset`, `sample`, or ""."""
    found = {}
    for dataset, group in runs.groupby("dataset", sort=False):
        # A sample has splits of another size than GLUE's.
        of_glue = "sample" if group["sampled"].any() else "subset" if (group["train_size"] > 0).any() else ""
        found[task_of(dataset)] = "miniature" if dataset.startswith("grammar_") else of_glue
    return found


def task_label(label: str, said: Iterable[str], form: str = "({})") -> str:
    """A task's name, with how our data differ from it."""
    words = ", ".join(dict.fromkeys(filter(None, said)))
    return f"{label} {form.format(words)}" if words else label


def dataset_labels(table: Table) -> dict[str, str]:
    """Name of each data set of a table; one that is not the whole task says so."""
    if table.spec.kind.arms_across:
        return {name: DATASET_LABELS[name] for name in dict.fromkeys(table.runs["dataset"])}
    found = kinds(table.runs)
    tasks = {dataset: task_of(dataset) for dataset in dict.fromkeys(table.runs["dataset"])}
    return {dataset: task_label(DATASET_LABELS[task], [found[task]]) for dataset, task in tasks.items()}


def column_labels(table: Table, form: str = "({})") -> dict[str, str]:
    """Name of each column of a GLUE table; one whose data are not the whole task says so."""
    found = kinds(table.runs)
    labels = {key: task_label(label, [found.get(key.removesuffix("_mm"), "")], form) for key, label in COLUMNS.items()}
    return labels | {AVERAGE: task_label("Avg", found.values(), form)}


def place_labels(table: Table, places: Iterable[str]) -> pd.DataFrame:
    """A column for each heading of a place: data set and model, or task."""
    if table.spec.kind.arms_across:
        parts = [place.split("/") for place in places]
        rows = [(DATASET_LABELS[dataset], model_label(model)) for dataset, model in parts]
    else:
        columns = column_labels(table)
        rows = [(columns[place],) for place in places]
    return pd.DataFrame(rows, columns=table.spec.kind.place)


def place_names(table: Table) -> dict[str, str]:
    """Place -> its name: data set and model, or a task whatever its columns."""
    if table.spec.kind.arms_across:
        names = list(dict.fromkeys(table.runs["place"]))
        return dict(zip(names, place_labels(table, names).agg(", ".join, axis="columns"), strict=True))
    return {task_of(dataset): label for dataset, label in dataset_labels(table).items()}


def levels(table: Table) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores of a table, ours and then the paper's, as text; and whether a cell is the highest of its place.

    On images a place is a row and an arm a column, on texts the other way round. Cells that print alike are equally
    high, and a cell by itself is not the highest. An empty cell is not in the grid, `-` is a planned one without a run.
    """
    if table.spec.kind.arms_across:
        return _levels(table, "dev")
    parts = [_levels(table, split) for split in table.spec.splits or ("dev",)]
    return tuple(pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True))


def _levels(table: Table, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    spec, kind = table.spec, table.spec.kind
    ours, paper = frames.cells(table, split), frames.paper_cells(table.name, split)
    # In the paper's order; an arm that it has not comes last.
    arms = list(dict.fromkeys([*paper["arm"], *ours["arm"]]))
    ours = ours.sort_values("arm", key=lambda arm: arm.map(arms.index), kind="stable")
    ours = ours.assign(source=f"ours ({table.profile})", decimals=2, whose=0)
    found = pd.concat([ours, paper.assign(decimals=kind.decimals, whose=1)], ignore_index=True)
    found["text"] = [level(*cell) for cell in found[["mean", "sd", "n", "decimals"]].itertuples(index=False)]
    rounded = found["mean"].round(2)
    among = rounded.groupby([found["whose"], found["place"]])
    found["best"] = rounded.eq(among.transform("max")) & (among.transform("count") > 1)

    row, across = ("place", "arm") if kind.arms_across else ("arm", "place")
    shown = [arm for arm in arms if arm in set(ours["arm"])] if kind.arms_across else [*COLUMNS, AVERAGE]
    heads = found.drop_duplicates(["source", row]).reset_index(drop=True)
    order = pd.MultiIndex.from_frame(heads[["source", row]])
    texts, best = (
        found.pivot(index=["source", row], columns=across, values=value).reindex(index=order, columns=shown)
        for value in ("text", "best")
    )
    front = pd.DataFrame({"Split": split} if spec.splits else {}, index=heads.index)
    front["Source"] = heads["source"]
    front = front.join(place_labels(table, heads["place"]) if kind.arms_across else _arm_labels(table, heads))
    labels = {} if kind.arms_across else column_labels(table, "(ours: {})")
    frame = front.join(texts.reset_index(drop=True).rename(columns=labels).fillna(""))
    if table.name == "table3":
        frame[TIME] = _total_times(table, heads)
    marks = best.reset_index(drop=True).rename(columns=labels).eq(True)
    return frame, marks.reindex(columns=frame.columns, fill_value=False)


def _arm_labels(table: Table, rows: pd.DataFrame) -> pd.DataFrame:
    """Columns that name an arm of texts: its method and settings."""
    found = pd.DataFrame({"Method": rows["method"].map(ARM_LABELS)})
    return found.assign(**{heading: rows[field].astype(str) for field, heading in table.spec.settings.items()})


def _total_times(table: Table, rows: pd.DataFrame) -> list[str]:
    ours, paper = frames.total_times(table), frames.paper_hours(table.name).set_index("method")
    planned = table.runs.groupby("arm")["place"].nunique()
    texts = []
    for arm, method, source in rows[["arm", "method", "source"]].itertuples(index=False):
        if source == "paper":
            hours = paper.loc[method] if method in paper.index else None
            texts.append("" if hours is None else f"{hours['paper_hours']:.1f} h ({hours['paper_ratio']:.1f})")
        elif arm in ours.index:
            seconds, base, tasks = ours.loc[arm]
            part = "" if tasks == planned[arm] else f", {tasks:.0f} of {planned[arm]} tasks"
            texts.append(f"{duration(seconds)} ({seconds / base:.1f}{part})")
        else:
            texts.append("-")
    return texts


def contrasts(table: Table) -> pd.DataFrame:
    """The claims of a table at each place: ours with interval and verdict, the paper's beside it."""
    found = frames.contrasts(table)
    found = frames.over_pairs(found) if table.spec.pooled else found
    rows = found.to_dict("records")
    text = place_labels(table, found["place"]).assign(Contrast=found["claim"])
    if table.spec.pooled:
        for key, heading in (("ours", "Ours"), ("paper", "Paper")):
            text[heading] = [f"{row[key]:+.2f}" if row[f"{key}_pairs"] else "no runs yet" for row in rows]
            count = [f"{row[f'{key}_above']} of {row[f'{key}_pairs']}" if row[f"{key}_pairs"] else "" for row in rows]
            text[f"{heading}: pairs above 0"] = count
        return text
    tested = [row["n_a"] > 0 and row["n_b"] > 0 for row in rows]
    ours = [interval(row["difference"], row["low"], row["high"]) for row in rows]
    text["Ours [95 %]"] = [said if yes else "no runs yet" for said, yes in zip(ours, tested, strict=True)]
    text["n"] = [f"{row['n_a']} + {row['n_b']}" if yes else "" for row, yes in zip(rows, tested, strict=True)]
    verdicts = [VERDICTS.get(row["verdict"], row["verdict"]) for row in rows]
    text["Verdict"] = [said if yes else "" for said, yes in zip(verdicts, tested, strict=True)]
    text["Paper [95 %]"] = [
        f"{row['paper_min']:+.2f} to {row['paper_max']:+.2f} over {row['paper_places']} cells"
        if pd.isna(row["paper_difference"])
        else interval(row["paper_difference"], row["paper_low"], row["paper_high"])
        for row in rows
    ]
    return text


def claim_tests(table: Table) -> pd.DataFrame:
    """Each claim over all models or tasks: mean difference and p, `-` if too few runs are recorded to test it."""
    names = place_names(table)
    rows = []
    for found in frames.claim_tests(table).to_dict("records"):
        left: dict[str, list[str]] = {}
        for place, (first, second) in found["left_out"].items():
            left.setdefault(f"{first} + {second} runs", []).append(names[place])
        rows.append(
            {
                "Contrast": found["claim"],
                "Strata": found["places"],
                "Runs": found["runs"],
                "Mean difference": f"{found['difference']:+.2f}" if found["places"] else "-",
                "p (two-sided)": (f"{found['p']:.3f}" if found["p"] >= 0.0005 else "< 0.001")
                if found["places"]
                else "-",
                "Left out, under 2 runs a side": "; ".join(f"{' / '.join(of)}: {runs}" for runs, of in left.items()),
            }
        )
    return pd.DataFrame(rows)


def times(table: Table) -> pd.DataFrame:
    """Training times and their ratio to the baseline's on the same device, beside the paper's."""
    found, kind = frames.times(table), table.spec.kind
    names = place_names(table)
    if kind.arms_across:
        text = place_labels(table, found["place"]).assign(
            Method=found["method"].map(ARM_LABELS), K=found["num_augmented"]
        )
    else:
        text = pd.DataFrame({"Task": found["place"].map(names)}).join(_arm_labels(table, found))
    devices = zip(found["device"], found["threads"], strict=True)
    text["Device"] = [device_label(device, int(threads)) for device, threads in devices]
    text["n"] = found["n"]
    text["Training"] = found["seconds"].map(duration)
    text[f"Ratio to {ARM_LABELS[kind.baseline]}"] = (found["seconds"] / found["baseline_seconds"]).map(ratio)
    if kind.arms_across:
        text["Paper, K = 10, V100"] = ["" if pd.isna(hours) else f"{hours:.1f} h" for hours in found["paper_hours"]]
    heading = "Paper's ratio" if kind.arms_across else "Paper's ratio, all tasks, V100"
    text[heading] = [ratio(value, "") for value in found["paper_ratio"]]
    return text


def curves(table: Table) -> pd.DataFrame:
    """The numbers behind Figure 2."""
    found = frames.curves(table).rename(columns={"place": "task"})
    return found.assign(task=found["dataset"].map(dataset_labels(table)))


def seeds(table: Table) -> pd.DataFrame:
    """Every run that a table averages, as its figure draws it; columns that no run fills are left out."""
    found = finished(table.runs)
    optional = ["score_mm", "test_score", "test_score_mm", "dropout", "disagreement_pct"]
    filled = [column for column in optional if found[column].notna().any()]
    shown = [
        "dataset",
        "model",
        "method",
        "num_augmented",
        *table.spec.settings,
        "seed",
        "metric",
        "score",
        "best_score",
    ]
    found = found[list(dict.fromkeys([*shown, *filled]))].reset_index(drop=True)
    return found.assign(dataset=found["dataset"].map(dataset_labels(table)))


def show(frame: pd.DataFrame, best: pd.DataFrame | None = None) -> HTML:
    """A table for a notebook: no index, the same bytes at every execution.

    Args:
        frame: the table; its text is escaped, its fractions are shown with two decimals at most.
        best: of the same shape, whether a cell is set in bold; by default none is.
    """
    if frame.empty:
        return HTML("<p>Nothing recorded yet that this could be computed from.</p>")
    cells = frame.apply(_html)
    if best is not None:
        cells = emphasized(cells, best, "<b>{}</b>")
    return HTML(cells.rename(columns=escape).to_html(index=False, border=0, escape=False))


def bullets(lines: Iterable[str]) -> Markdown:
    """A list for a notebook."""
    return Markdown("\n".join(f"- {line}" for line in lines))


def emphasized(cells: pd.DataFrame, best: pd.DataFrame, form: str) -> pd.DataFrame:
    """A table of texts whose best cells are put into a form, `**{}**` say."""
    return cells.mask(best.to_numpy(), cells.map(form.format))


def _html(column: pd.Series) -> list[str]:
    if not pd.api.types.is_float_dtype(column):
        return [escape(str(value)) for value in column]
    short = column.dropna().round(1).eq(column.dropna()).all()
    return ["" if pd.isna(value) else f"{value:g}" if short else f"{value:.2f}" for value in column]
