"""Caption and notes of a table."""

from collections.abc import Iterator

import pandas as pd

from mmel.study.datasets import DATASETS
from mmel.study.needs import DROPOUT_CANDIDATES
from mmel.study.report.claims import claims_of
from mmel.study.report.frames import RecordedTable, cells
from mmel.study.report.layout import AVERAGE
from mmel.study.report.runs import finished
from mmel.study.report.statistics import sampling_error
from mmel.study.report.tables import kinds, labels, level
from mmel.study.tables import TEXT_MODELS

_KINDS = {
    "miniature": "A *miniature* is generated from a grammar (`mmel.study.data.grammar`) with a GLUE task's columns, "
    "labels and metric; it is not that task.",
    "subset": "A *subset* is trained on a fixed part of the task's training set; it is not the task.",
    "sample": "A *sample* has splits of other sizes than GLUE's; a score on it is not a score on the task.",
}


def caption(table: RecordedTable) -> str:
    """The subject of a table or Figure 2, its data and encoder, and the devices of the training."""
    done, layout = finished(table.runs), table.layout
    start = f"{table.spec.title} ({table.spec.about}), profile {table.profile}"
    if done.empty:
        return f"{start}: no runs recorded yet."
    encoders = "" if layout.arms_across else f" {_encoders(done)}."
    return f"{start}: {table.spec.shows}. {_sizes(table, done)}.{encoders} {_where_trained(done)}."


def notes(table: RecordedTable) -> list[str]:
    """The limits of a table, the gravest first, and at the end the runs that are missing."""
    done, texts = finished(table.runs), not table.layout.arms_across
    found = []
    if table.profile != "paper":
        found.append(
            f"Profile `{table.profile}` is scaled down: its levels are not the paper's experiment and are not compared "
            "with the paper's levels. Only contrasts stand beside contrasts."
        )
    if texts:
        said = set(kinds(done if len(done) else table.runs).values())
        found += [note for kind, note in _KINDS.items() if kind in said]
    found += table.spec.notes
    if texts:
        found += [*_dropout_notes(done), *_teacher_notes(table, done)]
    found += [*_sampling_notes(table, done), *_run_notes(table, done)]
    return [*found, f"Missing: {'; '.join(missing(table)) or 'nothing, the grid is complete'}."]


def missing(table: RecordedTable) -> list[str]:
    """One line for each cell that has fewer runs than planned."""
    names = labels(table)
    done = (table.runs["status"] == "finished").groupby([table.runs["place"], table.runs["arm"]], sort=False)
    counts = done.agg(["sum", "size"]).itertuples()
    return [f"{names[place]}, {arm}: {n} of {planned} runs" for (place, arm), n, planned in counts if n < planned]


def _teacher_notes(table: RecordedTable, done: pd.DataFrame) -> Iterator[str]:
    """That runs share a teacher, and how often it changes a label."""
    taught = done.dropna(subset="disagreement_pct")
    if taught.empty:
        return
    names = labels(table)
    medians = taught.groupby("place", sort=False)["disagreement_pct"].median().items()
    shares = ", ".join(f"{names[place]} {share:.1f} %" for place, share in medians)
    reading = ": intervals are to be read as over seeds given that teacher" if claims_of(table.spec.name) else ""
    yield (
        "Runs on a teacher's labels share the teacher of their task (Baseline, seed 0; if its weights are missing, "
        f"trained anew) and the same augmented texts, so they are correlated{reading}. The teacher gives another class "
        f"than to the original (STS-B: a score more than 0.5 away) to these shares of the variants: {shares}."
    )
    if len(several := taught.groupby("place")["teacher_weights"].nunique().loc[lambda count: count > 1]):
        counts = ", ".join(f"{names[place]} had {count}" for place, count in several.items())
        yield f"A teacher that was trained again, as on another machine, is another one: {counts}."


def _sizes(table: RecordedTable, done: pd.DataFrame) -> str:
    """Data set sizes and epochs; data sets with the same stand together."""
    names, groups = labels(table), {}
    for _, run in done.drop_duplicates("dataset").iterrows():
        name = names[run["place"]].split(", ")[0]
        train, available = int(run["num_train"]), int(run["num_available"])
        of = f" of {available:,}" if train < available else ""
        examples = f"{int(run['num_eval']):,} {table.layout.examples}"
        groups.setdefault(f"{train:,}{of} training and {examples}, {run['epochs']} epochs", []).append(name)
    return "; ".join(f"{', '.join(of)}: {sizes}" for sizes, of in groups.items())


