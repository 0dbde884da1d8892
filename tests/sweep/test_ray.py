"""Runs on a real Ray cluster of this machine, and what is left when parts of it die."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmel import RunConfig
from mmel.records import Store
from mmel.sweep.driver import sweep
from mmel.sweep.plan import PlannedRun
from mmel.sweep.workers import Cluster

ray = pytest.importorskip("ray", reason="ray is not installed: pip install mmel[ray]")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TINY = RunConfig(
    profile="mini", dataset="digits", model="resnet8", augment="crop", num_augmented=2, train_size=64, batch_size=32
).replace(epochs=3, decay_epochs=(), precision="fp32")


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node with one CPU."""
    from ray.cluster_utils import Cluster as Nodes

    small = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    os.environ["OMP_NUM_THREADS"] = "1"
    # On a busy machine Ray's own processes may miss the 15 seconds that it gives them.
    for attempt in range(3):
        try:
            nodes = Nodes(initialize_head=True, head_node_args=small)
            break
        except Exception:
            if attempt == 2:
                raise
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def planned(configs):
    return [PlannedRun(config, "table1", "missing", None) for config in configs]


def task_processes(config):
    """Processes of this machine in which Ray trains."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(f"ray::{config.run_id}".encode()):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kernels():
    """Jupyter kernels of this machine whose sockets are a sweep's."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(b"/tmp/mmel-") for word in words):
            found.add(path.parent.name)
    return found


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def in_thread(store, runs, address):
    outcomes = []

    def run():
        options = {"cluster": Cluster(address), "notebook": False, "report": lambda line: None}
        outcomes.append(sweep(lambda: planned(runs), store, **options))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcomes


def test_a_killed_worker_and_a_lost_node_cost_no_run(cluster, store):
    ray.init(cluster.address, log_to_driver=False)
    extra = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    runs = [TINY.replace(seed=seed, epochs=40) for seed in range(5)]
    thread, outcomes = in_thread(store, runs, cluster.address)
    wait_for(lambda: store.partial_path(runs[0]).exists() and task_processes(runs[0]))
    for process in task_processes(runs[0]):
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: sum(store.run_path(run).exists() for run in runs) >= 1)
    cluster.remove_node(extra, allow_graceful=False)
    thread.join(240)
    assert [len(outcome.trained) for outcome in outcomes] == [5], outcomes
    for run in runs:
        record = store.read(run)
        assert record.finished
        assert [line["epoch"] for line in record.epochs] == list(range(1, 41))
    assert not list(store.root.rglob("*.partial"))
    ray.shutdown()


def test_what_fails_for_a_reason_of_its_own_is_tried_once(cluster, store):
    hopeless = TINY.replace(lr=1e30)
    thread, outcomes = in_thread(store, [hopeless], cluster.address)
    thread.join(120)
    ((run, error),) = outcomes[0].failed
    assert run.config == hopeless
    assert "loss is" in error
    assert store.read(hopeless).result["status"] == "failed"


def test_a_killed_driver_leaves_nothing_behind_and_two_drivers_record_each_run_once(cluster, store):
    command = [sys.executable, "-m", "mmel", "sweep", "--executor", "ray", "--address", cluster.address]
    command += ["--table", "table1", "--only", "model=resnet8", "--only", "method=mmel_h", "--results", str(store.root)]

    def start():
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    before = kernels()
    first = start()
    wait_for(lambda: list(store.root.rglob("*.partial")), 120)
    first.kill()
    first.communicate()
    wait_for(lambda: kernels() <= before)
    assert all(
        json.loads(path.read_text().splitlines()[-1])["kind"] == "result" for path in store.root.rglob("*.jsonl")
    )
    drivers = [start(), start()]
    outputs = [driver.communicate(timeout=400) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outputs
    assert len(list(store.root.rglob("*.jsonl"))) == 2
    assert not list(store.root.rglob("*.partial"))
    wait_for(lambda: kernels() <= before)
