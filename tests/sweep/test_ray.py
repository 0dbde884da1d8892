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
import torch
from pretend import record_run

from mmel import RunConfig
from mmel.records import Store
from mmel.sweep.driver import sweep
from mmel.sweep.plan import PlannedRun
from mmel.sweep.workers import Cluster
from mmel.train.machine import describe_device

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
    # On a busy machine Ray's own processes may miss the 30 seconds that it gives them.
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


def descends_from(process, ancestor):
    """Whether a process of this machine is another's child, or a child's child."""
    while process > 1 and process != ancestor:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return False
    return process == ancestor


def trained_on(node, runs, store):
    """Those of some runs that a node trains, with a checkpoint to go on from."""
    (raylet,) = node.all_processes["raylet"]
    return [
        run
        for run in runs
        if store.checkpoint_path(run).exists()
        and any(descends_from(process, raylet.process.pid) for process in task_processes(run))
    ]


def in_thread(store, runs, address, **options):
    outcomes = []

    def run():
        given = {"cluster": Cluster(address), "notebook": False, "report": lambda line: None} | options
        outcomes.append(sweep(lambda: planned(runs), store, **given))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcomes


def kill_worker_of_one(runs, store):
    """Kill the process that trains the first of some runs to have a checkpoint, and return that run."""

    def under_way():
        return [run for run in runs if store.checkpoint_path(run).exists() and task_processes(run)]

    wait_for(under_way, 240)
    killed = under_way()[0]
    for process in task_processes(killed):
        os.kill(process, signal.SIGKILL)
    return killed


def assert_resumed(store, run):
    """That a run is whole, and that more than one process trained it."""
    record = store.read(run)
    assert record.finished
    assert [line["epoch"] for line in record.epochs] == list(range(1, run.epochs + 1))
    assert record.header["resumed_from"]


def test_a_killed_worker_and_a_lost_node_cost_no_run(cluster, store):
    ray.init(cluster.address, log_to_driver=False)
    extra = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    runs = [TINY.replace(seed=seed, epochs=150) for seed in range(3)]
    thread, outcomes = in_thread(store, runs, cluster.address)
    killed = kill_worker_of_one(runs, store)
    others = [run for run in runs if run != killed]
    wait_for(lambda: trained_on(extra, others, store), 240)
    (lost,) = trained_on(extra, others, store)
    cluster.remove_node(extra, allow_graceful=False)
    thread.join(400)
    assert [len(outcome.trained) for outcome in outcomes] == [3], outcomes
    assert all(store.read(run).finished for run in runs)
    for run in (killed, lost):
        assert_resumed(store, run)
    assert not list(store.root.rglob("*.partial"))
    ray.shutdown()


def test_a_killed_worker_leaves_no_kernel_and_its_notebook_is_executed_again(cluster, store):
    before = kernels()
    run = TINY.replace(epochs=150)
    thread, outcomes = in_thread(store, [run], cluster.address, notebook=True)
    kill_worker_of_one([run], store)
    thread.join(400)
    assert [len(outcome.trained) for outcome in outcomes] == [1], outcomes
    assert_resumed(store, run)
    assert store.notebook_path(run).exists()
    wait_for(lambda: kernels() <= before)


def test_a_budget_begins_no_run_on_a_node_whose_first_epoch_would_outlast_it(cluster, store):
    # The driver does not know what a run takes on that node's device; the task does, from what is recorded there.
    name = describe_device(torch.device("cpu"))["name"]
    record_run(store, TINY, header={"device": {"name": name}}, train_seconds=3e6)
    runs = [TINY.replace(seed=seed) for seed in (1, 2)]
    thread, outcomes = in_thread(store, runs, cluster.address, budget_minutes=100)
    thread.join(400)
    assert {run.config for run in outcomes[0].left} == set(runs), outcomes
    assert not list(store.root.rglob("*.partial"))


def test_what_fails_for_a_reason_of_its_own_is_tried_once(cluster, store):
    hopeless = TINY.replace(lr=1e30)
    thread, outcomes = in_thread(store, [hopeless], cluster.address)
    thread.join(400)
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
    wait_for(lambda: list(store.root.rglob("*.partial")), 240)
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
