"""Several runs at once, what a killed one leaves, and budgets that stop a run under way."""

import multiprocessing
import time

import pytest

from mmel import RunConfig, grids
from mmel.records import Store
from mmel.sweep import BUDGET_SPENT
from mmel.sweep.driver import _next, _Training, sweep
from mmel.sweep.plan import PlannedRun
from mmel.sweep.workers import start_workers
from mmel.train import BudgetError, train

TINY = RunConfig(
    profile="mini", dataset="digits", model="resnet8", augment="crop", num_augmented=2, train_size=64, batch_size=32
).replace(epochs=3, decay_epochs=(), precision="fp32")
# The fields of a line that tell of results, not of the clock.
CLOCK = {"kind", "train_seconds", "eval_seconds", "images_per_second"}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def make_store(folder):
    folder.mkdir()
    return Store(folder)


def planned(config, table="table1"):
    return PlannedRun(config, table, "missing", None)


def results(store, config):
    return [{name: line[name] for name in line.keys() - CLOCK} for line in store.read(config).epochs]


def test_runs_side_by_side_end_as_runs_one_by_one(store, tmp_path):
    runs = [TINY.replace(seed=seed) for seed in range(4)]
    outcome = sweep(lambda: list(map(planned, runs)), store, pack=2, notebook=False, report=lambda line: None)
    assert {run.config for run in outcome.trained} == set(runs), outcome.failed
    alone = make_store(tmp_path / "alone")
    for run in runs:
        for _ in train(run, alone, device="cpu"):
            pass
        for packed, single in zip(results(store, run), results(alone, run), strict=True):
            assert packed == pytest.approx(single, rel=1e-3)
    assert results(store, runs[0]) != results(store, runs[1])


def test_a_run_waits_for_the_runs_it_needs():
    student = next(run for run in grids.table3("mini") if run.method == "mmel_h")
    teacher = grids.teacher_of(student)
    other = grids.table1("mini")[0]
    assert _next([student, teacher], []) == teacher
    assert _next([student], [_Training(planned(teacher), None, 0.0)]) is None
    assert _next([student, other], [_Training(planned(teacher), None, 0.0)]) == other
    assert _next([student], []) == student
    chooser = next(run for run in grids.table1("paper") if run.method == "mmel_s" and run.seed == 0)
    assert _next([chooser, *grids.candidates(chooser)], []) == grids.candidates(chooser)[0]


def test_a_process_that_dies_fails_its_run_alone(store):
    worker, spare = start_workers(2, store, notebook=False)
    try:
        endless = TINY.replace(epochs=100_000)
        future = worker.submit(planned(endless))
        while not store.partial_path(endless).exists():
            time.sleep(0.05)
        for process in multiprocessing.active_children():
            process.kill()
        assert future.result(60) == "the process that trained it died"
        assert worker.submit(planned(TINY)).result(120) is None
        assert store.read(TINY).finished
        assert store.read(endless) is None
    finally:
        worker.close(abandon=True)
        spare.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("pack", [0, -1])
def test_packs_of_nothing_are_refused(store, pack):
    with pytest.raises(ValueError, match=f"pack must be at least 1, got {pack}"):
        sweep(list, store, pack=pack, notebook=False)


# Budgets.


def test_a_run_stops_at_the_checkpoint_before_the_budget_ends_and_goes_on_to_the_same_result(store, tmp_path):
    whole = make_store(tmp_path / "whole")
    expected = list(train(TINY, whole, device="cpu"))
    lines = train(TINY, store, device="cpu", stop_at=time.time())
    assert next(lines)["epoch"] == 1
    with pytest.raises(BudgetError, match="goes on from epoch 1"):
        next(lines)
    assert store.read(TINY) is None
    assert store.checkpoint_path(TINY).exists()
    assert len(list(train(TINY, store, device="cpu", stop_at=time.time() + 3600))) == len(expected)
    assert results(store, TINY) == results(whole, TINY)


@pytest.mark.parametrize("notebook", [False, True])
def test_a_sweep_lists_the_run_that_its_budget_stopped(store, notebook, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (worker,) = start_workers(1, store, notebook=notebook, stop_at=time.time())
    try:
        assert worker.submit(planned(TINY)).result(120) == BUDGET_SPENT
    finally:
        worker.close()
    assert store.checkpoint_path(TINY).exists()
    # What is predicted to take its first epoch beyond the budget is not begun at all.
    runs = [PlannedRun(TINY.replace(seed=1), "table1", "missing", 1e6)]
    outcome = sweep(lambda: runs, store, notebook=False, budget_minutes=1, report=lambda line: None)
    assert outcome.left == runs
    lines = []
    outcome = sweep(lambda: [planned(TINY)], store, notebook=False, budget_minutes=1e-6, report=lines.append)
    assert (outcome.left, outcome.failed) == ([planned(TINY)], [])
    outcome = sweep(lambda: [planned(TINY)], store, notebook=False, budget_minutes=60, report=lines.append)
    assert outcome.trained == [planned(TINY)]
    assert "accuracy" in lines[-1]
