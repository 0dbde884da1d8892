"""Runs that were never trained. Every test can import this: pytest puts the folder of `conftest.py` on the path."""

from mmel.study.records import RunWriter


def record_run(store, config, score=50.0, *, header=(), epoch=(), **result):
    """Write the record of a run in the form that training gives it.

    Args:
        header: fields of the first line.
        epoch: fields of the only evaluation.
        result: fields of the last line.
    """
    header = {
        "kind": "run",
        "run_id": config.run_id,
        "config": config.to_dict(),
        **({"hidden_dropout": 0.1, "attention_dropout": 0.1} if config.is_text else {}),
        "metric": "accuracy_pct",
        "sizes": {"train": 500, "train_available": 500, "eval": 360},
        "num_parameters": 1000,
        "device": {"type": "cpu", "name": "a device", "threads": 1},
        "commit": None,
        "dirty": None,
        "started": "2026-01-01T00:00:00+00:00",
        **dict(header),
    }
    metric = header["metric"]
    line = {"kind": "epoch", "epoch": 1, metric: score, "train_seconds": 0.0, "eval_seconds": 0.0, **dict(epoch)}
    outcome = {"status": "finished", metric: score, f"best_{metric}": score}
    RunWriter(store, config, [header, line]).finish({**outcome, "train_seconds": 0.0, "wall_seconds": 0.0, **result})
