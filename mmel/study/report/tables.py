"""Turns the numbers of a table into text, once, at the end: for notebooks, CSV, Markdown and LaTeX."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from mmel.study.datasets import DATASETS
from mmel.study.report import frames
from mmel.study.report.frames import RecordedTable
from mmel.study.report.layout import AVERAGE, COLUMNS, METHOD_LABELS
from mmel.study.report.runs import device_label, finished

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


def model_label(model: str) -> str:
    """`ResNet-20` of `resnet20`, `ResNet-18 (narrow)` of `resnet18_narrow`."""
    depth, _, kind = model.removeprefix("resnet").partition("_")
    return f"ResNet-{depth}" + (f" ({kind})" if kind else "")


def kinds(runs: pd.DataFrame) -> dict[str, str]:
    """Task -> how its data differ from the GLUE task of that name: `miniature`, `subset`, `sample`, or ""."""
    found = {}
    for (task, dataset), group in runs.groupby(["place", "dataset"], sort=False):
        # A sample has splits of another size than GLUE's.
        of_glue = "sample" if group["sampled"].eq(True).any() else "subset" if (group["train_size"] > 0).any() else ""
        found[task] = "miniature" if DATASETS[dataset].embedded else of_glue
    return found


def labels(table: RecordedTable, columns: bool = False, form: str = "({})") -> dict[str, str]:
    """Place -> its name: `CIFAR-10, ResNet-20`; of texts `CoLA`, with how our data differ from the whole task.

    Args:
        table: whose places.
        columns: whether MNLI's first column is called `MNLI-m`.
        form: how a difference is said.
    """
    if table.layout.arms_across:
        places = dict.fromkeys([*table.runs["place"], *frames.paper_cells(table.spec.name)["place"]])
        parts = {place: place.split("/") for place in places}
        return {place: f"{DATASETS[name].label}, {model_label(model)}" for place, (name, model) in parts.items()}
    found = kinds(table.runs)
    names = (COLUMNS if columns else COLUMNS | {"mnli": DATASETS["mnli"].label}) | {AVERAGE: "Avg"}
    said = {place: found.get(place.removesuffix("_mm"), "") for place in names}
    said[AVERAGE] = ", ".join(dict.fromkeys(filter(None, found.values())))
    return {place: f"{name} {form.format(said[place])}" if said[place] else name for place, name in names.items()}


def levels(table: RecordedTable) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores of a table, ours and then the paper's, as text; and whether a cell is the highest of its place.

    On images a place is a row and an arm a column, on texts the other way round. Cells that print alike are equally
    high, and a cell by itself is not the highest. An empty cell is not in the grid, `-` is a planned one without a run.
    """
    parts = [_levels(table, split) for split in table.spec.splits or ("dev",)]
    return tuple(pd.concat(each, ignore_index=True) for each in zip(*parts, strict=True))


