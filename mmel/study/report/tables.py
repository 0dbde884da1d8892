"""Turns the numbers of a table into text, once, at the end: for notebooks, CSV, Markdown and LaTeX."""

from collections.abc import Iterable
from html import escape

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from mmel.study.datasets import DATASETS
from mmel.study.report import frames
from mmel.study.report.frames import RecordedTable
from mmel.study.report.layout import AVERAGE, COLUMNS, METHOD_LABELS, METRIC_LABELS
from mmel.study.report.runs import finished

TIME = "Time (ratio to Baseline)"
_CURVES = {
    **{"place": "Task", "method": "Method", "metric": "Metric", "epoch": "Epoch"},
    **{"mean": "Mean", "min": "Lowest", "max": "Highest", "num_runs": "Runs"},
}
# Columns of `load_runs` and their headings among `seeds`.
_NUMBERS = {
    "seed": "Seed",
    "score": "Score",
    "score_mm": "Score, mismatched",
    "best_score": "Best score",
    "test_score": "Test score",
    "test_score_mm": "Test score, mismatched",
    "dropout": "Dropout, hidden / attention",
    "disagreement_pct": "Relabelled by the teacher (%)",
    "train_accuracy": "Training originals as labelled (%)",
}


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


def seeds_text(seeds: float) -> str:
    """`312`, or `over 1000`."""
    return "over 1000" if seeds > 1000 else f"{seeds:.0f}"


def place_label(place: str) -> str:
    """`CIFAR-10, ResNet-20` of `cifar10/resnet20`, `... (narrow)` of `.../resnet18_narrow`; `CoLA` of `cola`."""
    dataset, _, model = place.partition("/")
    if not model:
        return DATASETS[dataset].label
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


def labels(table: RecordedTable, columns: bool = False) -> dict[str, str]:
    """Place -> its name: `CIFAR-10, ResNet-20`; of texts `CoLA`, with how our data differ from the whole task.

    Args:
        table: whose places.
        columns: whether the paper's numbers stand under these names too: `CoLA (ours: subset)`, and `MNLI-m`.
    """
    if table.layout.arms_across:
        places = [*table.runs["place"], *frames.paper_cells(table.spec.name)["place"]]
        return {place: place_label(place) for place in places}
    found = kinds(table.runs)
    names = (COLUMNS if columns else COLUMNS | {"mnli": DATASETS["mnli"].label}) | {AVERAGE: "Avg"}
    said, whose = {place: found.get(place.removesuffix("_mm"), "") for place in names}, "ours: " if columns else ""
    said[AVERAGE] = ", ".join(dict.fromkeys(filter(None, found.values())))
    return {place: f"{name} ({whose}{said[place]})" if said[place] else name for place, name in names.items()}


def levels(table: RecordedTable, *, linked: bool = False) -> pd.DataFrame:
    """The scores of a table, ours and then the paper's, as text.

    On images a place is a row and an arm a column, on texts the other way round. An empty cell is not in the grid, `-`
    is a planned one without a run. If `linked`, ours lead to their runs in `seeds` on the same page.
    """
    parts = [_levels(table, split, linked) for split in table.spec.splits or ("dev",)]
    return pd.concat(parts, ignore_index=True)


def _levels(table: RecordedTable, split: str, linked: bool) -> pd.DataFrame:
    spec, layout = table.spec, table.layout
    ours, paper = frames.cells(table, split), frames.paper_cells(table.spec.name, split)
    # In the paper's order; an arm that it has not comes last.
    arms = list(dict.fromkeys([*paper["arm"], *ours["arm"]]))
    ours = ours.sort_values("arm", key=lambda arm: arm.map(arms.index), kind="stable")
    ours = ours.assign(source=f"ours ({table.profile})", decimals=2)
    found = pd.concat([ours, paper.assign(decimals=layout.decimals)], ignore_index=True)
    found["text"] = [level(*cell) for cell in found[["mean", "sd", "n", "decimals"]].itertuples(index=False)]
    if "pair_mode" in spec.settings:
        repeated = (found["pair_mode"] == "joint") & frames.is_single(found) & (found["source"] != "paper")
        found.loc[repeated & (found["text"] != "-"), "text"] += " †"
    if linked:
        there = set(_anchors(finished(table.runs)))
        anchors = _anchors(found).where(found["source"].str.startswith("ours"))
        cells = zip(found["text"], anchors, strict=True)
        found["text"] = [HTML(f'<a href="#{at}">{text}</a>') if at in there else text for text, at in cells]

    row, across = ("place", "arm") if layout.arms_across else ("arm", "place")
    shown = [arm for arm in arms if arm in set(ours["arm"])] if layout.arms_across else [*COLUMNS, AVERAGE]
    heads = found.drop_duplicates(["source", row]).reset_index(drop=True)
    order = pd.MultiIndex.from_frame(heads[["source", row]])
    texts = found.pivot(index=["source", row], columns=across, values="text").reindex(index=order, columns=shown)
    front = pd.DataFrame({"Split": split} if spec.splits else {}, index=heads.index)
    front["Source"] = heads["source"]
    names = labels(table, columns=True)
    front = front.join(_places(table, heads["place"], names) if layout.arms_across else _arms(table, heads))
    frame = front.join(texts.reset_index(drop=True).rename(columns=names).fillna(""))
    if table.spec.name == "table3":
        frame[TIME] = _total_times(table, heads)
    return frame


def _anchors(found: pd.DataFrame) -> pd.Series:
    """The name of each row's cell, MNLI's two columns alike, in links within a page."""
    names = found["place"].str.removesuffix("_mm") + " " + found["arm"]
    return names.str.replace(r"\W+", "-", regex=True)


