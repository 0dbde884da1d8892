"""Caption and notes of a table."""

from collections.abc import Iterator

import pandas as pd

from mmel.study.config import ImageRun, TextRun
from mmel.study.datasets import DATASETS
from mmel.study.needs import DROPOUT_CANDIDATES
from mmel.study.report.claims import claims_of
from mmel.study.report.frames import RecordedTable, cells
from mmel.study.report.runs import finished
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
    done, names = finished(table.runs), labels(table)
    start = f"{table.spec.title} ({table.spec.about}), profile {table.profile}"
    if done.empty:
        return f"{start}: no runs recorded yet."
    # Data sets of the same sizes stand together.
    alike: dict[str, list[str]] = {}
    for run in done.drop_duplicates("dataset").to_dict("records"):
        of = f" of {run['num_available']:,.0f}" if run["num_train"] < run["num_available"] else ""
        examples = f"{run['num_train']:,.0f}{of} training and {run['num_eval']:,.0f} {table.layout.examples}"
        alike.setdefault(f"{examples}, {run['epochs']} epochs", []).append(names[run["place"]].split(", ")[0])
    sizes = "; ".join(f"{', '.join(data)}: {said}" for said, data in alike.items())
    views, usual = sorted(set(done["num_augmented"]) - {1}), (ImageRun if table.spec.kind == "images" else TextRun)
    if views and "num_augmented" not in table.spec.settings and views != [usual.num_augmented]:
        sizes += f". K = {', '.join(map(str, views))} (the paper's {usual.num_augmented})"
    encoders = []
    if not table.layout.arms_across:
        # The head's size differs from task to task.
        for model, size in done.groupby("model", sort=False)["num_parameters"].min().items():
            other = "" if model == TEXT_MODELS["paper"] else f", not {TEXT_MODELS['paper']}"
            other += ", and not on the hub" if model == TEXT_MODELS["reduced"] else ""
            encoders.append(f"{model} ({size / 1e6:.1f}M parameters){other}")
    devices = []
    for name, threads in done.groupby("device")["threads"].unique().items():
        counts = sorted(int(count) for count in threads if count)
        unit = "thread" if counts == [1] else "threads"
        devices.append(f"{name} ({' or '.join(map(str, counts))} {unit})" if counts else name)
    encoder = f" Encoder: {'; '.join(encoders)}." if encoders else ""
    return f"{start}: {table.spec.shows}. {sizes}.{encoder} Trained on {', '.join(devices)}."


def notes(table: RecordedTable) -> list[str]:
    """The limits of a table, the gravest first, and at the end the runs that are missing."""
    done, texts, found = finished(table.runs), not table.layout.arms_across, []
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
    found += [*_run_notes(table, done), *_float32_notes(table)]
    return [*found, f"Missing: {'; '.join(missing(table)) or 'nothing, the grid is complete'}."]


def missing(table: RecordedTable) -> list[str]:
    """One line for each cell that has fewer runs than planned."""
    names = labels(table)
    done = (table.runs["status"] == "finished").groupby([table.runs["place"], table.runs["arm"]], sort=False)
    counts = done.agg(["sum", "size"]).itertuples()
    return [f"{names[place]}, {arm}: {n} of {planned} runs" for (place, arm), n, planned in counts if n < planned]


def _dropout_notes(done: pd.DataFrame) -> Iterator[str]:
    chosen = done[done["hidden_dropout"].isna()]
    if chosen.empty:
        return
    values = ", ".join(f"{value:g}" for value in DROPOUT_CANDIDATES)
    yield (
        f"Hidden and attention dropout were chosen from {{{values}}} each by the dev score, for every method and task "
        f"on a seed of its own, which makes dev levels a little too good. Of the {len(chosen)} runs: "
        f"{_counts(chosen['dropout'], ' in ')}."
    )


def _counts(values: pd.Series, joiner: str = " ") -> str:
    """`bf16 3, fp32 1`."""
    return ", ".join(f"{value}{joiner}{count}" for value, count in values.value_counts(sort=False).items())


def _teacher_notes(table: RecordedTable, done: pd.DataFrame) -> Iterator[str]:
    """That runs share a teacher, and how often it changes a label."""
    taught, names = done.dropna(subset="disagreement_pct").groupby("place", sort=False), labels(table)
    if not len(taught):
        return
    shares = ", ".join(f"{names[place]} {share:.1f} %" for place, share in taught["disagreement_pct"].median().items())
    reading = ": intervals are to be read as over seeds given that teacher" if claims_of(table.spec.name) else ""
    yield (
        "Runs on a teacher's labels share the teacher of their task (Baseline, seed 0; if its weights are missing, "
        f"trained anew) and the same augmented texts, so they are correlated{reading}. The teacher gives another class "
        f"than to the original (STS-B: a score more than 0.5 away) to these shares of the variants: {shares}."
    )
    teachers = taught["teacher_weights"].nunique().sort_index().items()
    if told := [f"{names[place]} had {count}" for place, count in teachers if count > 1]:
        yield f"A teacher that was trained again, as on another machine, is another one: {', '.join(told)}."


def _run_notes(table: RecordedTable, done: pd.DataFrame) -> Iterator[str]:
    """Notes on single runs: small samples of images, failures, uncommitted code, precisions."""
    if table.layout.arms_across:
        for run in done[done["sampled"].eq(True)].drop_duplicates("dataset").to_dict("records"):
            yield (
                f"{DATASETS[run['dataset']].label} is here a sample of {run['num_available']:.0f} training and "
                f"{run['num_eval']:.0f} validation images: these figures show that the pipeline runs; they are no "
                "evidence about the methods."
            )
    if (unreadable := done["num_unreadable"].max()) > 0:
        yield f"Up to {int(unreadable)} images per run could not be decoded and were left out."
    if len(failed := table.runs.loc[table.runs["status"] == "failed", "run_id"]):
        yield f"Failed and left out: {', '.join(failed)}."
    if done["dirty"].isin([True]).any():
        yield "Some runs were made by code with uncommitted changes."
    if done["trained_in"].nunique() > 1:
        yield f"The runs differ in the precision of their training: {_counts(done['trained_in'])}."
    if len(resumed := done.loc[done["trained_in"].astype(str).str.contains("then"), "run_id"]):
        yield f"Resumed in another precision than they began with: {', '.join(resumed)}."


def _float32_notes(table: RecordedTable) -> Iterator[str]:
    """Each run that was trained in float32 too, beside its cell."""
    if table.checks.empty:
        return
    checks, names = finished(table.checks), labels(table)
    if checks.empty:
        yield f"Float32 beside the default precision: none of {len(table.checks)} runs yet."
        return
    levels, lines = cells(table).set_index(["place", "arm"])[["mean", "sd", "n"]], []
    for place, arm, score in checks[["place", "arm", "score"]].itertuples(index=False):
        beside = level(*levels.loc[(place, arm)])
        lines.append(f"{names[place]}, {arm} {score:.2f} (default: {'no runs yet' if beside == '-' else beside})")
    of = f"seed {checks['seed'].iloc[0]}, {len(checks)} of {len(table.checks)} runs"
    yield f"Float32 beside the default precision, {of}: {'; '.join(lines)}."
