"""Where runs are trained, one at a time each: in this process, in a process of its own, or in a kernel of its own."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmel.records import ClaimedError, Store
from mmel.sweep import BUDGET_SPENT, CLAIMED, LOST, NotebookError
from mmel.sweep.plan import PlannedRun


class Worker(Protocol):
    """Trains one run at a time."""

    def submit(self, run: PlannedRun) -> "Future[str | None]":
        """Train a run; the future holds None, or why it failed, or `BUDGET_SPENT`, `CLAIMED` or `LOST`."""

    def close(self, abandon: bool = False) -> None:
        """End the worker; `abandon` kills what it is training, which resumes from its checkpoint another time."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster to train on.

    Attributes:
        address: `auto` or `host:port`; None for one of this machine alone, which ends with the sweep.
        gpus_per_run: share of a GPU that a run takes; None for a whole one where the cluster has any, else none.
    """

    address: str | None = None
    gpus_per_run: float | None = None


@contextlib.contextmanager
def local_workers(
    count: int, store: Store, *, notebook: bool, data_root: str | None, device: str | None, stop_at: float | None
) -> Iterator[list[Worker]]:
    """Workers on this machine, as `start_workers`; abandoned if the sweep ends by an exception."""
    workers = start_workers(count, store, notebook=notebook, data_root=data_root, device=device, stop_at=stop_at)
    abandon = True
    try:
        yield workers
        abandon = False
    finally:
        for worker in workers:
            worker.close(abandon)


def start_workers(
    count: int,
    store: Store,
    *,
    notebook: bool,
    data_root: str | None = None,
    device: str | None = None,
    stop_at: float | None = None,
) -> list[Worker]:
    """Workers that share the cores of this machine, and its GPU.

    Args:
        count: how many; a single one that needs no notebook trains in this process.
        store: where records go.
        notebook: train through papermill and the table's notebook.
        data_root: folder of the data sets.
        device: as `mmel.train.train`.
        stop_at: likewise.
    """
    threads = max(1, _cores() // count) if count > 1 else None
    if notebook:
        return [_NotebookWorker(store, data_root, device, stop_at, threads) for _ in range(count)]
    if threads is None:
        return [_InProcess(store, data_root, device, stop_at)]
    return [_OwnProcess(store, data_root, device, stop_at, threads) for _ in range(count)]


class _InProcess:
    def __init__(self, store: Store, data_root: str | None, device: str | None, stop_at: float | None):
        self._arguments = (store.root, data_root, device, stop_at)

    def submit(self, run: PlannedRun) -> "Future[str | None]":
        future: Future[str | None] = Future()
        future.set_result(_train(run, *self._arguments))
        return future

    def close(self, abandon: bool = False) -> None:
        pass


class _OwnProcess:
    def __init__(self, store: Store, data_root: str | None, device: str | None, stop_at: float | None, threads: int):
        self._arguments = (store.root, data_root, device, stop_at)
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._broken = False

    def submit(self, run: PlannedRun) -> "Future[str | None]":
        if self._pool is None or self._broken:
            # Spawned, not forked: torch's threads and CUDA do not survive a fork.
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _use_threads, (self._threads,))
            self._broken = False
        inner, outer = self._pool.submit(_train, run, *self._arguments), Future()
        inner.add_done_callback(lambda done: self._pass_on(done, outer))
        return outer

    def _pass_on(self, done: "Future[str | None]", outer: "Future[str | None]") -> None:
        error = done.exception()
        if isinstance(error, BrokenProcessPool):
            # Out of memory, most often: it was killed from outside. The next run gets a new process. The pool is not
            # dropped here: it calls this with its lock held, which Python 3.12 and 3.13 want to take as it goes.
            self._broken = True
            outer.set_result(LOST)
        elif error is not None:
            outer.set_result(_reason(error))
        else:
            outer.set_result(done.result())

    def close(self, abandon: bool = False) -> None:
        if self._pool is None:
            return
        if abandon:
            # Of all workers at once: they are abandoned together.
            for process in multiprocessing.active_children():
                process.kill()
        self._pool.shutdown()


class _NotebookWorker:
    def __init__(
        self,
        store: Store,
        data_root: str | None,
        device: str | None,
        stop_at: float | None,
        threads: int | None,
    ):
        from mmel.sweep.notebook import WarmKernel, kernel_environment

        environment = kernel_environment(store, data_root, device)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        if stop_at is not None:
            environment["MMEL_STOP_AT"] = repr(stop_at)
        self._store = store
        self._kernel = WarmKernel(environment)
        # A kernel's sockets belong to the thread that opened them.
        self._thread: Executor = ThreadPoolExecutor(1)

    def submit(self, run: PlannedRun) -> "Future[str | None]":
        return self._thread.submit(self._execute, run)

    def _execute(self, run: PlannedRun) -> str | None:
        from mmel.sweep.notebook import KERNEL_DIED, NOTEBOOKS, execute_run

        try:
            execute_run(self._kernel, NOTEBOOKS / f"run_{run.table}.ipynb", run.config, self._store)
        except NotebookError as error:
            if error.name == KERNEL_DIED:
                return LOST
            return error.name if error.name in (BUDGET_SPENT, CLAIMED) else str(error)
        except Exception as error:
            return _reason(error)
        return None

    def close(self, abandon: bool = False) -> None:
        if abandon:
            self._kernel.kill()
        self._thread.submit(self._kernel.close).result()
        self._thread.shutdown()


def _train(run: PlannedRun, root: Path, data_root: str | None, device: str | None, stop_at: float | None) -> str | None:
    from mmel.train import BudgetError, train

    try:
        for _ in train(run.config, Store(root), data_root=data_root, device=device, stop_at=stop_at):
            pass
    except (BudgetError, ClaimedError) as error:
        return type(error).__name__
    except Exception as error:
        return _reason(error)
    return None


def _reason(error: BaseException) -> str:
    """What is told of a run that failed: whatever it raised, the other runs of the sweep go on."""
    return f"{type(error).__name__}: {error}"


def _use_threads(count: int) -> None:
    # Before this process imports torch, which reads it once.
    os.environ["OMP_NUM_THREADS"] = str(count)


def _cores() -> int:
    # What this process may use, where the system tells; a container has fewer than the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
