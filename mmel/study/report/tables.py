"""Turns the numbers of a table into text, once, at the end: for notebooks, CSV, Markdown and LaTeX."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from mmel.study.datasets import DATASETS
from mmel.study.report import contrasts as numbers
from mmel.study.report import frames
from mmel.study.report.claims import claims_of
from mmel.study.report.frames import RecordedTable
from mmel.study.report.layout import AVERAGE, COLUMNS, METHOD_LABELS
from mmel.study.report.runs import device_label, finished
from mmel.study.tables import TABLES

TIME = "Time (ratio to Baseline)"


def level(mean: float, sd: float, n: float, decimals: int = 2) -> str:
    """`92.53 ± 0.10 (5)`; without a deviation of one run, without a number of runs that is not known; `-` of none."""
    if n == 0:
        return "-"
    spread = "" if pd.isna(sd) else f" ± {sd:.2f}"
    return f"{mean:.{decimals}f}{spread}" + ("" if pd.isna(n) else f" ({n:.0f})")


def interval(difference: float, low: float, high: float, *, ratio: bool = False) -> str:
    """`+0.63 [+0.48, +0.78]`, a ratio `0.43 [0.42, 0.44]`; the number alone without an interval."""
    bounds = "" if pd.isna(low) else f" [{number(low, ratio)}, {number(high, ratio)}]"
    return number(difference, ratio) + bounds


def number(value: float, ratio: bool = False) -> str:
    """`+0.63`, or `0.63` of a ratio."""
    return f"{value:.2f}" if ratio else f"{value:+.2f}"


def duration(seconds: float) -> str:
    """`45 s`, or `1.5 h` from an hour on."""
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def place_label(place: str) -> str:
    """`CIFAR-10, ResNet-20` of `cifar10/resnet20`; `..., ResNet-18 (narrow)` of `.../resnet18_narrow`."""
    dataset, model = place.split("/")
    depth, _, kind = model.removeprefix("resnet").partition("_")
    return f"{DATASETS[dataset].label}, ResNet-{depth}" + (f" ({kind})" if kind else "")


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
        return {
            place: place_label(place) for place in [*table.runs["place"], *frames.paper_cells(table.spec.name)["place"]]
        }
    found = kinds(table.runs)
    names = (COLUMNS if columns else COLUMNS | {"mnli": DATASETS["mnli"].label}) | {AVERAGE: "Avg"}
    said = {place: found.get(place.removesuffix("_mm"), "") for place in names}
    said[AVERAGE] = ", ".join(dict.fromkeys(filter(None, found.values())))
    return {place: f"{name} {form.format(said[place])}" if said[place] else name for place, name in names.items()}


def levels(table: RecordedTable) -> pd.DataFrame:
    """The scores of a table, ours and then the paper's, as text.

    On images a place is a row and an arm a column, on texts the other way round. An empty cell is not in the grid, `-`
    is a planned one without a run.
    """
    return pd.concat([_levels(table, split) for split in table.spec.splits or ("dev",)], ignore_index=True)


def _levels(table: RecordedTable, split: str) -> pd.DataFrame:
    spec, layout = table.spec, table.layout
    ours, paper = frames.cells(table, split), frames.paper_cells(table.spec.name, split)
    # In the paper's order; an arm that it has not comes last.
    arms = list(dict.fromkeys([*paper["arm"], *ours["arm"]]))
    ours = ours.sort_values("arm", key=lambda arm: arm.map(arms.index), kind="stable")
    ours = ours.assign(source=f"ours ({table.profile})", decimals=2)
    found = pd.concat([ours, paper.assign(decimals=layout.decimals)], ignore_index=True)
    found["text"] = [level(*cell) for cell in found[["mean", "sd", "n", "decimals"]].itertuples(index=False)]

    row, across = ("place", "arm") if layout.arms_across else ("arm", "place")
    shown = [arm for arm in arms if arm in set(ours["arm"])] if layout.arms_across else [*COLUMNS, AVERAGE]
    heads = found.drop_duplicates(["source", row]).reset_index(drop=True)
    order = pd.MultiIndex.from_frame(heads[["source", row]])
    texts = found.pivot(index=["source", row], columns=across, values="text").reindex(index=order, columns=shown)
    front = pd.DataFrame({"Split": split} if spec.splits else {}, index=heads.index)
    front["Source"] = heads["source"]
    names = labels(table, columns=True, form="(ours: {})")
    front = front.join(_headed(table, heads["place"], names) if layout.arms_across else _arms(table, heads))
    frame = front.join(texts.reset_index(drop=True).rename(columns=names).fillna(""))
    if table.spec.name == "table3":
        frame[TIME] = _total_times(table, heads)
    return frame


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
    """The claims of a table wherever we have runs of both arms: ours and the paper's, each with interval and verdict.

    Where the paper has no such place the range of its differences stands.
    """
    found = numbers.contrasts(table)
    ours, paper = (found[found["source"] == source] for source in ("ours", "paper"))
    keys = ["claim", "place", "arm_a", "arm_b"]
    printed = paper.set_index(keys)
    names, claims, rows = labels(table, columns=True), claims_of(table.spec.name), []
    for row in ours.to_dict("records"):
        times = claims[row["claim"]].quantity == "time"
        key = tuple(row[name] for name in keys)
        beside = printed.loc[key] if key in printed.index else None
        whole = paper.loc[paper["claim"] == row["claim"], "difference"]
        said = ""
        if beside is not None:
            said = f"{interval(*beside[['difference', 'low', 'high']], ratio=times)}, {beside['verdict']}"
        elif len(whole):
            said = f"{number(whole.min(), times)} to {number(whole.max(), times)} ({len(whole)} cells)"
        mine = interval(row["difference"], row["low"], row["high"], ratio=times)
        rows.append(
            {
                "Where": names.get(row["place"], "all tasks"),
                "Contrast": _contrast_name(row, table),
                "Claimed": _claimed(claims[row["claim"]]),
                "Ours [95 %] (runs)": f"{mine}, {row['verdict']} ({row['n_a']} + {row['n_b']})",
                "Paper [95 %]": said,
                "Note": _note(row, times),
            }
        )
    return pd.DataFrame(rows)


def _contrast_name(row: Mapping[str, Any], table: RecordedTable) -> str:
    """The label of a claim, or of a claim about many pairs the pair."""
    return f"{row['arm_a']} − {row['arm_b']}" if len(table.spec.settings) > 1 else row["label"]


def _claimed(claim: Any) -> str:
    if claim.quantity == "time":
        return {"<": "< 1", "=": f"1 ± {claim.margin:g}"}[claim.direction]
    forms = {">": f"> {claim.more_than:g}", "<": "< 0", "=": f"0 ± {claim.margin:g}", ">=": f"> -{claim.margin:g}"}
    return forms[claim.direction]


def _note(row: Mapping[str, Any], times: bool) -> str:
    """Of an undecided contrast how much it can see, of a decided one whether it differs in size from the paper's."""
    if row["kind"] == "none":
        return "single runs" if max(row["n_a"], row["n_b"]) == 1 else "no spread"
    how = {"prediction": "one run on a side, equal spread assumed", "paired": "paired by seed"}.get(row["kind"], "")
    notes = [how] if how else []
    if row["verdict"] == "undecided" and not times:
        notes.insert(0, f"sees {row['half_width']:.1f}")
        if row["seeds"] == row["seeds"]:
            notes.append(f"the paper's {abs(row['effect']):.2f} would take {seeds_text(row['seeds'])} seeds a side")
    if row["differs_in_size"]:
        notes.append("differs in size from the paper's")
    return "; ".join(notes)


