"""Trains runs on this machine, one or several at once, in kernels or processes that serve one run after the other."""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from mmel.study.config import Run
from mmel.study.records import Store
from mmel.study.sweep import Ended, Outcome, ended_by


class LocalExecutor(contextlib.AbstractContextManager):
    """Trains runs on this machine, `slots` at once, each through papermill and its table's notebook if `notebook`.

    Those under way when its block ends by an exception are killed, to resume later.
    """

    def __init__(self, store: Store, *, slots: int = 1, notebook: bool = True):
        threads = threads_of(slots)
        if notebook:
            from mmel.study.sweep.notebook import WarmKernel

            self._new_worker = functools.partial(WarmKernel, store, threads)
        else:
            self._new_worker = functools.partial(_Process, store, threads)
        # A worker for each thread, since a kernel's sockets belong to the thread that opened them.
        self._pool = ThreadPoolExecutor(slots, initializer=self._begin_thread)
        self._thread = threading.local()
        self._workers: list[WarmKernel | _Process] = []
        self._under_way: set[Future[Ended]] = set()

    def submit(self, run: Run, table: str) -> Future[Ended]:
        """Train a run, through its table's notebook if there is one, once a worker is free."""
        future = self._pool.submit(lambda: self._thread.worker.train(run, table))
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            # More than once: a process that is being started can be killed a moment later alone.
            while wait(set(self._under_way), timeout=0.1).not_done:
                for worker in self._workers:
                    worker.kill()
        self._pool.shutdown()
        for worker in self._workers:
            worker.close()

    def _begin_thread(self) -> None:
        self._thread.worker = self._new_worker()
        self._workers.append(self._thread.worker)


def threads_of(slots: int) -> int | None:
    """Threads of each of several runs that share this machine; None for torch's own choice if there is one."""
    if slots == 1:
        return None
    # Of the cores that this process may use, where the system tells; a container has fewer than the machine.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // slots)


class _Process:
    """A worker without a notebook."""

    def __init__(self, store: Store, threads: int | None):
        self._root, self._threads = store.root, threads
        self._pool: ProcessPoolExecutor | None = None

    def train(self, run: Run, _table: str) -> Ended:
        if self._pool is None:
            # Spawned, not forked: torch's threads and CUDA do not survive a fork.
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin_process, (self._threads,))
        try:
            return self._pool.submit(train_here, run, self._root).result()
        except BrokenProcessPool:
            # Killed from outside, most often for memory. The next run gets a new process.
            self.close()
            return Ended(Outcome.LOST, "the process that trained it died")

    def kill(self) -> None:
        # Those of all workers: they are killed together.
        for process in multiprocessing.active_children():
            process.kill()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def train_here(run: Run, root: Path) -> Ended:
    """Train a run in this process."""
    from mmel.study.train import train

    try:
        deque(train(run, Store(root)), maxlen=0)
    except Exception as error:
        return ended_by(error)
    return Ended(Outcome.TRAINED)


def _begin_process(threads: int | None) -> None:
    if threads is not None:
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
