"""Records with invented numbers, for tests alone; nothing here was measured.

`python tests/study/report/invented.py` writes tests/records/golden anew: the tables that the frozen runs make. Do that
only when a change of a table is meant, and read the difference before committing it.
"""

from pathlib import Path

from mmel.study.needs import teacher_of
from mmel.study.records import RunWriter, Store, write_atomically
from mmel.study.report import answers, contrasts, frames, tables
from mmel.study.report.hyperparameters import table7
from mmel.study.tables import TABLES

FROZEN = Path(__file__).resolve().parents[2] / "records"
GOLDEN = FROZEN / "golden"
DEVICE = {"type": "cuda", "name": "test device"}


def write_run(
    store,
    run,
    score=0.0,
    *,
    history=None,
    mm=None,
    train_seconds=10.0,
    weight_max=None,
    effective_views=None,
    error=None,
    result=(),
    **header,
):
    """Record a run as training would have; with `error` it failed.

    Args:
        score: after the last evaluation, in percent.
        history: the score at every evaluation, by default two whatever the configuration says.
        weight_max: mean largest weight at every evaluation.
        effective_views: one for each evaluation.
        mm: of MNLI's mismatched dev set, one for all evaluations or one for each.
        result: further fields of the last line.
        header: fields of the first line.
    """
    metric, sizes = run.data.metric, run.data.sizes
    _, evaluated, *_ = sizes.values()
    header = {
        "kind": "run",
        "run_id": run.run_id,
        "config": run.to_dict(),
        "metric": metric,
        "sizes": {"train": run.train_size or sizes["train"], "train_available": sizes["train"], "eval": evaluated},
        "num_parameters": 1000,
        "device": DEVICE,
        "commit": "0" * 40,
        "dirty": False,
        "started": "2026-01-01T00:00:00+00:00",
        **({"hidden_dropout": 0.1, "attention_dropout": 0.1} if run.is_text else {}),
        **({"teacher_disagreement_pct": 12.5} if teacher_of(run) else {}),
        **header,
    }
    history = [float(value) for value in ([score - 5, score] if history is None else history)]
    lines = []
    for number, value in enumerate(history, start=1):
        line = {"kind": "epoch", "epoch": number / run.evals_per_epoch, "train_loss": 2.5 - number, metric: value}
        others = {"accuracy_mm_pct": mm[number - 1] if isinstance(mm, list) else mm, "weight_max": weight_max}
        others |= {"effective_views": effective_views and effective_views[number - 1]}
        lines.append(line | {"eval_seconds": 0.1} | {name: x for name, x in others.items() if x is not None})
    scores = {name: value for name, value in lines[-1].items() if name.endswith("_pct")}
    outcome = {"status": "finished", **scores, f"best_{metric}": max(history), **dict(result)}
    costs = {"train_seconds": train_seconds, "wall_seconds": train_seconds + 1}
    ended = {"status": "failed", "error": error} if error else outcome
    RunWriter(store, run, [header, *lines]).finish(ended | costs)


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
