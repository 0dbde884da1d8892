"""Runs as Ray tasks, on this machine or on a cluster: `pip install mmel[ray]`.

Ray decides where a run goes, and starts it again elsewhere when its worker or its machine is lost; it then resumes from
its last checkpoint, which lies in the results folder that all machines see. What fails for a reason of its own is not
tried again: a task returns why, so that for Ray it has ended well.
"""

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import ray

from mmel.config import RunConfig
from mmel.records import Store
from mmel.sweep import BUDGET_SPENT
from mmel.sweep.plan import PlannedRun, estimate_speed, first_epoch_seconds
from mmel.sweep.workers import Cluster, Worker, start_workers

# How often a run is started again after its worker or its machine was lost.
RETRIES = 5


@contextlib.contextmanager
def ray_workers(
    count: int,
    store: Store,
    *,
    cluster: Cluster,
    notebook: bool,
    data_root: str | None = None,
    device: str | None = None,
    stop_at: float | None = None,
) -> Iterator[list[Worker]]:
    """One worker for each of `count` runs: how many of them train at once is for Ray to decide.

    Args:
        count: runs to train.
        store: where records go; a folder that every machine of the cluster sees under the same path.
        cluster: where it is, and what a run takes of it.
        notebook: as `mmel.sweep.driver.sweep`.
        data_root: likewise, and seen by every machine.
        device: as `mmel.train.train`.
        stop_at: likewise.

    Raises:
        ValueError: if a run shall have more GPUs than the cluster has.
        ConnectionError: if there is no cluster at `address`.
    """
    own = not ray.is_initialized()
    if own:
        # What grids and loaders read from the environment must be the same on every machine.
        variables = {name: value for name, value in os.environ.items() if name.startswith("MMEL_")}
        ray.init(cluster.address, runtime_env={"env_vars": variables}, log_to_driver=False, logging_level="warning")
    try:
        gpus = ray.cluster_resources().get("GPU", 0.0)
        share = (1.0 if gpus else 0.0) if cluster.gpus_per_run is None else cluster.gpus_per_run
        if not 0 <= share <= gpus:
            raise ValueError(f"gpus_per_run must be from 0 to the cluster's {gpus:g} GPUs, got {share:g}")
        task = ray.remote(num_cpus=1, num_gpus=share, max_retries=RETRIES)(_train)
        arguments = (str(store.root.resolve()), notebook, data_root and str(Path(data_root).resolve()), device, stop_at)
        yield [_RayWorker(task, arguments) for _ in range(count)]
    finally:
        if own:
            ray.shutdown()


class _RayWorker:
    def __init__(self, task: "ray.remote_function.RemoteFunction", arguments: tuple):
        self._task = task
        self._arguments = arguments
        self._under_way: ray.ObjectRef | None = None

    def submit(self, run: PlannedRun) -> "Future[str | None]":
        # Under its run's name `ray list tasks` and the dashboard show where it is.
        self._under_way = self._task.options(name=run.config.run_id).remote(run, str(Path.cwd()), *self._arguments)
        outer: Future[str | None] = Future()
        self._under_way.future().add_done_callback(lambda done: _pass_on(done, outer))
        return outer

    def close(self, abandon: bool = False) -> None:
        if abandon and self._under_way is not None:
            ray.cancel(self._under_way, force=True)


def _pass_on(done: "Future[str | None]", outer: "Future[str | None]") -> None:
    error = done.exception()
    if error is None:
        outer.set_result(done.result())
    else:
        # Lost more often than RETRIES, or cancelled; what the task itself raised is the cause of Ray's error.
        error = getattr(error, "cause", None) or error
        first_line = "".join(str(error).strip().splitlines()[:1])
        outer.set_result(f"{type(error).__name__}: {first_line}")


def _train(
    run: PlannedRun,
    checkout: str,
    root: str,
    notebook: bool,
    data_root: str | None,
    device: str | None,
    stop_at: float | None,
) -> str | None:
    """What a task does: one run on a worker of its own, in the folder from which the sweep was started."""
    if stop_at is not None and _too_late(run.config, Store(root), device, stop_at):
        # It had to wait too long for its turn.
        return BUDGET_SPENT
    with contextlib.chdir(checkout):
        return _own_worker(root, notebook, data_root, device, stop_at).submit(run).result()


def _too_late(config: RunConfig, store: Store, device: str | None, stop_at: float) -> bool:
    """Whether a run's first epoch would end after a time, by what is recorded on the device of this process."""
    if time.time() > stop_at:
        return True
    from mmel.train.machine import describe_device, pick_device

    speed = estimate_speed(store, device=describe_device(pick_device(device))["name"])
    return time.time() + first_epoch_seconds(config, speed.predict(config)) > stop_at


@functools.cache
def _own_worker(root: str, notebook: bool, data_root: str | None, device: str | None, stop_at: float | None) -> Worker:
    """The worker of this process, which Ray lends to one task after the other; its kernel ends with the process."""
    (worker,) = start_workers(1, Store(root), notebook=notebook, data_root=data_root, device=device, stop_at=stop_at)
    return worker