def seeds_text(seeds: float) -> str:
    """A number of seeds, `over 1000` from there on."""
    return "over 1000" if seeds > 1000 else f"{seeds:.0f}"


def pooled_tests(table: RecordedTable) -> pd.DataFrame:
    """Each claim over all models or tasks at once, where enough runs share their seeds."""
    found = numbers.pooled_tests(table)
    return pd.DataFrame(
        {
            "Contrast": found["label"],
            "Places": found["places"],
            "Runs": found["runs"],
            "Mean difference in standard deviations": found["effect"].map("{:+.2f}".format),
            "One place left out": found["low"].map("{:+.2f}".format) + " to " + found["high"].map("{:+.2f}".format),
            "p (two-sided)": [p_text(p) for p in found["p"]],
        }
    )


def p_text(p: float) -> str:
    """`0.031`, or `< 0.001`; empty if there is none."""
    return "" if p != p else f"{p:.3f}" if p >= 0.0005 else "< 0.001"


def answers(found: pd.DataFrame, profile: str) -> pd.DataFrame:
    """The claims table of the first page, from `contrasts.answers`."""
    agrees = {True: "yes", False: "no", None: "cannot tell"}
    return pd.DataFrame(
        {
            "Claim": f"“{row['words']}” ({row['section']}; {TABLES[row['table']].title})",
            "Contrast": row["label"] + (" *" if row["primary"] else ""),
            "The paper's own numbers": _counted(row, "paper"),
            f"Ours ({profile})": _counted(row, "ours"),
            "Agree?": agrees[row["agrees"]] if row["ours_places"] else "no runs yet",
            "Ours can see": _detectable(row),
        }
        for row in found.to_dict("records")
    )


def _counted(row: Mapping[str, Any], source: str) -> str:
    """`supported in 5 of 8`; of single runs `as claimed in 54 of 72, single runs`; empty without any."""
    number_of = row[f"{source}_places"]
    if not number_of:
        return ""
    if not row[f"{source}_tested"]:
        return f"as claimed in {row[f'{source}_toward']} of {number_of}, single runs"
    counts = {said: row[f"{source}_{said}"] for said in numbers.VERDICTS[:3]}
    told = [f"{said} in {count}" for said, count in counts.items() if count]
    return f"{', '.join(told)} of {number_of}" if told else f"undecided in {number_of}"


