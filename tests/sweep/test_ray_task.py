"""What a Ray task does, called as a function: no cluster is needed to see whether it begins a run."""

import time
from pathlib import Path

import pytest
import torch
from pretend import record_run

from mmel import RunConfig
from mmel.records import Store
from mmel.sweep import BUDGET_SPENT
from mmel.sweep.plan import PlannedRun
from mmel.train.machine import describe_device

pytest.importorskip("ray", reason="ray is not installed: pip install mmel[ray]")
pytestmark = pytest.mark.usefixtures("one_thread")

TINY = RunConfig(
    profile="mini", dataset="digits", model="resnet8", augment="crop", num_augmented=2, train_size=64, batch_size=32
).replace(epochs=3, decay_epochs=(), precision="fp32")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def task(store, budget_seconds):
    """What becomes of a run whose task begins with so much of the budget left."""
    from mmel.sweep.ray import _train

    run = PlannedRun(TINY.replace(seed=1), "table1", "missing", None)
    stop_at = time.time() + budget_seconds
    return _train(run, str(Path.cwd()), str(store.root), False, None, "cpu", stop_at), store.read(run.config)


def record(store, seconds, device):
    record_run(store, TINY, header={"device": {"name": device}}, train_seconds=seconds)


def test_a_task_begins_no_run_whose_first_epoch_would_outlast_the_budget(store):
    # The driver does not know what a run takes on the task's device; the task does: here 1000 s an epoch.
    record(store, 3000.0, describe_device(torch.device("cpu"))["name"])
    assert task(store, 990.0) == (BUDGET_SPENT, None)
    assert not list(store.root.rglob("*.partial"))


def test_a_task_begins_what_is_predicted_to_fit(store):
    record(store, 3000.0, describe_device(torch.device("cpu"))["name"])
    error, result = task(store, 2000.0)
    assert error is None
    assert result.finished


def test_a_task_knows_nothing_from_another_device_and_begins(store):
    record(store, 3000.0, "another device")
    error, result = task(store, 990.0)
    assert error is None
    assert result.finished


def test_a_task_that_waited_too_long_begins_nothing(store):
    assert task(store, -1.0) == (BUDGET_SPENT, None)
