"""Records with invented numbers, for tests alone; nothing here was measured.

`python tests/study/report/invented.py` writes tests/records/golden anew: the tables that the frozen runs make. Do that
only when a change of a table is meant, and read the difference before committing it.
"""

from pathlib import Path

from mmel.study.needs import teacher_of
from mmel.study.records import RunWriter, Store, write_atomically
from mmel.study.report import answers, contrasts, frames, tables
from mmel.study.report.hyperparameters import table7
from mmel.study.tables import TABLES, runs_of

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
    scores = [{metric: value} for value in history]
    if mm is not None:
        others = mm if isinstance(mm, list) else [mm] * len(history)
        scores = [both | {"accuracy_mm_pct": other} for both, other in zip(scores, others, strict=True)]
    lines = [
        {
            "kind": "epoch",
            "epoch": number / run.evals_per_epoch,
            "train_loss": 2.5 - number,
            "eval_seconds": 0.1,
            **({} if weight_max is None else {"weight_max": weight_max}),
            **({} if effective_views is None else {"effective_views": effective_views[number - 1]}),
            **both,
        }
        for number, both in enumerate(scores, start=1)
    ]
    costs = {"train_seconds": train_seconds, "wall_seconds": train_seconds + 1}
    outcome = {"status": "finished", **scores[-1], f"best_{metric}": max(history), **dict(result)}
    ended = {"status": "failed", "error": error} if error else outcome
    RunWriter(store, run, [header, *lines]).finish(ended | costs)


def mini_run(model, method, k, seed):
    """The run of the mini grids of Tables 1 and 2 with these fields."""
    wanted = (model, method, k, seed)
    runs = runs_of(["table1", "table2"], "mini")
    return next(run for run in runs if (run.model, run.method, run.num_augmented, run.seed) == wanted)


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
    found = {"table7.csv": table7("mini")}
    for name in TABLES:
        table = frames.load(name, store, "mini")
        found[f"{name}_contrasts.csv"] = answers.every_contrast(table)
        if name == "figure2":
            found[f"{name}_levels.csv"] = tables.curves(table)
            continue
        found[f"{name}_levels.csv"], found[f"{name}_time.csv"] = tables.levels(table), tables.times(table)
        found[f"{name}_pooled.csv"] = answers.over_places(table)
    claims = contrasts.answers(store, "mini")
    found["claims.csv"], found["weights.csv"] = answers.every_claim(claims, "mini"), contrasts.weights(store, "mini")
    return {name: frame.to_csv(index=False) for name, frame in found.items()}


if __name__ == "__main__":
    for name, text in golden_frames(Store(FROZEN)).items():
        write_atomically(GOLDEN / name, text)
