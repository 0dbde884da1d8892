"""The cells of the GLUE tables: which runs go into a row and a column, ours and the paper's; nothing is laid out here.

A row is an arm: a method and, in Tables 4 and 6, how its augmented texts were made. A column is a score of a task: MNLI
has two, and `avg` is the mean of the nine.
"""

import numpy as np
import pandas as pd

from mmel.methods import LABELS
from mmel.report.aggregate import paper_table
from mmel.report.common import DATASET_LABELS
from mmel.report.runs import usable

# (method, then the values of the table's FIELDS); the baseline augments nothing and has "" there.
Arm = tuple[str | float, ...]
# Arm -> column -> one score a seed; a cell of the grid without usable runs has [].
Cells = dict[Arm, dict[str, list[float]]]
# Arm -> column -> what `paper_cells` says of it.
PaperCells = dict[Arm, dict[str, pd.Series]]

COLUMNS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI-m",
    "mnli_mm": "MNLI-mm",
    "qnli": "QNLI",
    "rte": "RTE",
}
FIELDS = {"table3": (), "table4": ("label_source",), "table6": ("fill", "pair_mode", "mask_ratio"), "figure2": ()}
ARM_LABELS = {**LABELS, "smart": "SMART, quoted"}


def task_of(dataset: str) -> str:
    """`cola` of `grammar_cola` and of `cola`."""
    return dataset.removeprefix("grammar_")


def arm_label(arm: Arm) -> str:
    """`MMEL-H, predicted`."""
    return ", ".join(str(part) for part in (ARM_LABELS[arm[0]], *arm[1:]) if part != "")


def kinds(runs: pd.DataFrame) -> dict[str, str]:
    """What our data of each data set are where they are not the GLUE task: `miniature`, `subset`, `sample`, or ""."""

    def kind(dataset: str, group: pd.DataFrame) -> str:
        if dataset.startswith("grammar_"):
            return "miniature"
        # Splits of another size than GLUE's, or fewer of its training examples.
        return "sample" if group["sampled"].any() else "subset" if (group["train_size"] > 0).any() else ""

    return {dataset: kind(dataset, group) for dataset, group in runs.groupby("dataset", sort=False)}


def dataset_labels(runs: pd.DataFrame) -> dict[str, str]:
    """Name of each data set; one that is not the whole task says so."""
    return {dataset: named(DATASET_LABELS[task_of(dataset)], "({})", [kind]) for dataset, kind in kinds(runs).items()}


def column_labels(runs: pd.DataFrame, form: str = "({})") -> dict[str, str]:
    """Name of each column of a table, `avg` the last; one whose data are not the whole task says so.

    Args:
        runs: from `load_runs`.
        form: how it says so.
    """
    found = {task_of(dataset): kind for dataset, kind in kinds(runs).items()}
    labels = {key: named(label, form, [found.get(key.removesuffix("_mm"), "")]) for key, label in COLUMNS.items()}
    return labels | {"avg": named("Avg", form, list(found.values()))}


def named(label: str, form: str, words: list[str]) -> str:
    """A label with what its data are, where they are not the task."""
    said = ", ".join(dict.fromkeys(filter(None, words)))
    return f"{label} {form.format(said)}" if said else label


def cells(runs: pd.DataFrame, name: str, split: str = "dev") -> Cells:
    """The scores that a table shows, in the grid's order.

    Args:
        runs: from `load_runs`.
        name: a table of `FIELDS`.
        split: `dev` or `test`.

    Returns:
        Every planned cell; `avg` is a cell of the arms that have all nine columns in the grid, over the seeds that have
        all nine.
    """
    prefix = {"dev": "", "test": "test_"}[split]
    left_in = set(usable(runs)["run_id"])
    by_seed: dict[Arm, dict[str, dict[int, float]]] = {}
    for run in runs.to_dict("records"):
        task = task_of(run["dataset"])
        scores = {task: run[f"{prefix}score"]}
        if task == "mnli":
            scores["mnli_mm"] = run[f"{prefix}score_mm"]
        columns = by_seed.setdefault(arm_of(run, name), {})
        for column, value in scores.items():
            found = columns.setdefault(column, {})
            if run["run_id"] in left_in and not np.isnan(value):
                found[run["seed"]] = value
    for columns in by_seed.values():
        if set(columns) == set(COLUMNS):
            whole = set.intersection(*(set(found) for found in columns.values()))
            columns["avg"] = {seed: np.mean([columns[key][seed] for key in COLUMNS]) for seed in sorted(whole)}
    return {
        arm: {column: [float(value) for value in found.values()] for column, found in columns.items()}
        for arm, columns in by_seed.items()
    }


def arm_of(run: dict[str, object], name: str) -> Arm:
    """The row of a table in which a run, or a line of the paper's table, stands."""
    return (run["method"], *("" if run["method"] == "baseline" else run[field] for field in FIELDS[name]))


def paper_cells(name: str, split: str = "dev") -> PaperCells:
    """The paper's cells: arm -> column -> `mean`, `std`, `num_runs` (NaN where not printed) and `text`."""
    table = paper_table(name).rename(columns={"score": "mean"})
    if name == "table3":
        table = table[table["split"] == split]
    table = table.reindex(columns=[*table.columns.union(["std", "num_runs"], sort=False)])
    # SMART's numbers are quoted from elsewhere, runs unknown.
    table["num_runs"] = table["num_runs"].where(table["method"] != "smart")
    table["text"] = [_as_printed(cell) for cell in table.to_dict("records")]
    found: PaperCells = {}
    for _, cell in table.iterrows():
        found.setdefault(arm_of(cell, name), {})[cell["dataset"]] = cell
    if name == "table4":
        # Printed without a baseline; the text sends the reader to Table 3's.
        found = {("baseline", ""): paper_cells("table3")[("baseline",)]} | found
    return found


def _as_printed(cell: dict[str, float]) -> str:
    spread = "" if pd.isna(cell["std"]) else f" ± {cell['std']:.2f}"
    count = "" if pd.isna(cell["num_runs"]) else f" ({int(cell['num_runs'])})"
    return f"{cell['mean']:.1f}{spread}{count}"
