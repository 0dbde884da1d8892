"""What a reader must know beside a table: its caption and notes."""

import pandas as pd

from mmel.config import CHOSEN_DROPOUT
from mmel.grids import PAPER_TEXT_MODEL
from mmel.prerequisites import DROPOUT_CANDIDATES
from mmel.report.frames import Table, cells
from mmel.report.runs import finished
from mmel.report.specs import AVERAGE
from mmel.report.statistics import sampling_error
from mmel.report.tables import kinds, labels, level

_KINDS = {
    "miniature": "A *miniature* is generated from a grammar (`mmel.data.grammar`) with a GLUE task's columns, labels "
    "and metric; it is not that task.",
    "subset": "A *subset* is trained on a fixed part of the task's training set; it is not the task.",
    "sample": "A *sample* has splits of other sizes than GLUE's; a score on it is not a score on the task.",
}


def caption(table: Table) -> str:
    """What a table or Figure 2 shows, on which data, with which encoder, trained where."""
    done, kind = finished(table.runs), table.spec.kind
    start = f"{table.spec.title}, profile {table.profile}"
    if done.empty:
        return f"{start}: no runs recorded yet."
    row = "row" if kind.arms_across else "column, ours and the paper's apart"
    bold = "" if table.name == "figure2" else f" Bold is the highest mean of a {row}; it says nothing of significance."
    encoders = "" if kind.arms_across else f" {_encoders(done)}."
    return f"{start}: {table.spec.shows}.{bold} {_sizes(table, done)}.{encoders} {_where_trained(done)}."


def notes(table: Table) -> list[str]:
    """What bounds the reading of a table, in the order of its weight, and at the end which runs are missing."""
    done, texts = finished(table.runs), not table.spec.kind.arms_across
    found = []
    if table.profile != "paper":
        found.append(
            f"Profile `{table.profile}` is scaled down: its levels are not the paper's experiment and are not compared "
            "with the paper's levels. Only contrasts stand beside contrasts."
        )
    said = set(kinds(done if len(done) else table.runs).values()) if texts else set()
    found += [note for kind, note in _KINDS.items() if kind in said]
    found += table.spec.notes
    found += _dropout_notes(done) if texts else []
    found += _teacher_notes(table, done) if texts else []
    found += _sampling_notes(table, done)
    found += _run_notes(table, done)
    return [*found, f"Missing: {'; '.join(missing(table)) or 'nothing, the grid is complete'}."]


def missing(table: Table) -> list[str]:
    """One line for each cell that has fewer runs than planned."""
    names = labels(table)
    done = (table.runs["status"] == "finished").groupby([table.runs["place"], table.runs["arm"]], sort=False)
    counts = done.agg(["sum", "size"]).itertuples()
    return [f"{names[place]}, {arm}: {n} of {planned} runs" for (place, arm), n, planned in counts if n < planned]


def _teacher_notes(table: Table, done: pd.DataFrame) -> list[str]:
    """That runs share a teacher, and how often it changes a label."""
    taught = done.dropna(subset="disagreement_pct")
    if taught.empty:
        return []
    names = labels(table)
    medians = taught.groupby("place", sort=False)["disagreement_pct"].median().items()
    shares = ", ".join(f"{names[place]} {share:.1f} %" for place, share in medians)
    reading = "" if table.name == "figure2" else ": intervals are to be read as over seeds given that teacher"
    return [
        "Runs on a teacher's labels share the teacher of their task (Baseline, seed 0; if its weights are missing, "
        f"trained anew) and the same augmented texts, so they are correlated{reading}. The teacher gives another class "
        f"than to the original (STS-B: a score more than 0.5 away) to these shares of the variants: {shares}."
        f"{_several_teachers(taught, names)}"
    ]


def _several_teachers(taught: pd.DataFrame, names: dict[str, str]) -> str:
    """Which seeds had which teacher, for tasks whose teacher was trained more than once; empty if none was.

    Records from before the digest of its weights tell a teacher by how often it changes a label.
    """
    found = []
    texts = ["place", "num_augmented", "mask_ratio", "fill", "pair_mode"]
    for (place, *_), group in taught.groupby(texts, sort=False):
        digest = group["teacher_weights"].astype(object)
        # An old record is of the teacher that changes as many labels, if a later one names it.
        digest = digest.combine_first(digest.groupby(group["disagreement_pct"]).transform("first"))
        teachers = digest.combine_first(group["disagreement_pct"].astype(str))
        had = []
        for _, runs in group.groupby(teachers, sort=False):
            seeds = sorted(set(runs["seed"]))
            word = "seeds" if len(seeds) > 1 else "seed"
            had.append(f"{word} {', '.join(map(str, seeds))}: {runs['disagreement_pct'].median():.3f} %")
        if len(had) > 1:
            found.append(f"{names[place]} had {len(had)} ({'; '.join(had)})")
    told = ", ".join(dict.fromkeys(found))
    return f" A teacher that was trained again, as on another machine, is another one: {told}." if found else ""


def _dataset_names(table: Table) -> dict[str, str]:
    names, places = labels(table), table.runs.drop_duplicates("dataset")
    return {
        dataset: names[place].split(", ")[0] for dataset, place in zip(places["dataset"], places["place"], strict=True)
    }


