"""What a reader of a GLUE table must know: caption and notes."""

import numpy as np
import pandas as pd

from mmel.config import CHOSEN_DROPOUT, TEXT_METHODS
from mmel.grids import DROPOUT_CANDIDATES, PAPER_TEXT_MODEL
from mmel.methods import LABELS
from mmel.report.aggregate import sampling_error
from mmel.report.common import BOLD, provenance_notes, scale_notes, where_trained, which_evaluation
from mmel.report.runs import usable
from mmel.report.text_cells import COLUMNS, Cells, cells, column_labels, dataset_labels, kinds, task_of

TITLES = {
    "table3": "Table 3 (methods on text)",
    "table4": "Table 4 (labels of augmented texts: their example's, or a teacher's)",
    "table6": "Table 6 (ways of augmenting a text)",
    "figure2": "Figure 2 (dev score over training)",
}
_SCORES = "Matthews correlation for CoLA, Spearman correlation for STS-B, else accuracy"


def caption(name: str, runs: pd.DataFrame, profile: str) -> str:
    """What a table or Figure 2 shows, on which data, with which encoder, trained where."""
    done = usable(runs)
    bold = "" if name == "figure2" else " " + BOLD.format(among="of a column, ours and the paper's apart")
    if done.empty:
        return f"{TITLES[name]}, profile {profile}: no runs recorded yet.{bold}"
    more = {"table3": "; test: F1 for MRPC and QQP", "figure2": "; MNLI on its matched dev set"}.get(name, "")
    when = which_evaluation(runs)
    what = {
        "table3": f"score in percent {when}, mean ± std (n) over seeds",
        "table4": f"dev score in percent {when}, mean ± std (n) over seeds",
        "table6": f"dev score in percent {when}, one run (1) a cell",
        "figure2": "dev score in percent at each evaluation, mean and range over seeds",
    }[name]
    return (
        f"{TITLES[name]}, profile {profile}: {what} ({_SCORES}{more}).{bold} {_sizes(done)}. {_encoders(done)}. "
        f"{where_trained(runs)}"
    )


def notes(name: str, runs: pd.DataFrame, profile: str) -> list[str]:
    """What bounds the reading of a table or of Figure 2, in the order of its weight."""
    done = usable(runs)
    return [
        *scale_notes(profile),
        *_data_notes(runs, done),
        *_layout_notes(name, runs, profile),
        *_dropout_notes(done),
        *_teacher_notes(name, done),
        *_sampling_notes(cells(runs, name), runs, done),
        *provenance_notes(runs, "memory forced their batches to be split"),
    ]


def _sizes(done: pd.DataFrame) -> str:
    """Data set sizes and epochs; tasks with the same stand together."""
    labels = dataset_labels(done)
    groups: dict[str, list[str]] = {}
    for dataset, group in done.groupby("dataset", sort=False):
        run = group.iloc[0]
        train, available = int(run["num_train"]), int(run["num_available"])
        of = f" of {available:,}" if train < available else ""
        sizes = f"{train:,}{of} training and {int(run['num_eval']):,} dev texts, {run['epochs']} epochs"
        groups.setdefault(sizes, []).append(labels[dataset])
    return "; ".join(f"{', '.join(names)}: {sizes}" for sizes, names in groups.items())


def _encoders(done: pd.DataFrame) -> str:
    parts = []
    for model, group in done.groupby("model", sort=False):
        # The head's size differs from task to task.
        size = f"{group['num_parameters'].min() / 1e6:.1f}M parameters"
        parts.append(f"{model} ({size})" + ("" if model == PAPER_TEXT_MODEL else f", which is not {PAPER_TEXT_MODEL}"))
    return f"Encoder: {'; '.join(parts)}"


def _data_notes(runs: pd.DataFrame, done: pd.DataFrame) -> list[str]:
    """Whose levels these are not."""
    found = []
    others = [model for model in dict.fromkeys(runs["model"]) if model != PAPER_TEXT_MODEL]
    if others:
        found.append(
            f"The encoder is {' and '.join(others)}, not {PAPER_TEXT_MODEL}, the paper's: levels are never the paper's."
        )
    said = set(kinds(done if not done.empty else runs).values())
    if "miniature" in said:
        found.append(
            "A *miniature* is a task generated from a grammar (`mmel.data.grammar`) with a GLUE task's columns, labels "
            "and metric; it is not that task."
        )
    if "subset" in said:
        found.append("A *subset* is trained on a fixed part of the task's training set; it is not the task.")
    if "sample" in said:
        found.append("A *sample* has splits of other sizes than GLUE's; a score on it is not a score on the task.")
    return found