def _levels(table: RecordedTable, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    spec, layout = table.spec, table.layout
    ours, paper = frames.cells(table, split), frames.paper_cells(table.spec.name, split)
    # In the paper's order; an arm that it has not comes last.
    arms = list(dict.fromkeys([*paper["arm"], *ours["arm"]]))
    ours = ours.sort_values("arm", key=lambda arm: arm.map(arms.index), kind="stable")
    ours = ours.assign(source=f"ours ({table.profile})", decimals=2, whose=0)
    found = pd.concat([ours, paper.assign(decimals=layout.decimals, whose=1)], ignore_index=True)
    found["text"] = [level(*cell) for cell in found[["mean", "sd", "n", "decimals"]].itertuples(index=False)]
    rounded = found["mean"].round(2)
    among = rounded.groupby([found["whose"], found["place"]])
    found["best"] = rounded.eq(among.transform("max")) & (among.transform("count") > 1)

    row, across = ("place", "arm") if layout.arms_across else ("arm", "place")
    shown = [arm for arm in arms if arm in set(ours["arm"])] if layout.arms_across else [*COLUMNS, AVERAGE]
    heads = found.drop_duplicates(["source", row]).reset_index(drop=True)
    order = pd.MultiIndex.from_frame(heads[["source", row]])
    texts, best = (
        found.pivot(index=["source", row], columns=across, values=value).reindex(index=order, columns=shown)
        for value in ("text", "best")
    )
    front = pd.DataFrame({"Split": split} if spec.splits else {}, index=heads.index)
    front["Source"] = heads["source"]
    names = labels(table, columns=True, form="(ours: {})")
    front = front.join(_headed(table, heads["place"], names) if layout.arms_across else _arms(table, heads))
    frame = front.join(texts.reset_index(drop=True).rename(columns=names).fillna(""))
    if table.spec.name == "table3":
        frame[TIME] = _total_times(table, heads)
    marks = best.reset_index(drop=True).rename(columns=names).eq(True)
    return frame, marks.reindex(columns=frame.columns, fill_value=False)


def _headed(table: RecordedTable, places: pd.Series, names: dict[str, str]) -> pd.DataFrame:
    """A column for each heading of a place: data set and model, or task."""
    rows = [names[place].split(", ") if table.layout.arms_across else [names[place]] for place in places]
    return pd.DataFrame(rows, columns=table.layout.place)


def _arms(table: RecordedTable, rows: pd.DataFrame) -> pd.DataFrame:
    """Columns that name an arm: its method and settings, of images in any table its K."""
    settings = {"num_augmented": "K"} if table.layout.arms_across else table.spec.settings
    found = {heading: rows[field].astype(str) for field, heading in settings.items()}
    return pd.DataFrame({"Method": rows["method"].map(METHOD_LABELS), **found})


def _total_times(table: RecordedTable, rows: pd.DataFrame) -> list[str]:
    ours, paper = frames.total_times(table), frames.paper_hours(table.spec.name).set_index("method")
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


def contrasts(table: RecordedTable) -> pd.DataFrame:
    """The claims of a table at each place: ours with interval and verdict, the paper's beside it."""
    found = frames.contrasts(table)
    found = frames.over_pairs(found) if table.spec.pooled else found
    text = _headed(table, found["place"], labels(table, columns=True)).assign(Contrast=found["claim"])
    if table.spec.pooled:
        for key, heading in (("ours", "Ours"), ("paper", "Paper")):
            above, count = found[f"{key}_above"].astype(str), found[f"{key}_pairs"]
            text[heading] = found[key].map("{:+.2f}".format).where(count > 0, "no runs yet")
            text[f"{heading}: pairs above 0"] = (above + " of " + count.astype(str)).where(count > 0, "")
        return text
    tested = (found["n_a"] > 0) & (found["n_b"] > 0)
    text["Ours [95 %]"] = _intervals(found, "").where(tested, "no runs yet")
    text["n"] = (found["n_a"].astype(str) + " + " + found["n_b"].astype(str)).where(tested, "")
    text["Verdict"] = found["verdict"].replace(VERDICTS).where(tested, "")
    low, high = found["paper_min"].map("{:+.2f}".format), found["paper_max"].map("{:+.2f}".format)
    elsewhere = low + " to " + high + " over " + found["paper_places"].astype(str) + " cells"
    text["Paper [95 %]"] = _intervals(found, "paper_").where(found["paper_difference"].notna(), elsewhere)
    return text


def _intervals(found: pd.DataFrame, whose: str) -> pd.Series:
    bounds = found[[f"{whose}difference", f"{whose}low", f"{whose}high"]]
    return pd.Series([interval(*each) for each in bounds.itertuples(index=False)], index=found.index)


def claim_tests(table: RecordedTable) -> pd.DataFrame:
    """Each claim over all models or tasks: mean difference and p, `-` if too few runs are recorded to test it."""
    names, rows = labels(table), []
    for found in frames.claim_tests(table).to_dict("records"):
        left: dict[str, list[str]] = {}
        for place, (first, second) in found["left_out"].items():
            left.setdefault(f"{first} + {second} runs", []).append(names[place])
        p = f"{found['p']:.3f}" if found["p"] >= 0.0005 else "< 0.001"
        rows.append(
            {
                "Contrast": found["claim"],
                "Strata": found["places"],
                "Runs": found["runs"],
                "Mean difference": f"{found['difference']:+.2f}" if found["places"] else "-",
                "p (two-sided)": p if found["places"] else "-",
                "Left out, under 2 runs a side": "; ".join(f"{' / '.join(of)}: {runs}" for runs, of in left.items()),
            }
        )
    return pd.DataFrame(rows)


def times(table: RecordedTable) -> pd.DataFrame:
    """Training times and their ratio to the baseline's on the same device, beside the paper's."""
    found, layout = frames.times(table), table.layout
    text = _headed(table, found["place"], labels(table)).join(_arms(table, found))
    devices = zip(found["device"], found["threads"], strict=True)
    text["Device"] = [device_label(device, threads) for device, threads in devices]
    text["n"] = found["n"]
    text["Training"] = found["seconds"].map(duration)
    text[f"Ratio to {METHOD_LABELS[layout.baseline]}"] = _ratios(found["seconds"] / found["baseline_seconds"], "-")
    if layout.arms_across:
        text["Paper, K = 10, V100"] = _ratios(found["paper_hours"], "", " h")
    heading = "Paper's ratio" if layout.arms_across else "Paper's ratio, all tasks, V100"
    text[heading] = _ratios(found["paper_ratio"], "")
    return text


def _ratios(values: pd.Series, missing: str, unit: str = "") -> list[str]:
    return [missing if pd.isna(value) else f"{value:.1f}{unit}" for value in values]


def curves(table: RecordedTable) -> pd.DataFrame:
    """The numbers behind Figure 2."""
    found = frames.curves(table).rename(columns={"place": "task"})
    return found.assign(task=found["task"].map(labels(table)))


def seeds(table: RecordedTable) -> pd.DataFrame:
    """Every run that a table averages, as its figure draws it; columns that no run fills are left out."""
    found = finished(table.runs)
    fields = dict.fromkeys(["dataset", "model", "method", "num_augmented", *table.spec.settings])
    optional = ["score_mm", "test_score", "test_score_mm", "dropout", "disagreement_pct"]
    filled = [column for column in optional if found[column].notna().any()]
    return found[[*fields, "seed", "metric", "score", "best_score", *filled]].reset_index(drop=True)


def show(frame: pd.DataFrame, best: pd.DataFrame | None = None) -> HTML:
    """A table for a notebook, its `best` cells in bold: no index, the same bytes at every execution.

    Its text is escaped, its fractions have two decimals at most.
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


def weighted_texts(samples: Sequence[Mapping[str, Any]]) -> Styler:
    """The samples of one text below each other, the original first.

    Each has its `text`, `target`, `loss` and `weight` under P*, and maybe `teacher`: numbers and lists of them.
    """

    def rounded(value: object) -> str:
        if isinstance(value, list):
            return ", ".join(map(rounded, value))
        return "" if value != value else f"{value:.3f}" if isinstance(value, float) else str(value)

    return pd.DataFrame(samples).style.format(rounded).set_properties(**{"text-align": "left"})


def emphasized(cells: pd.DataFrame, best: pd.DataFrame, form: str) -> pd.DataFrame:
    """A table of texts whose best cells are put into a form, `**{}**` say."""
    return cells.mask(best.to_numpy(), cells.map(form.format))


def _html(column: pd.Series) -> list[str]:
    if not pd.api.types.is_float_dtype(column):
        return [escape(str(value)) for value in column]
    short = column.dropna().round(1).eq(column.dropna()).all()
    return ["" if pd.isna(value) else f"{value:g}" if short else f"{value:.2f}" for value in column]