def _sizes(table: Table, done: pd.DataFrame) -> str:
    """Data set sizes and epochs; data sets with the same stand together."""
    names, groups = _dataset_names(table), {}
    for dataset, run in done.drop_duplicates("dataset").set_index("dataset").iterrows():
        train, available = int(run["num_train"]), int(run["num_available"])
        of = f" of {available:,}" if train < available else ""
        examples = f"{int(run['num_eval']):,} {table.spec.kind.examples}"
        groups.setdefault(f"{train:,}{of} training and {examples}, {run['epochs']} epochs", []).append(names[dataset])
    return "; ".join(f"{', '.join(of)}: {sizes}" for sizes, of in groups.items())


def _encoders(done: pd.DataFrame) -> str:
    # The head's size differs from task to task.
    sizes = done.groupby("model", sort=False)["num_parameters"].min()
    other = {model: "" if model == PAPER_TEXT_MODEL else f", not {PAPER_TEXT_MODEL}" for model in sizes.index}
    return "Encoder: " + "; ".join(
        f"{model} ({size / 1e6:.1f}M parameters){other[model]}" for model, size in sizes.items()
    )


def _where_trained(done: pd.DataFrame) -> str:
    """Every device of the runs: `Trained on AMD EPYC (1 thread), Intel Xeon (1 or 2 threads)`."""
    parts = []
    for name, group in done.groupby("device"):
        threads = sorted(set(group["threads"].astype(int)) - {0})
        counts = " or ".join(map(str, threads))
        parts.append(name + (f" ({counts} thread{'s' if threads != [1] else ''})" if threads else ""))
    return f"Trained on {', '.join(parts)}"


def _dropout_notes(done: pd.DataFrame) -> list[str]:
    chosen = done[done["hidden_dropout"] == CHOSEN_DROPOUT]
    if chosen.empty:
        return []
    picked = ", ".join(f"{value} in {count}" for value, count in chosen["dropout"].value_counts(sort=False).items())
    values = ", ".join(f"{value:g}" for value in DROPOUT_CANDIDATES)
    return [
        f"Hidden and attention dropout were chosen from {{{values}}} each by the dev score, for every method and task "
        f"on a seed of its own, which makes dev levels a little too good. Of the {len(chosen)} runs: {picked}."
    ]


def _sampling_notes(table: Table, done: pd.DataFrame) -> list[str]:
    """The error that the finite evaluation set alone gives a level."""
    names = labels(table, columns=True)
    of_place = done.drop_duplicates("place").set_index("place")[["num_eval", "metric"]]
    errors = {}
    for place, means in cells(table).dropna(subset="mean").groupby("place", sort=False)["mean"]:
        if place != AVERAGE:
            of = of_place.loc[place.removesuffix("_mm")]
            errors[names[place]] = max(sampling_error(mean, *of) for mean in means)
    if not errors:
        return []
    told = ", ".join(f"{name} {error:.1f}" for name, error in errors.items() if error == error)
    untold = ", ".join(name for name, error in errors.items() if error != error)
    return [
        "The finite evaluation set alone gives a level a standard error; methods share it, so a contrast has less."
        + (f" In points, at most: {told}." if told else "")
        + (f" Not known for {untold}: a Matthews correlation alone does not tell it." if untold else "")
    ]


def _run_notes(table: Table, done: pd.DataFrame) -> list[str]:
    """What is to be said of single runs: small samples of images, failures, uncommitted code, float32."""
    found = []
    sampled = done[done["sampled"].eq(True)] if table.spec.kind.arms_across else done.iloc[:0]
    for dataset, group in sampled.groupby("dataset", sort=False):
        sizes = group.iloc[0]
        found.append(
            f"{_dataset_names(table)[dataset]} is here a sample of {int(sizes['num_available'])} training and "
            f"{int(sizes['num_eval'])} validation images: these figures show that the pipeline runs; they are no "
            "evidence about the methods."
        )
    if (unreadable := done["num_unreadable"].max()) > 0:
        found.append(f"Up to {int(unreadable)} images per run could not be decoded and were left out.")
    failed = table.runs.loc[table.runs["status"] == "failed", "run_id"]
    found += [f"Failed and left out: {', '.join(failed)}."] if len(failed) else []
    if done["dirty"].isin([True]).any():
        found.append("Some runs were made by code with uncommitted changes.")
    counts = done["trained_in"].value_counts(sort=False)
    if len(counts) > 1:
        told = ", ".join(f"{precision} {count}" for precision, count in counts.items())
        found.append(f"The runs differ in the precision of their training: {told}.")
    resumed = done[done["trained_in"].str.contains("then", na=False)] if len(counts) else done.iloc[:0]
    if len(resumed):
        found.append(f"Resumed in another precision than they began with: {', '.join(resumed['run_id'])}.")
    return found + ([_float32_note(table)] if len(table.checks) else [])


def _float32_note(table: Table) -> str:
    """Each run that was trained in float32 too, beside its cell."""
    checks = finished(table.checks)
    if checks.empty:
        return f"Float32 beside the default precision: none of {len(table.checks)} runs yet."
    names = labels(table)
    levels = cells(table).set_index(["place", "arm"])[["mean", "sd", "n"]]
    lines = []
    for place, arm, score in checks[["place", "arm", "score"]].itertuples(index=False):
        beside = level(*levels.loc[(place, arm)])
        lines.append(f"{names[place]}, {arm} {score:.2f} (default: {'no runs yet' if beside == '-' else beside})")
    seed = checks["seed"].iloc[0]
    count = f"{len(checks)} of {len(table.checks)} runs"
    return f"Float32 beside the default precision, seed {seed}, {count}: {'; '.join(lines)}."
