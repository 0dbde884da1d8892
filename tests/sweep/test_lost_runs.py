"""Runs whose process dies, and runs that another sweep holds."""

import multiprocessing
import threading
import time

import pytest
from pretend import record_run

import mmel.sweep.driver
from mmel import RunConfig
from mmel.records import Store
from mmel.sweep import CLAIMED, LOST
from mmel.sweep.driver import ATTEMPTS, _Sweep, _Training, sweep
from mmel.sweep.plan import PlannedRun
from mmel.sweep.workers import local_workers

RUNS = [RunConfig(profile="mini", dataset="digits", augment="crop", seed=seed) for seed in range(3)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(mmel.sweep.driver, "PAUSE_SECONDS", 0.02)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def train_as(answer, store, monkeypatch, runs=RUNS):
    """Sweep with `answer(config, attempt)` in place of training: what a worker says, None after a record is written."""
    begun = []

    def train(run, root, *_):
        begun.append(run.config)
        error = answer(run.config, begun.count(run.config))
        if error is None and store.read(run.config) is None:
            record_run(store, run.config)
        return error

    monkeypatch.setattr("mmel.sweep.workers._train", train)
    planned = [PlannedRun(config, "table1", "missing", None) for config in runs]
    return sweep(lambda: planned, store, notebook=False, report=lambda line: None), begun


def test_a_lost_run_is_begun_again_after_the_others(store, monkeypatch):
    answer = {(RUNS[0], 1): LOST}
    outcome, begun = train_as(lambda config, attempt: answer.get((config, attempt)), store, monkeypatch)
    assert {run.config for run in outcome.trained} == set(RUNS)
    assert begun == [*RUNS, RUNS[0]]


def test_time_that_a_resumed_run_was_trained_before_is_not_of_this_sweep(store, monkeypatch):
    def answer(config, attempt):
        record_run(store, config, wall_seconds=1000.0)

    outcome, _ = train_as(answer, store, monkeypatch, RUNS[:1])
    assert 0 < outcome.train_seconds <= outcome.wall_seconds < 1000


def test_time_in_training_counts_from_the_start_not_from_when_it_was_seen(store):
    planned = PlannedRun(RUNS[0], "table1", "missing", None)
    state = _Sweep(lambda: [planned], store, float("inf"), False, lambda line: None)
    record_run(store, RUNS[0], wall_seconds=9.0)
    now = time.perf_counter()
    state._settle(_Training(planned, worker=None, started=now - 10, where="a process", begun=now - 2), None)
    assert state.outcome.train_seconds == 9.0


def test_a_run_that_kills_each_process_is_given_up(store, monkeypatch):
    outcome, begun = train_as(lambda config, attempt: LOST if config == RUNS[1] else None, store, monkeypatch)
    assert [(run.config, error) for run, error in outcome.failed] == [(RUNS[1], LOST)]
    assert begun.count(RUNS[1]) == ATTEMPTS
    # Nothing is recorded of it: the next sweep tries once more.
    assert store.read(RUNS[1]) is None
    assert len(outcome.trained) == 2


@pytest.mark.parametrize("result", [{"status": "finished"}, {"status": "failed", "error": "loss is nan"}])
def test_a_run_that_another_sweep_trains_is_its_and_not_trained_twice(store, monkeypatch, result):
    def answer(config, attempt):
        if config != RUNS[0]:
            return None
        record_run(store, config, **result)
        return CLAIMED

    outcome, begun = train_as(answer, store, monkeypatch)
    assert begun == RUNS
    assert len(outcome.trained) == 2
    told = outcome.recorded if result["status"] == "finished" else [run for run, _ in outcome.failed]
    assert [run.config for run in told] == [RUNS[0]]


def test_a_claim_that_is_given_up_is_taken_over(store):
    tiny = RUNS[0].replace(model="resnet8", train_size=64, batch_size=32, epochs=1, decay_epochs=())
    begun, release = threading.Event(), threading.Event()

    def hold():
        with store.claim(tiny):
            begun.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(60)
    assert "process" in store.holder(tiny)
    seen = []

    def status(done, total, text):
        seen.append((done, total, text))
        if len(seen) == 5:
            release.set()

    outcome = sweep(
        lambda: [PlannedRun(tiny, "table1", "missing", None)],
        store,
        notebook=False,
        device="cpu",
        report=lambda line: None,
        status=status,
    )
    holder.join(60)
    assert [run.config for run in outcome.trained] == [tiny]
    assert seen[0][:2] == (0, 1)


def test_a_killed_kernel_counts_as_lost(store, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    endless = RUNS[0].replace(model="resnet8", train_size=64, batch_size=32, epochs=100_000)
    options = {"notebook": True, "data_root": None, "device": "cpu", "stop_at": None}
    with local_workers(1, store, **options) as (worker,):
        future = worker.submit(PlannedRun(endless, "table1", "missing", None))
        while not store.partial_path(endless).exists():
            assert not future.done(), future.result()
            time.sleep(0.05)
        worker._kernel.kill()
        assert future.result(60) == LOST
    assert not multiprocessing.active_children()


# Runs that fail for a reason which is not the training's.


@pytest.mark.parametrize(
    ("pack", "notebook"), [(1, False), (2, False), (2, True)], ids=["in this process", "side by side", "papermill"]
)
def test_whatever_a_run_raises_is_its_failure_alone(store, tmp_path, monkeypatch, pack, notebook):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # A folder that holds no model.
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(tmp_path / "empty-bert"))
    (tmp_path / "empty-bert").mkdir()
    tiny = RUNS[0].replace(model="resnet8", train_size=64, batch_size=32, epochs=1, decay_epochs=())
    modelless = RunConfig(dataset="grammar_cola", model="empty-bert", method="baseline", num_augmented=1)
    senseless = tiny.replace(evals_per_epoch=100)
    outcome = sweep(
        lambda: [PlannedRun(config, "table1", "missing", None) for config in (modelless, senseless, tiny)],
        store,
        pack=pack,
        notebook=notebook,
        device="cpu",
        report=lambda line: None,
    )
    assert [run.config for run in outcome.trained] == [tiny]
    reasons = {run.config: reason for run, reason in outcome.failed}
    assert reasons[modelless].startswith("ModelError: ")
    assert reasons[senseless].startswith("ValueError: evals_per_epoch must be at most the 2 steps of an epoch, got 100")
    # They say nothing of the runs, which the next sweep tries again.
    assert store.read(modelless) is store.read(senseless) is None
    assert not multiprocessing.active_children()
