"""Runs on a Ray cluster of this machine of which a node is lost, and the task without a cluster."""

import contextlib
import time
from pathlib import Path

import pytest
import torch

from mmel.study.config import ImageRun
from mmel.study.sweep import Outcome
from mmel.study.sweep.plan import PlannedRun
from mmel.study.train.machine import describe_device
from mmel.study.train.precision import resolve

pytest.importorskip("ray", reason="ray is not installed: pip install mmel[ray]")

TINY = ImageRun(
    profile="mini", dataset="digits", model="resnet8", augment="crop", num_augmented=2, train_size=64, batch_size=32
).replace(epochs=3, decay_epochs=(), precision="fp32")
HOPELESS = TINY.replace(lr=1e30)
ENDLESS = TINY.replace(epochs=100_000)


def planned(config):
    return PlannedRun(config, "table1", "missing", None)


def wait_for(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_lost_node_costs_no_run_and_nothing_outlives_the_sweep(store, tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    from mmel.study.sweep.ray import RayExecutor

    def keep_head_busy(taken, release):
        taken.touch()
        while not release.exists():
            time.sleep(0.05)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    taken, release = tmp_path / "taken", tmp_path / "release"
    try:
        with (
            contextlib.suppress(KeyboardInterrupt),
            RayExecutor(store, address=cluster.address, notebook=False, device="cpu") as executor,
        ):
            # What fails for a reason of its own is tried once.
            assert executor.submit(planned(HOPELESS)).result().outcome is Outcome.FAILED
            assert store.read(HOPELESS).result["status"] == "failed"
            ray.remote(keep_head_busy).remote(taken, release)
            wait_for(taken.exists)
            other = cluster.add_node(**node)
            endless = executor.submit(planned(ENDLESS))
            wait_for(store.checkpoint_path(ENDLESS).exists)
            first = store.holder(ENDLESS)
            cluster.remove_node(other, allow_graceful=False)
            release.touch()
            # Another process resumes it from its checkpoint.
            wait_for(lambda: store.holder(ENDLESS) not in ("", first))
            wait_for(lambda: "resumed_from" in store.partial_path(ENDLESS).read_text().splitlines()[0])
            assert not endless.done()
            # As Ctrl-C does.
            raise KeyboardInterrupt
        wait_for(lambda: not store.holder(ENDLESS))
    finally:
        cluster.shutdown()


# Called as a function: no cluster is needed to see whether a task begins a run.


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("budget_seconds", "recorded_on_this_device", "outcome"),
    [
        (990.0, True, Outcome.LEFT),
        (2000.0, True, Outcome.TRAINED),
        (990.0, False, Outcome.TRAINED),
        (-1.0, False, Outcome.LEFT),
    ],
    ids=["its first epoch does not fit", "it fits", "its time is unknown", "the budget is spent"],
)
def test_a_task_begins_no_run_beyond_the_budget(store, write, budget_seconds, recorded_on_this_device, outcome):
    from mmel.study.sweep.ray import train_as_task

    # The driver does not know how long a run takes on the task's device; the task does: here 1,100 s an epoch.
    cpu = torch.device("cpu")
    here = describe_device(cpu) | {"precision": TINY.precision if TINY.precision != "auto" else resolve("auto", cpu)}
    write(TINY, seconds=3000.0, device=here if recorded_on_this_device else here | {"name": "another"})
    run, stop_at = planned(TINY.replace(seed=1)), time.time() + budget_seconds
    ended = train_as_task(run, str(Path.cwd()), str(store.root), False, None, "cpu", stop_at)
    assert ended.outcome is outcome
    assert (store.read(run.config) is not None) is (outcome is Outcome.TRAINED)
