from concurrent.futures import Future

import pytest
from pretend import record_run

from mmel.study.records import Store
from mmel.study.sweep import Ended, Outcome
from mmel.study.sweep.driver import Sweep
from mmel.study.sweep.local import Executor
from mmel.study.sweep.plan import PlannedRun


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def write(store):
    """Writes a record as training does: `write(config, status="failed", device={...}, ...)`."""

    def write_record(config, *, seconds=10.0, status="finished", device=None, error="loss is nan", **header):
        failure = {"error": error} if status == "failed" else {}
        record_run(
            store,
            config,
            header={"device": device or {"type": "cpu", "name": "A"}, **header},
            epoch={"train_seconds": seconds, "eval_seconds": seconds / 10},
            **{"status": status, "train_seconds": seconds, "wall_seconds": seconds, **failure},
        )

    return write_record


class Answers(Executor):
    """Answers at once what became of a run; None stands for a run that was trained."""

    def __init__(self, store, write, answer):
        self.begun = []
        self._store, self._write, self._answer = store, write, answer

    def submit(self, run):
        self.begun.append(run.config)
        ended = self._answer(run.config) or Ended(Outcome.TRAINED)
        if ended.outcome is Outcome.TRAINED and self._store.read(run.config) is None:
            self._write(run.config)
        future = Future()
        future.set_result(ended)
        return future


@pytest.fixture
def swept(store, write):
    """Sweeps with answers instead of training: run -> what became of it, the runs that were begun, the lines."""

    def sweep(runs, answer=lambda config: None, *, predicted=None, **options):
        executor, lines = Answers(store, write, answer), []

        def replan():
            return [PlannedRun(config, "table1", _state(store.read(config)), predicted) for config in runs]

        ended = Sweep(replan, store, executor, report=lines.append, **options).run()
        return {run.config: what for run, what in ended}, executor.begun, lines

    return sweep


def _state(record):
    return "missing" if record is None else "recorded" if record.finished else "failed"