def _layout_notes(name: str, runs: pd.DataFrame, profile: str) -> list[str]:
    """What is not in the table, and how to read what is."""
    found = []
    planned = {task_of(dataset) for dataset in runs["dataset"]}
    absent = [label for column, label in COLUMNS.items() if column.removesuffix("_mm") not in planned]
    if name == "figure2":
        found += [f"Not in this profile's grid: {', '.join(absent)}."] if absent else []
    elif absent:
        found.append("Empty cells are not in this profile's grid; Avg is shown only where all nine columns exist.")
    else:
        found.append(
            "Avg is the mean of nine columns, MNLI's two among them, over the seeds that have all nine, and is shown "
            "only where they exist."
        )
    if name == "table3":
        absent = [LABELS[method] for method in TEXT_METHODS if method not in set(runs["method"])]
        if absent:
            found.append(f"Not in this profile's grid: {', '.join(absent)}.")
        if not runs["dataset"].str.startswith("grammar_").all():
            found.append(
                "GLUE's test labels are not public: its server scores what `mmel report --glue-submission METHOD` "
                "writes, so the test part has the paper's rows alone."
            )
        found.append(
            "Time is training alone, the median over seeds, summed over tasks: augmented texts and the teacher's "
            "outputs are made once, before it, and the teacher is the first run of Baseline. SMART is quoted as the "
            "paper quotes it. Contrasts are of the dev sets."
        )
        if (runs["threads"] > 0).any():
            found.append(
                "Times on a CPU whose cores other work shared are no measure of cost; those of the committed `reduced` "
                "runs are such."
            )
        if set(runs["select"]) == {"best"} and usable(runs)["test_score"].notna().any():
            found.append("Test scores are after the last epoch all the same.")
    if name == "table4":
        found.append(
            "The paper's rows with MMEL repeat single runs of its Table 6, its Baseline is Table 3's mean of five."
        )
    if name == "table6":
        found.append(
            "One run a cell: differences of a point or two are what seeds alone make, and no claim is decided here. "
            "A task of single sentences has no pair to join; the paper prints such rows all the same, and how they "
            "differ from the separate ones (CoLA 62.8 and 61.8, MMEL-H, greedy, 0.4) shows what its runs scatter."
        )
    return found


def _dropout_notes(done: pd.DataFrame) -> list[str]:
    """How the dropout rates were chosen, and which they are."""
    chosen = done[done["hidden_dropout"] == CHOSEN_DROPOUT]
    if chosen.empty:
        return []
    picked = ", ".join(f"{value} in {count}" for value, count in chosen["dropout"].value_counts(sort=False).items())
    values = ", ".join(f"{value:g}" for value in DROPOUT_CANDIDATES)
    return [
        f"Hidden and attention dropout were chosen from {{{values}}} each by the dev score, for every method and task "
        f"on a seed of its own, which makes dev levels a little too good. Of the {len(chosen)} runs: {picked}."
    ]


def _teacher_notes(name: str, done: pd.DataFrame) -> list[str]:
    """That runs share a teacher, and how often it changes a label."""
    taught = done.dropna(subset="disagreement_pct")
    if taught.empty:
        return []
    labels = dataset_labels(done)
    shares = ", ".join(
        f"{labels[dataset]} {group['disagreement_pct'].median():.1f} %"
        for dataset, group in taught.groupby("dataset", sort=False)
    )
    reading = "" if name == "figure2" else ": intervals are to be read as over seeds given that teacher"
    return [
        "Runs on a teacher's labels share the teacher of their task (Baseline, seed 0; where its weights are missing "
        f"it is trained anew) and the same augmented texts, so they are correlated{reading}. The teacher gives another "
        f"class than to the original (STS-B: a score more than 0.5 away) to these shares of the variants: {shares}."
        f"{_several_teachers(taught, labels)}"
    ]


def _several_teachers(taught: pd.DataFrame, labels: dict[str, str]) -> str:
    """Which seeds had which teacher, for tasks whose teacher was trained more than once; empty if none was.

    Records from before the digest of its weights tell a teacher by how often it changes a label.
    """
    found = []
    texts = ["dataset", "num_augmented", "mask_ratio", "fill", "pair_mode"]
    for (dataset, *_), group in taught.groupby(texts, sort=False):
        digest = group["teacher_weights"]
        # An old record is of the teacher that changes as many labels, if a later one names it.
        digest = digest.combine_first(digest.groupby(group["disagreement_pct"]).transform("first"))
        teachers = digest.combine_first(group["disagreement_pct"].astype(str))
        had = []
        for _, runs in group.groupby(teachers, sort=False):
            seeds = sorted(set(runs["seed"]))
            word = "seeds" if len(seeds) > 1 else "seed"
            had.append(f"{word} {', '.join(map(str, seeds))}: {runs['disagreement_pct'].median():.3f} %")
        if len(had) > 1:
            found.append(f"{labels[dataset]} had {len(had)} ({'; '.join(had)})")
    told = ", ".join(dict.fromkeys(found))
    return f" A teacher that was trained again, as on another machine, is another one: {told}." if found else ""


def _sampling_notes(ours: Cells, runs: pd.DataFrame, done: pd.DataFrame) -> list[str]:
    """The error that the finite dev set alone gives a level."""
    if done.empty:
        return []
    labels = column_labels(runs)
    of_task = {task_of(dataset): group for dataset, group in done.groupby("dataset", sort=False)}
    told, untold = [], []
    for column in COLUMNS:
        means = [np.mean(columns[column]) for columns in ours.values() if columns.get(column)]
        if not means:
            continue
        group = of_task[column.removesuffix("_mm")]
        num_eval, metric = group[["num_eval", "metric"]].iloc[0]
        if metric == "matthews_pct":
            counted = group["confusion"].dropna()
            errors = [sampling_error(np.nan, num_eval, metric, counts) for counts in counted]
        else:
            errors = [sampling_error(mean, num_eval, metric) for mean in means]
        if np.isnan(errors).all():
            untold.append(labels[column])
        else:
            told.append(f"{labels[column]} {np.nanmax(errors):.1f}")
    found = "The finite dev set alone gives a level a standard error; methods share it, so a contrast has less."
    if told:
        found += f" In points, at most: {', '.join(told)}."
    if untold:
        found += (
            f" {', '.join(untold)}: not told, since the error of Matthews' correlation depends on the confusion "
            "counts, which these runs did not record."
        )
    return [found]
