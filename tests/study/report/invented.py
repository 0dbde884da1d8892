"""Records with invented numbers, for tests alone; nothing here was measured.

`python tests/study/report/invented.py` writes tests/records/golden anew: the tables that the frozen runs make. Do that
only when a change of a table is meant, and read the difference before committing it.
"""

from pathlib import Path

from pretend import record_run

from mmel.study.needs import teacher_of
from mmel.study.records import Store, write_atomically
from mmel.study.report import answers, contrasts, frames, tables
from mmel.study.report.hyperparameters import table7
from mmel.study.tables import TABLES

FROZEN = Path(__file__).resolve().parents[2] / "records"
GOLDEN = FROZEN / "golden"
DEVICE = {"type": "cuda", "name": "test device"}


def write_run(store, run, score=0.0, *, history=None, each=(), train_seconds=10.0, error=None, result=(), **header):
    """Record a run as training on a GPU would have; with `error` it failed.

    Args:
        score: after the last evaluation, in percent.
        history: the score at every evaluation, by default two whatever the configuration says.
        each: further fields of every evaluation; a list has one for each of them.
        result: further fields of the last line.
        header: fields of the first line.
    """
    metric = run.data.metric
    history = [float(value) for value in ([score - 5, score] if history is None else history)]
    lines = []
    for place, value in enumerate(history):
        more = {name: found[place] if isinstance(found, list) else found for name, found in dict(each).items()}
        lines.append({"epoch": (place + 1) / run.evals_per_epoch, metric: value} | more)
    scores = {name: value for name, value in lines[-1].items() if name.endswith("_pct")}
    finished = {**scores, f"best_{metric}": max(history), **dict(result)}
    ended = {"status": "failed", "error": error} if error else finished
    taught = {"teacher_disagreement_pct": 12.5} if teacher_of(run) else {}
    seconds = {"train_seconds": train_seconds, "wall_seconds": train_seconds + 1}
    record_run(store, run, header={"device": DEVICE, **taught, **header}, epochs=lines, **ended, **seconds)


def mismatched(run, score):
    """The score on MNLI's second dev set, as further fields of a run's evaluations."""
    return {"accuracy_mm_pct": score} if run.data.task == "mnli" else {}


def reported(name, profile, **fields):
    """The runs that a table shows, or those with these fields."""
    runs = TABLES[name].reported(profile)
    return [run for run in runs if all(getattr(run, field) == value for field, value in fields.items())]


def row(frame, **wanted):
    """The one row of a frame with some values."""
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1, wanted
    return frame.iloc[0]


def golden_frames(store):
    """File name -> CSV of every table that the frozen runs make."""
    claims = contrasts.answers(store, "mini")
    found = {"table7.csv": table7("mini"), "claims.csv": answers.every_claim(claims, "mini")}
    found["weights.csv"] = contrasts.weights(store, "mini")
    makers = {"levels": tables.levels, "time": tables.times, "pooled": answers.over_places}
    for name in TABLES:
        of = {"levels": tables.curves} if name == "figure2" else makers
        table = frames.load(name, store, "mini")
        found |= {f"{name}_{kind}.csv": make(table) for kind, make in of.items()}
        found[f"{name}_contrasts.csv"] = answers.every_contrast(table)
    return {name: frame.to_csv(index=False) for name, frame in found.items()}


if __name__ == "__main__":
    for name, text in golden_frames(Store(FROZEN)).items():
        write_atomically(GOLDEN / name, text)
