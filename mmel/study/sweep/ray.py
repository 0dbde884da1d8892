"""Runs as Ray tasks, on this machine or on a cluster: `pip install mmel[ray]`.

Ray starts a run again elsewhere when its worker or its machine is lost; it then resumes from its last checkpoint. A
task returns why its run failed, so that for Ray it has ended well and is not tried again.
"""

import contextlib
import functools
import os
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray

from mmel.study.config import Run
from mmel.study.records import Store
from mmel.study.sweep import Ended, Outcome
from mmel.study.sweep.local import train_here

# How often a run is started again after its worker or its machine was lost.
RETRIES = 5


class RayExecutor(contextlib.AbstractContextManager):
    """Trains runs on a Ray cluster, which queues them and ends those under way with its `with` block.

    Args:
        store: a folder that every machine of the cluster sees under the same path.
        address: `auto` or `host:port`; None for a cluster of this machine alone, which ends with the executor.
        gpus_per_run: share of a GPU that a run takes; None for a whole one if the cluster has any, else none.
        notebook: train through papermill and the table's notebook.

    Raises:
        ValueError: if a run is to have more GPUs than the cluster has.
        ConnectionError: if there is no cluster at the address.
    """

    def __init__(
        self, store: Store, *, address: str | None = None, gpus_per_run: float | None = None, notebook: bool = True
    ):
        self._arguments = (Path.cwd(), store.root.resolve(), notebook)
        # What runs read from the environment must be the same on every machine.
        variables = {name: value for name, value in os.environ.items() if name.startswith("MMEL_")}
        ray.init(address, runtime_env={"env_vars": variables}, log_to_driver=False, logging_level="warning")
        gpus = ray.cluster_resources().get("GPU", 0.0)
        share = min(1.0, gpus) if gpus_per_run is None else gpus_per_run
        if not 0 <= share <= gpus:
            raise ValueError(f"gpus_per_run must be from 0 to the cluster's {gpus:g} GPUs, got {share:g}")
        self._task = ray.remote(num_cpus=1, num_gpus=share, max_retries=RETRIES)(train_as_task)

    def submit(self, run: Run, table: str) -> Future[Ended]:
        """Queue a run."""
        # Under its run's name `ray list tasks` and the dashboard show where it is.
        under_way = self._task.options(name=run.run_id).remote(run, table, *self._arguments)
        future: Future[Ended] = Future()
        under_way.future().add_done_callback(lambda done: future.set_result(_ended(done)))
        return future

    def __exit__(self, *_: object) -> None:
        # With its driver Ray ends the tasks that are under way.
        ray.shutdown()


def train_as_task(run: Run, table: str, checkout: Path, root: Path, notebook: bool) -> Ended:
    """Train a run in this process, or a kernel of it, in the folder from which the sweep was started."""
    if time.time() > float(os.environ.get("MMEL_STOP_AT") or "inf"):
        return Ended(Outcome.LEFT, "its turn came after the end of the budget")
    with contextlib.chdir(checkout):
        return _own_kernel(root).train(run, table) if notebook else train_here(run, root)


@functools.cache
def _own_kernel(root: Path) -> Any:
    """The `WarmKernel` of this process, which Ray lends to one task after the other; it ends with the process."""
    from mmel.study.sweep.notebook import WarmKernel

    return WarmKernel(Store(root))


def _ended(done: Future[Ended]) -> Ended:
    error = done.exception()
    if error is None:
        return done.result()
    # An error of the task's own, or its worker or machine was lost more often than RETRIES.
    outcome = Outcome.FAILED if isinstance(error, ray.exceptions.RayTaskError) else Outcome.LOST
    return Ended(outcome, f"{type(error).__name__}: {str(error).strip().partition(os.linesep)[0]}")
