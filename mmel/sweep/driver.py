"""Trains what is missing of a plan, one run after the other or several side by side, within a budget."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from mmel.config import RunConfig
from mmel.grids import is_teacher, needs
from mmel.records import Record, Store
from mmel.sweep import BUDGET_SPENT, CLAIMED, LOST
from mmel.sweep.plan import PlannedRun, cost, duration, first_epoch_seconds
from mmel.sweep.workers import Cluster, Worker, local_workers

# A run whose process dies is begun this often; what kills it each time may be the run itself.
ATTEMPTS = 3
# Before a run is tried again that was lost, or that another sweep trains; and between two looks at what is under way.
PAUSE_SECONDS = 2.0
# Trained networks up to this size stay, for a look at them; an encoder may have hundreds of megabytes.
KEPT_BYTES = 8_000_000


@dataclass
class SweepOutcome:
    """What became of the runs of a sweep.

    Attributes:
        recorded: were there before.
        trained: were trained now.
        failed: failed now or before, with the reason.
        left: were not begun, or were stopped at a checkpoint, because the budget would not have sufficed.
        train_seconds: time spent inside training, of those trained now.
        wall_seconds: time of the sweep.
    """

    recorded: list[PlannedRun] = field(default_factory=list)
    trained: list[PlannedRun] = field(default_factory=list)
    failed: list[tuple[PlannedRun, str]] = field(default_factory=list)
    left: list[PlannedRun] = field(default_factory=list)
    train_seconds: float = 0.0
    wall_seconds: float = 0.0


def sweep(
    replan: Callable[[], list[PlannedRun]],
    store: Store,
    *,
    pack: int = 1,
    cluster: Cluster | None = None,
    budget_minutes: float | None = None,
    retry_failed: bool = False,
    notebook: bool = True,
    data_root: str | None = None,
    device: str | None = None,
    report: Callable[[str], None] = print,
    status: Callable[[int, int, str], None] | None = None,
) -> SweepOutcome:
    """Train the runs of a plan that are not recorded.

    A run whose process dies is begun again from its checkpoint, three times in all; one that fails of itself is
    not, whatever it raised, and the sweep goes on. A run that another sweep is training is passed over until that one
    is done with it, so that several sweeps share a results folder.

    The networks of runs on text are deleted once the run, its notebook included, is over, but for teachers' and small
    ones.

    Args:
        replan: gives the plan; called again before each run, since each one sharpens the prediction of the next.
        store: where records go.
        pack: runs to train side by side on the device; each gets its share of the CPU cores. No result depends on it,
            but as far as sums on a CPU depend on the number of threads, and where neighbours on a GPU leave a run too
            little memory for its batch: such a run is marked.
        cluster: train on a Ray cluster instead, as many at once as it has room for.
        budget_minutes: begin no run whose first epoch is predicted to end after this long, and stop those under way at
            the last checkpoint before it.
        retry_failed: train failed runs once more.
        notebook: train through papermill and the table's notebook; otherwise in this process, or one for each of
            several runs.
        data_root: folder of the data sets.
        device: as `mmel.train.train`.
        report: told one line a run.
        status: told every two seconds how many runs are done, of how many, and in words what failed, what is left, how
            long that takes and what is under way where.

    Returns:
        What became of every run.

    Raises:
        ValueError: if `pack` is not a positive integer.
    """
    if pack < 1:
        raise ValueError(f"pack must be at least 1, got {pack}")
    budget = float("inf") if budget_minutes is None else budget_minutes * 60
    state = _Sweep(replan, store, budget, retry_failed, report)
    if not state.queue:
        return state.outcome
    state.slots = min(pack, state.total)
    options = {
        "notebook": notebook,
        "data_root": data_root,
        "device": device,
        "stop_at": None if budget_minutes is None else time.time() + budget,
    }
    if cluster is None:
        start = local_workers(state.slots, store, **options)
    else:
        from mmel.sweep.ray import ray_workers

        start = ray_workers(state.total, store, cluster=cluster, **options)
    with start as workers:
        state.free = list(workers)
        while state.queue or state.training:
            state.begin_runs()
            state.look(count=cluster is not None)
            if status is not None:
                status(state.total - len(state.going()), state.total, state.describe())
            if state.training:
                state.collect()
            elif state.queue:
                time.sleep(PAUSE_SECONDS)
    state.outcome.wall_seconds = time.perf_counter() - state.begin
    return state.outcome


def drop_weights(config: RunConfig, store: Store) -> None:
    """Delete the trained network of a run on text that teaches no other, unless it is small as `tiny-bert` is."""
    path = store.weights_path(config)
    # A run that another process recorded may have left none here.
    if config.is_text and not is_teacher(config) and path.exists() and path.stat().st_size > KEPT_BYTES:
        path.unlink()


@dataclass
class _Training:
    """A run that a worker was given.

    Attributes:
        run: the run.
        worker: the worker.
        started: when it was given.
        where: machine and process that train it; empty while it waits for a place, as it may on Ray.
        begun: when they were first seen to do so.
    """

    run: PlannedRun
    worker: Worker
    started: float
    where: str = ""
    begun: float | None = None


class _Sweep:
    """The state of a sweep: what is queued, what is being trained by whom, and what became of the others."""

    def __init__(
        self,
        replan: Callable[[], list[PlannedRun]],
        store: Store,
        budget: float,
        retry_failed: bool,
        report: Callable[[str], None],
    ):
        self.begin = time.perf_counter()
        self.outcome = SweepOutcome()
        self.training: dict[Future, _Training] = {}
        self.free: list[Worker] = []
        # Runs that train at the same time, as far as that is known.
        self.slots = 1
        self._replan, self._store, self._report = replan, store, report
        self._budget, self._retry_failed = budget, retry_failed
        self._attempts, self._resting = Counter[RunConfig](), dict[RunConfig, float]()
        self._planned = {run.config: run for run in replan()}
        for run in self._planned.values():
            if run.state == "recorded" or (run.state == "failed" and not retry_failed):
                self._note(run, store.read(run.config))
        self.queue = [
            run.config
            for run in self._planned.values()
            if run.state == "missing" or (run.state == "failed" and retry_failed)
        ]
        self.total = len(self.queue)
        self._failed_before = len(self.outcome.failed)

    def going(self) -> list[RunConfig]:
        """The runs that are queued or under way."""
        return [*self.queue, *(entry.run.config for entry in self.training.values())]

    def begin_runs(self) -> None:
        """Give the free workers what may be trained now."""
        now = time.perf_counter()
        self._resting = {config: until for config, until in self._resting.items() if until > now}
        while self.free and (config := _next(self.queue, self.training.values(), self._resting)):
            self.queue.remove(config)
            run, record = self._planned[config], self._store.read(config)
            if record is not None and (record.finished or not self._retry_failed):
                # By another process, since this sweep began.
                self._note(run, record)
            elif self._too_late(run):
                self.outcome.left.append(run)
            else:
                worker, started = self.free.pop(0), time.perf_counter()
                self.training[worker.submit(run)] = _Training(run, worker, started)

    def look(self, count: bool) -> None:
        """See which runs are really being trained, and where.

        Args:
            count: whether as many as that are what trains at the same time, as on Ray, which queues what it is given.
        """
        now = time.perf_counter()
        for future, entry in self.training.items():
            entry.where = "" if future.done() else self._store.holder(entry.run.config)
            if entry.where:
                entry.begun = entry.begun or now
            elif not future.done():
                entry.begun = None
        if count:
            self.slots = max(1, sum(bool(entry.where) for entry in self.training.values()))

    def describe(self) -> str:
        """Failed, left and the time to go, then what runs where and for how long."""
        now = time.perf_counter()
        runs = [
            f"{entry.run.config.dataset} {entry.run.config.run_id} on {entry.where} for {duration(now - entry.begun)}"
            for entry in self.training.values()
            if entry.where
        ]
        waiting = len(self.training) - len(runs)
        beyond = f", {len(self.outcome.left)} beyond the budget" if self.outcome.left else ""
        failed = len(self.outcome.failed) - self._failed_before
        return (
            f"{failed} failed{beyond}, {len(self.going())} left{self._ahead()}; "
            f"under way: {', '.join(runs) or 'nothing'}{f'; {waiting} waiting' if waiting else ''}"
        )

    def collect(self) -> None:
        """Wait a little for runs to end, and see what became of them."""
        for future in wait(self.training, PAUSE_SECONDS, FIRST_COMPLETED).done:
            entry, error = self.training.pop(future), future.result()
            config = entry.run.config
            self.free.append(entry.worker)
            self._attempts[config] += error == LOST
            if error == CLAIMED or (error == LOST and self._attempts[config] < ATTEMPTS):
                if error == LOST:
                    self._report(f"{config.run_id}: {LOST}; it goes on from its checkpoint")
                self.queue.append(config)
                self._resting[config] = time.perf_counter() + PAUSE_SECONDS
                continue
            line = self._settle(entry, error)
            self._planned = {run.config: run for run in self._replan()}
            self._report(f"[{self.total - len(self.going())}/{self.total}] {line}{self._ahead()}")

    def _too_late(self, run: PlannedRun) -> bool:
        """Whether the budget ends before the run's first epoch, or left out what the run needs."""
        first_epoch = first_epoch_seconds(run.config, run.predicted_seconds)
        waits_for = {left.config for left in self.outcome.left}.intersection(needs(run.config))
        return bool(waits_for) or time.perf_counter() - self.begin + first_epoch > self._budget

    def _ahead(self) -> str:
        """What the runs that are queued or under way will still take, as far as that can be told."""
        now, going = time.perf_counter(), self.going()
        if not going:
            return ""
        spent = {entry.run.config: now - (entry.begun or now) for entry in self.training.values()}
        slots = min(self.slots, len(going))
        predicted = {config: self._planned[config].predicted_seconds for config in going}
        ahead = cost(
            None if seconds is None else max(0.0, seconds - spent.get(config, 0.0)) / slots
            for config, seconds in predicted.items()
        )
        return " (time to go unknown)" if ahead == "unknown" else f" (about {ahead} to go)"

    def _note(self, run: PlannedRun, record: Record) -> None:
        """Note a run that is recorded."""
        if record.finished:
            self.outcome.recorded.append(run)
        else:
            self.outcome.failed.append((run, record.result["error"]))

    def _settle(self, entry: _Training, error: str | None) -> str:
        """Note what became of a run, and say it in a line."""
        config = entry.run.config
        seconds = time.perf_counter() - (entry.begun or entry.started)
        name = f"{config.dataset} {config.run_id}"
        record = self._store.read(config)
        if error == BUDGET_SPENT:
            self.outcome.left.append(entry.run)
            return f"{name}: the budget is spent; it goes on from its checkpoint, if it has one"
        if error is None and record is not None and record.finished:
            self.outcome.trained.append(entry.run)
            # A record counts what was trained before an interruption too, in an earlier sweep maybe.
            self.outcome.train_seconds += min(record.result["wall_seconds"], time.perf_counter() - entry.started)
            drop_weights(config, self._store)
            return f"{name}: {record.metric.removesuffix('_pct')} {record.score:.2f} in {seconds:.1f} s"
        self.outcome.failed.append((entry.run, error or "no record was written"))
        return f"{name}: FAILED: {self.outcome.failed[-1][1]}"


def _next(
    queue: list[RunConfig], training: Iterable[_Training], resting: Collection[RunConfig] = ()
) -> RunConfig | None:
    """The first run that does not rest and needs none of those that are not trained yet; None where all must wait."""
    pending = {*queue, *(entry.run.config for entry in training)}
    ready = (config for config in queue if config not in resting and pending.isdisjoint(needs(config)))
    return next(ready, None)
