"""Runs as Ray tasks, on this machine or on a cluster: `pip install mmel[ray]`.

Ray decides where a run is trained, and starts it again elsewhere when its worker or its machine is lost; it then
resumes from its last checkpoint, which lies in the results folder that all machines see. A task returns why its run
failed, so that for Ray it has ended well and is not tried again.
"""

import contextlib
import functools
import os
import time
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

import ray

from mmel.study.config import Run
from mmel.study.records import Store
from mmel.study.sweep import Ended, Outcome, ended_by
from mmel.study.sweep.local import Executor, local_executor
from mmel.study.sweep.plan import PlannedRun, estimate_speed, first_epoch_seconds

# How often a run is started again after its worker or its machine was lost.
RETRIES = 5


class RayExecutor(Executor):
    """Executor on a Ray cluster, which queues the runs it is given. It connects before the first run.

    Args:
        store: where records go; a folder that every machine of the cluster sees under the same path.
        address: `auto` or `host:port`; None for a cluster of this machine alone, which ends with the executor.
        gpus_per_run: share of a GPU that a run takes; None for a whole one if the cluster has any, else none.
        notebook: as `mmel.study.sweep.local.local_executor`.
        data_root: likewise, and seen by every machine.
        device: as `mmel.study.train.train`.
        stop_at: likewise.
    """

    def __init__(
        self,
        store: Store,
        *,
        address: str | None = None,
        gpus_per_run: float | None = None,
        notebook: bool = True,
        data_root: str | None = None,
        device: str | None = None,
        stop_at: float | None = None,
    ):
        self._address, self._gpus_per_run = address, gpus_per_run
        data_root = data_root and str(Path(data_root).resolve())
        self._arguments = (str(Path.cwd()), str(store.root.resolve()), notebook, data_root, device, stop_at)

    def submit(self, run: PlannedRun) -> Future[Ended]:
        """Queue a run.

        Raises:
            ValueError: if a run shall have more GPUs than the cluster has.
            ConnectionError: if there is no cluster at the address.
        """
        # Under its run's name `ray list tasks` and the dashboard show where it is.
        under_way = self._task.options(name=run.config.run_id).remote(run, *self._arguments)
        future: Future[Ended] = Future()
        under_way.future().add_done_callback(lambda done: future.set_result(_ended(done)))
        return future

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # With its driver Ray ends the tasks that are under way.
        ray.shutdown()

    @functools.cached_property
    def _task(self) -> "ray.remote_function.RemoteFunction":
        # What grids and loaders read from the environment must be the same on every machine.
        variables = {name: value for name, value in os.environ.items() if name.startswith("MMEL_")}
        ray.init(self._address, runtime_env={"env_vars": variables}, log_to_driver=False, logging_level="warning")
        gpus = ray.cluster_resources().get("GPU", 0.0)
        share = (1.0 if gpus else 0.0) if self._gpus_per_run is None else self._gpus_per_run
        if not 0 <= share <= gpus:
            raise ValueError(f"gpus_per_run must be from 0 to the cluster's {gpus:g} GPUs, got {share:g}")
        return ray.remote(num_cpus=1, num_gpus=share, max_retries=RETRIES)(train_as_task)


def train_as_task(
    run: PlannedRun,
    checkout: str,
    root: str,
    notebook: bool,
    data_root: str | None,
    device: str | None,
    stop_at: float | None,
) -> Ended:
    """Train a run in this process, or a kernel of it, in the folder from which the sweep was started."""
    if stop_at is not None and _is_too_late(run.config, Store(root), device, stop_at):
        return Ended(Outcome.LEFT, "its turn came too late for the budget")
    with contextlib.chdir(checkout):
        return _own_executor(root, notebook, data_root, device, stop_at).submit(run).result()


def _ended(done: Future[Ended]) -> Ended:
    error = done.exception()
    if error is None:
        return done.result()
    first_line = "".join(str(error).strip().splitlines()[:1])
    reason = f"{type(error).__name__}: {first_line}"
    if isinstance(error, ray.exceptions.RayTaskError):
        return ended_by(None, reason)
    # Its worker or its machine was lost more often than RETRIES.
    return Ended(Outcome.LOST, reason)


def _is_too_late(config: Run, store: Store, device: str | None, stop_at: float) -> bool:
    """Whether a run's first epoch would end after a time, by what is recorded on the device of this process."""
    if time.time() > stop_at:
        return True
    from mmel.study.train.machine import describe_device, pick_device
    from mmel.study.train.precision import resolve

    chosen = pick_device(device)
    speed = estimate_speed(store, device=describe_device(chosen) | {"precision": resolve("auto", chosen)})
    return time.time() + first_epoch_seconds(config, speed.predict(config)) > stop_at


@functools.cache
def _own_executor(
    root: str, notebook: bool, data_root: str | None, device: str | None, stop_at: float | None
) -> Executor:
    """The executor of this process, which Ray lends to one task after the other; its kernel ends with the process."""
    return local_executor(Store(root), notebook=notebook, data_root=data_root, device=device, stop_at=stop_at)
