from concurrent.futures import Future

import pytest
from pretend import record_run

from mmel.study.sweep import Ended, Outcome
from mmel.study.sweep.cost import Speed
from mmel.study.sweep.driver import Sweep

DEVICE = {"type": "cpu", "name": "A"}


@pytest.fixture
def write(store):
    """Writes a record as training does: `write(run, status="failed", device={...}, ...)`; returns it."""

    def write_record(run, *, seconds=10.0, status="finished", device=DEVICE, error="loss is nan", **header):
        failure = {"error": error} if status == "failed" else {}
        record_run(
            store,
            run,
            header={"device": device, **header},
            epoch={"train_seconds": seconds, "eval_seconds": seconds / 10},
            **{"status": status, "train_seconds": seconds, "wall_seconds": seconds, **failure},
        )
        return store.read(run)

    return write_record


@pytest.fixture
def swept(store, write, monkeypatch):
    """Sweeps with answers instead of training: run -> how it ended, and the runs that were begun."""
    monkeypatch.setattr("mmel.study.sweep.driver.PAUSE_SECONDS", 0.01)

    def sweep(runs, answer=lambda run: None, **options):
        begun = []

        def submit(run, table):
            begun.append(run)
            # None stands for a run that was trained.
            ended = answer(run) or Ended(Outcome.TRAINED)
            if ended.outcome is Outcome.TRAINED and store.read(run) is None:
                write(run)
            future = Future()
            future.set_result(ended)
            return future

        speed = options.pop("speed", Speed(DEVICE))
        return Sweep(dict.fromkeys(runs, "table1"), store, submit, speed, **options).run(), begun

    return sweep
