"""Runs on a Ray cluster of this machine of which a node is lost."""

import contextlib
import time
from pathlib import Path

import pytest
from test_local import TINY

from mmel.study.sweep import Outcome

pytest.importorskip("ray", reason="ray is not installed: pip install mmel[ray]")

HOPELESS = TINY.replace(lr=1e30)
ENDLESS = TINY.replace(epochs=100_000)


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
    monkeypatch.setenv("MMEL_DEVICE", "cpu")
    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    taken, release = tmp_path / "taken", tmp_path / "release"
    try:
        with (
            contextlib.suppress(KeyboardInterrupt),
            RayExecutor(store, address=cluster.address, notebook=False) as executor,
        ):
            # What fails for a reason of its own is tried once.
            assert executor.submit(HOPELESS, "table1").result().outcome is Outcome.FAILED
            assert store.read(HOPELESS).result["status"] == "failed"
            ray.remote(keep_head_busy).remote(taken, release)
            wait_for(taken.exists)
            other = cluster.add_node(**node)
            endless = executor.submit(ENDLESS, "table1")
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


@pytest.mark.parametrize(("left_seconds", "outcome"), [(-1, Outcome.LEFT), (600, Outcome.TRAINED)])
def test_a_task_begins_no_run_after_the_budget(store, monkeypatch, left_seconds, outcome):
    from mmel.study.sweep.ray import train_as_task

    monkeypatch.setenv("MMEL_DEVICE", "cpu")
    monkeypatch.setenv("MMEL_STOP_AT", str(time.time() + left_seconds))
    # Called as a function: no cluster is needed.
    assert train_as_task(TINY, "table1", Path.cwd(), store.root, False).outcome is outcome
    assert (store.read(TINY) is not None) is (outcome is Outcome.TRAINED)