def _places(table: RecordedTable, places: pd.Series, names: dict[str, str]) -> pd.DataFrame:
    """Columns that name a place: data set and model, or task."""
    return pd.DataFrame([names[place].split(", ") for place in places], columns=table.layout.place)


def _arms(table: RecordedTable, rows: pd.DataFrame) -> pd.DataFrame:
    """Columns that name an arm: its method and settings, of images in any table its K."""
    settings = {"num_augmented": "K"} if table.layout.arms_across else table.spec.settings
    found = {heading: rows[field].astype(str) for field, heading in settings.items()}
    return pd.DataFrame({"Method": rows["method"].map(METHOD_LABELS), **found})


def _total_times(table: RecordedTable, rows: pd.DataFrame) -> list[str]:
    planned, ours, paper = table.runs.groupby("arm")["place"].nunique(), {}, {}
    for arm, seconds, base, tasks in frames.total_times(table).itertuples():
        part = "" if tasks == planned[arm] else f", {tasks:.0f} of {planned[arm]} tasks"
        ours[arm] = f"{duration(seconds)} ({seconds / base:.1f}{part})"
    for method, hours, ratio in frames.paper_hours(table.spec.name).drop(columns="place").itertuples(index=False):
        paper[method] = f"{hours:.1f} h ({ratio:.1f})"
    sides = rows[["arm", "method", "source"]].itertuples(index=False)
    return [paper.get(method, "") if of == "paper" else ours.get(arm, "-") for arm, method, of in sides]


def times(table: RecordedTable) -> pd.DataFrame:
    """Training times and their ratio to the baseline's on the same device, beside the paper's."""
    found, layout = frames.times(table), table.layout
    text = _places(table, found["place"], labels(table)).join(_arms(table, found))
    text["Device"], text["n"] = found["device"], found["n"]
    text["Training"] = found["seconds"].map(duration)
    text[f"Ratio to {METHOD_LABELS[layout.baseline]}"] = _formatted(found["seconds"] / found["baseline_seconds"], "-")
    if layout.arms_across:
        text["Paper, K = 10, V100"] = _formatted(found["paper_hours"], "", "{:.1f} h")
    heading = "Paper's ratio" if layout.arms_across else "Paper's ratio, all tasks, V100"
    text[heading] = _formatted(found["paper_ratio"], "")
    return text


def _formatted(numbers: pd.Series, missing: str, form: str = "{:.1f}") -> pd.Series:
    return numbers.astype(float).map(form.format, na_action="ignore").astype(object).fillna(missing)


def curves(table: RecordedTable) -> pd.DataFrame:
    """The numbers behind Figure 2."""
    found = frames.curves(table)
    named = {"place": found["place"].map(labels(table)), "method": found["method"].map(METHOD_LABELS)}
    return found.assign(**named, metric=found["metric"].map(METRIC_LABELS)).rename(columns=_CURVES)[[*_CURVES.values()]]


def seeds(table: RecordedTable) -> pd.DataFrame:
    """Every run that a table averages, as its figure draws it, with a link to its record.

    Columns that no run fills are left out.
    """
    found = finished(table.runs).reset_index(drop=True)
    text = _places(table, found["place"], labels(table)).join(_arms(table, found))
    numbers = found[[*_NUMBERS]].dropna(axis="columns", how="all").rename(columns=_NUMBERS)
    # `levels` leads to the first run of a cell; a path would make the table too wide for paper.
    anchors, digests = _anchors(found), found["run_id"].str.rsplit("-", n=1).str[-1]
    names = [f' id="{name}"' if first else "" for name, first in zip(anchors, ~anchors.duplicated(), strict=True)]
    links = zip(names, found["record"], digests, strict=True)
    text = text.join(numbers).assign(Metric=found["metric"].map(METRIC_LABELS))
    return text.assign(Record=[HTML(f'<a{name} href="../results/{path}">{digest}</a>') for name, path, digest in links])


def show(frame: pd.DataFrame) -> HTML:
    """A table for a notebook: no index, the same bytes at every execution.

    Its text is escaped, unless it is HTML; its fractions have two decimals at most.
    """
    if frame.empty:
        return HTML("<p>Nothing recorded yet that this could be computed from.</p>")
    return HTML(frame.apply(_html).rename(columns=escape).to_html(index=False, border=0, escape=False))


def _html(column: pd.Series) -> pd.Series:
    if not pd.api.types.is_float_dtype(column):
        return column.map(lambda value: value.data if isinstance(value, HTML) else escape(str(value)))
    short = column.dropna().round(1).eq(column.dropna()).all()
    return column.map("{:g}".format if short else "{:.2f}".format).mask(column.isna(), "")


def downloads(profile: str, **names: str) -> HTML:
    """Links to tables that `mmel report` wrote: what they hold -> the name of their files."""
    forms, told = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}, []
    for what, name in names.items():
        file = f"../results/report/{profile}/{name}"
        told.append(f"{what}: " + ", ".join(f'<a href="{file}.{end}">{form}</a>' for end, form in forms.items()))
    return HTML(f"<p>Download {'; '.join(told)}</p>")


def bullets(lines: Iterable[str]) -> Markdown:
    """A list for a notebook."""
    return Markdown("\n".join(f"- {line}" for line in lines))


def weighted_texts(losses: list[float], weights: list[float], **samples: list) -> Styler:
    """The samples of one text below each other, the original first, with their losses and weights under P*.

    `samples` has `text`, `target` and maybe `teacher`: numbers and lists of them.
    """

    def rounded(value: object) -> str:
        if isinstance(value, list):
            return ", ".join(map(rounded, value))
        return "" if value != value else f"{value:.3f}" if isinstance(value, float) else str(value)

    columns = {**samples, "loss": losses, "weight": weights}
    return pd.DataFrame(columns).style.format(rounded).set_properties(**{"text-align": "left"})