def _detectable(row: Mapping[str, Any]) -> str:
    if pd.isna(row["half_width"]) or row["quantity"] == "time":
        return ""
    needed = (
        "" if pd.isna(row["seeds"]) else f"; the paper's {row['effect']:.2f} takes {seeds_text(row['seeds'])} seeds"
    )
    return f"{row['half_width']:.1f} points{needed}"


def headline(found: pd.DataFrame, profile: str) -> str:
    """The first sentences of the first page, from `contrasts.answers`: does weighting beat equal weights?"""
    rows, told = found[found["primary"]], []
    for method in ("MMEL-H", "MMEL-S"):
        parts = {"paper": [], "ours": []}
        for row in rows[rows["label"].str.startswith(method)].to_dict("records"):
            kind = {"table1": "image cells", "table3": "GLUE columns"}[row["table"]]
            for source, counts in parts.items():
                against = f" (no in {row[f'{source}_opposed']})" if row[f"{source}_opposed"] else ""
                counts.append(f"{row[f'{source}_supported']} of {row[f'{source}_places']} {kind}{against}")
        told.append(
            f"**{method}**: the paper's own numbers say yes in {' and '.join(parts['paper'])}, ours (`{profile}`) in "
            f"{' and '.join(parts['ours'])}."
        )
    return f"**Does weighting beat equal weights?** {' '.join(told)} Everywhere else the interval includes 0."


def pooled_sentence(found: pd.DataFrame) -> str:
    """The p-values of the primary claims over all places, from `contrasts.answers`."""
    tested = found[found["primary"] & found["p"].notna()]
    intervals = int(found["ours_tested"].sum() + found["paper_tested"].sum())
    said = [
        f"{row['label']} ({TABLES[row['table']].title}) p = {p_text(row['p'])}" for row in tested.to_dict("records")
    ]
    pooled = f" Over all places at once, by Holm's method: {'; '.join(said)}." if said else ""
    return f"The table rests on {intervals} intervals; of as many, 1 in 20 misses by chance.{pooled}"


def answer(table: RecordedTable) -> str:
    """One sentence on the first claim of a table, for MMEL-H and MMEL-S, from the paper's numbers and ours."""
    found = numbers.answers_of(table)
    parts = []
    for row in found[found["words"] == found["words"].iloc[0]].to_dict("records"):
        sees = "" if pd.isna(row["half_width"]) else f", seeing differences from {row['half_width']:.1f} points on"
        told = f"the paper's own numbers: {_counted(row, 'paper') or 'none'}; ours (`{table.profile}`): "
        parts.append(f"**{row['label']}** — {told}{_counted(row, 'ours') or 'no runs yet'}{sees}.")
    return " ".join(parts)


def weights(found: pd.DataFrame) -> pd.DataFrame:
    """How unequal the trained weights are, from `contrasts.weights`."""
    names = [place_label(place) if "/" in place else DATASETS[place].label for place in found["place"]]
    return pd.DataFrame(
        {
            "Where": names,
            "Method": found["method"].map(METHOD_LABELS),
            "Views weighted": found["num_weighted"],
            "Largest weight, mean": found["largest"].map("{:.3f}".format),
            "Equal weights": found["equal"].map("{:.3f}".format),
            "Ratio": (found["largest"] / found["equal"]).map("{:.2f}".format),
            "Runs": found["n"],
        }
    )


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


def show(frame: pd.DataFrame) -> HTML:
    """A table for a notebook: no index, the same bytes at every execution.

    Its text is escaped, its fractions have two decimals at most.
    """
    if frame.empty:
        return HTML("<p>Nothing recorded yet that this could be computed from.</p>")
    cells = frame.apply(_html)
    return HTML(cells.rename(columns=escape).to_html(index=False, border=0, escape=False))


def bullets(lines: Iterable[str]) -> Markdown:
    """A list for a notebook."""
    return Markdown("\n".join(f"- {line}" for line in lines))


def weighted_texts(losses: list[float], weights: list[float], **samples: list) -> Styler:
    """The samples of one text below each other, the original first, with their losses and weights under P*.

    Other columns are `text`, `target` and maybe `teacher`: numbers and lists of them.
    """

    def rounded(value: object) -> str:
        if isinstance(value, list):
            return ", ".join(map(rounded, value))
        return "" if value != value else f"{value:.3f}" if isinstance(value, float) else str(value)

    columns = {**samples, "loss": losses, "weight": weights}
    return pd.DataFrame(columns).style.format(rounded).set_properties(**{"text-align": "left"})


def _html(column: pd.Series) -> list[str]:
    if not pd.api.types.is_float_dtype(column):
        return [escape(str(value)) for value in column]
    short = column.dropna().round(1).eq(column.dropna()).all()
    return ["" if pd.isna(value) else f"{value:g}" if short else f"{value:.2f}" for value in column]
