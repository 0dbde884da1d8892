"""Trains runs on this machine: in this process, or side by side in processes or kernels of their own."""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from mmel.study.records import Store
from mmel.study.sweep import Ended, NotebookError, Outcome, ended_by
from mmel.study.sweep.plan import PlannedRun


class Executor(contextlib.AbstractContextManager):
    """Trains runs; those under way when its `with` block ends by an exception are killed, to resume another time."""

    def submit(self, run: PlannedRun) -> Future[Ended]:
        """Train a run."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End what the executor started."""


def local_executor(
    store: Store,
    *,
    slots: int = 1,
    notebook: bool = True,
    data_root: str | None = None,
    device: str | None = None,
    stop_at: float | None = None,
) -> Executor:
    """Executor on this machine; nothing is started before the first run.

    Args:
        store: where records go.
        slots: runs at once, which share the cores and the GPU; a single one without a notebook trains in this process.
        notebook: train through papermill and the table's notebook.
        data_root: folder of the data sets.
        device: as `mmel.study.train.train`.
        stop_at: likewise.
    """
    threads = threads_of(slots) if slots > 1 else None
    arguments = (store.root, data_root, device, stop_at)
    if notebook:
        return _SideBySide([_Kernel(store, data_root, device, stop_at, threads) for _ in range(slots)])
    if threads is None:
        return _InThisProcess(arguments)
    return _SideBySide([_Process(arguments, threads) for _ in range(slots)])


def threads_of(slots: int) -> int:
    """Threads of each of several runs that share this machine."""
    # Of the cores that this process may use, where the system tells; a container has fewer than the machine.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // slots)


class _InThisProcess(Executor):
    def __init__(self, arguments: tuple):
        self._arguments = arguments

    def submit(self, run: PlannedRun) -> Future[Ended]:
        future: Future[Ended] = Future()
        future.set_result(_train(run, *self._arguments))
        return future


class _SideBySide(Executor):
    """Gives each run to a free place, of which there is one per slot."""

    def __init__(self, places: "list[_Process] | list[_Kernel]"):
        # A thread for each, since a kernel's sockets belong to the thread that opened them.
        self._threads = {place: ThreadPoolExecutor(1) for place in places}
        self._free: queue.LifoQueue[_Process | _Kernel] = queue.LifoQueue()
        for place in places:
            self._free.put(place)
        self._under_way: set[Future[Ended]] = set()

    def submit(self, run: PlannedRun) -> Future[Ended]:
        place = self._free.get()
        future = self._threads[place].submit(place.train, run)
        self._under_way = {future, *(other for other in self._under_way if not other.done())}
        future.add_done_callback(lambda _: self._free.put(place))
        return future

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # More than once: a process or kernel that is being started can be killed a moment later alone.
        while kind is not None and wait(self._under_way, timeout=0.1).not_done:
            for place in self._threads:
                place.kill()
        for place, thread in self._threads.items():
            thread.submit(place.close)
            thread.shutdown()


class _Process:
    def __init__(self, arguments: tuple, threads: int):
        self._arguments, self._threads = arguments, threads
        self._pool: ProcessPoolExecutor | None = None

    def train(self, run: PlannedRun) -> Ended:
        if self._pool is None:
            # Spawned, not forked: torch's threads and CUDA do not survive a fork.
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin_worker, (self._threads,))
        try:
            return self._pool.submit(_train, run, *self._arguments).result()
        except BrokenProcessPool:
            # Killed from outside, most often for memory. The next run gets a new process.
            self.close()
            return Ended(Outcome.LOST, "the process that trained it died")

    def kill(self) -> None:
        # Those of all places: they are killed together.
        for process in multiprocessing.active_children():
            process.kill()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


class _Kernel:
    def __init__(
        self, store: Store, data_root: str | None, device: str | None, stop_at: float | None, threads: int | None
    ):
        from mmel.study.sweep.notebook import WarmKernel, kernel_environment

        environment = kernel_environment(store, data_root, device)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        if stop_at is not None:
            environment["MMEL_STOP_AT"] = repr(stop_at)
        self._store = store
        self._kernel = WarmKernel(environment)
        self.kill, self.close = self._kernel.kill, self._kernel.close

    def train(self, run: PlannedRun) -> Ended:
        from mmel.study.sweep.notebook import NOTEBOOKS, execute_run

        try:
            execute_run(self._kernel, NOTEBOOKS / f"run_{run.table}.ipynb", run.config, self._store)
        except NotebookError as error:
            return ended_by(error.name, str(error))
        except Exception as error:
            return _ended_by(error)
        return Ended(Outcome.TRAINED)


def _train(run: PlannedRun, root: Path, data_root: str | None, device: str | None, stop_at: float | None) -> Ended:
    from mmel.study.train import train

    try:
        for _ in train(run.config, Store(root), data_root=data_root, device=device, stop_at=stop_at):
            pass
    except Exception as error:
        # Whatever it is, the other runs are still to be trained.
        return _ended_by(error)
    return Ended(Outcome.TRAINED)


def _ended_by(error: Exception) -> Ended:
    return ended_by(type(error).__name__, f"{type(error).__name__}: {error}")


def _begin_worker(threads: int) -> None:
    # Before this process imports torch, which reads it once.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # A terminal sends Ctrl-C to all its processes; the sweep's own ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By default a semaphore, of which a warning is printed if this process is killed.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