def _encoders(done: pd.DataFrame) -> str:
    # The head's size differs from task to task.
    sizes = done.groupby("model", sort=False)["num_parameters"].min()
    papers = TEXT_MODELS["paper"]
    parts = [
        f"{model} ({size / 1e6:.1f}M parameters)" + ("" if model == papers else f", not {papers}")
        for model, size in sizes.items()
    ]
    return f"Encoder: {'; '.join(parts)}"


def _where_trained(done: pd.DataFrame) -> str:
    """Every device of the runs: `Trained on AMD EPYC (1 thread), Intel Xeon (1 or 2 threads)`."""
    parts = []
    for name, group in done.groupby("device"):
        threads = sorted(set(group["threads"].astype(int)) - {0})
        counts = " or ".join(map(str, threads))
        parts.append(name + (f" ({counts} thread{'s' if threads != [1] else ''})" if threads else ""))
    return f"Trained on {', '.join(parts)}"


def _dropout_notes(done: pd.DataFrame) -> Iterator[str]:
    chosen = done[done["hidden_dropout"].isna()]
    if chosen.empty:
        return
    picked = ", ".join(f"{value} in {count}" for value, count in chosen["dropout"].value_counts(sort=False).items())
    values = ", ".join(f"{value:g}" for value in DROPOUT_CANDIDATES)
    yield (
        f"Hidden and attention dropout were chosen from {{{values}}} each by the dev score, for every method and task "
        f"on a seed of its own, which makes dev levels a little too good. Of the {len(chosen)} runs: {picked}."
    )


def _sampling_notes(table: RecordedTable, done: pd.DataFrame) -> Iterator[str]:
    """The error that the finite evaluation set alone gives a level."""
    names = labels(table, columns=True)
    of_place = done.drop_duplicates("place").set_index("place")[["num_eval", "metric"]]
    told, untold = [], []
    for place, means in cells(table).dropna(subset="mean").groupby("place", sort=False)["mean"]:
        if place != AVERAGE:
            error = max(sampling_error(mean, *of_place.loc[place.removesuffix("_mm")]) for mean in means)
            (told if error == error else untold).append(f"{names[place]} {error:.1f}".removesuffix(" nan"))
    if told or untold:
        yield (
            "The finite evaluation set alone gives a level a standard error; methods share it, so a contrast has less."
            + (f" In points, at most: {', '.join(told)}." if told else "")
            + (f" Not known for {', '.join(untold)}: a Matthews correlation alone does not tell it." if untold else "")
        )


def _run_notes(table: RecordedTable, done: pd.DataFrame) -> Iterator[str]:
    """Notes on single runs: small samples of images, failures, uncommitted code, precisions."""
    if table.layout.arms_across:
        for dataset, sizes in done[done["sampled"].eq(True)].groupby("dataset", sort=False).first().iterrows():
            yield (
                f"{DATASETS[dataset].label} is here a sample of {int(sizes['num_available'])} training and "
                f"{int(sizes['num_eval'])} validation images: these figures show that the pipeline runs; they are no "
                "evidence about the methods."
            )
    if (unreadable := done["num_unreadable"].max()) > 0:
        yield f"Up to {int(unreadable)} images per run could not be decoded and were left out."
    if len(failed := table.runs.loc[table.runs["status"] == "failed", "run_id"]):
        yield f"Failed and left out: {', '.join(failed)}."
    if done["dirty"].isin([True]).any():
        yield "Some runs were made by code with uncommitted changes."
    counts = done["trained_in"].value_counts(sort=False)
    if len(counts) > 1:
        told = ", ".join(f"{precision} {count}" for precision, count in counts.items())
        yield f"The runs differ in the precision of their training: {told}."
    if len(resumed := done.loc[done["trained_in"].astype(str).str.contains("then"), "run_id"]):
        yield f"Resumed in another precision than they began with: {', '.join(resumed)}."
    if len(table.checks):
        yield _float32_note(table)


def _float32_note(table: RecordedTable) -> str:
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
