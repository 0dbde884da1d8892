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
from mmel.sweep.plan import PlannedRun, duration, total_seconds
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


@dataclass
class _Training:
    run: PlannedRun
    worker: Worker
    started: float


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
    recorded as failed and is not. A run that another sweep is training is passed over until that one is done with it,
    so that several sweeps share a results folder.

    The networks of runs on text are deleted once the run, its notebook included, is over, but for teachers'.

    Args:
        replan: gives the plan; called again before each run, since each one sharpens the prediction of the next.
        store: where records go.
        pack: runs to train side by side on the device; each gets its share of the CPU cores. No result depends on it,
            but as far as sums on a CPU depend on the number of threads.
        cluster: train on a Ray cluster instead, as many at once as it has room for.
        budget_minutes: begin no run whose first epoch is predicted to end after this long, and stop those under way at
            the last checkpoint before it.
        retry_failed: train failed runs once more.
        notebook: train through papermill and the table's notebook; otherwise in this process, or one for each of
            several runs.
        data_root: folder of the data sets.
        device: as `mmel.train.train`.
        report: told one line a run.
        status: told every two seconds how many runs are done, of how many, and what is under way where.

    Returns:
        What became of every run.

    Raises:
        ValueError: if `pack` is not a positive integer.
    """
    if pack < 1:
        raise ValueError(f"pack must be at least 1, got {pack}")
    begin = time.perf_counter()
    outcome = SweepOutcome()
    planned = {run.config: run for run in replan()}
    for run in planned.values():
        if run.state == "recorded" or (run.state == "failed" and not retry_failed):
            _note(run, store.read(run.config), outcome)
    queue = [
        run.config for run in planned.values() if run.state == "missing" or (run.state == "failed" and retry_failed)
    ]
    if not queue:
        return outcome
    total, pack = len(queue), min(pack, len(queue))
    budget = float("inf") if budget_minutes is None else budget_minutes * 60
    stop_at = None if budget_minutes is None else time.time() + budget
    options = {"notebook": notebook, "data_root": data_root, "device": device, "stop_at": stop_at}
    if cluster is None:
        start = local_workers(pack, store, **options)
    else:
        from mmel.sweep.ray import ray_workers

        start = ray_workers(total, store, cluster=cluster, **options)
    training: dict[Future, _Training] = {}
    attempts, resting = Counter[RunConfig](), dict[RunConfig, float]()
    with start as workers:
        free = list(workers)
        while queue or training:
            resting = {config: until for config, until in resting.items() if until > time.perf_counter()}
            while free and (config := _next(queue, training.values(), resting)):
                queue.remove(config)
                run, record = planned[config], store.read(config)
                if record is not None and (record.finished or not retry_failed):
                    # By another process, since this sweep began.
                    _note(run, record, outcome)
                    continue
                first_epoch = (run.predicted_seconds or 0) / config.total_epochs
                waits_for = {left.config for left in outcome.left}.intersection(needs(config))
                if waits_for or time.perf_counter() - begin + first_epoch > budget:
                    outcome.left.append(run)
                    continue
                worker, started = free.pop(0), time.perf_counter()
                training[worker.submit(run)] = _Training(run, worker, started)
            if status is not None:
                going = [*queue, *(entry.run.config for entry in training.values())]
                ahead = _ahead([planned[config] for config in going], pack)
                status(total - len(going), total, _under_way(training.values(), store, outcome) + ahead)
            if queue and not training:
                time.sleep(PAUSE_SECONDS)
                continue
            for future in wait(training, PAUSE_SECONDS, FIRST_COMPLETED).done:
                entry, error = training.pop(future), future.result()
                free.append(entry.worker)
                attempts[entry.run.config] += error == LOST
                if error == CLAIMED or (error == LOST and attempts[entry.run.config] < ATTEMPTS):
                    if error == LOST:
                        report(f"{entry.run.config.run_id}: {LOST}; it goes on from its checkpoint")
                    queue.append(entry.run.config)
                    resting[entry.run.config] = time.perf_counter() + PAUSE_SECONDS
                    continue
                line = _settle(entry, error, store, outcome)
                planned = {run.config: run for run in replan()}
                going = [*queue, *(other.run.config for other in training.values())]
                ahead = _ahead([planned[config] for config in going], pack)
                report(f"[{total - len(going)}/{total}] {line}{ahead}")
    outcome.wall_seconds = time.perf_counter() - begin
    return outcome


def drop_weights(config: RunConfig, store: Store) -> None:
    """Delete the trained network of a run on text that teaches no other, unless it is small as `tiny-bert` is."""
    path = store.weights_path(config)
    # A run that another process recorded may have left none here.
    if config.is_text and not is_teacher(config) and path.exists() and path.stat().st_size > KEPT_BYTES:
        path.unlink()


def _next(
    queue: list[RunConfig], training: Iterable[_Training], resting: Collection[RunConfig] = ()
) -> RunConfig | None:
    """The first run that does not rest and needs none of those that are not trained yet; None where all must wait."""
    pending = {*queue, *(entry.run.config for entry in training)}
    ready = (config for config in queue if config not in resting and pending.isdisjoint(needs(config)))
    return next(ready, None)


def _note(run: PlannedRun, record: Record, outcome: SweepOutcome) -> None:
    """Note a run that is recorded."""
    if record.finished:
        outcome.recorded.append(run)
    else:
        outcome.failed.append((run, record.result["error"]))


def _ahead(runs: list[PlannedRun], pack: int) -> str:
    """What the runs that are queued or under way will still take, where that can be told."""
    seconds = total_seconds(run.predicted_seconds for run in runs)
    return f" (about {duration(seconds / pack)} to go)" if seconds else ""


def _under_way(training: Iterable[_Training], store: Store, outcome: SweepOutcome) -> str:
    """What runs where, for how long."""
    now = time.perf_counter()
    runs = [
        f"{entry.run.config.dataset} {entry.run.config.run_id} on {store.holder(entry.run.config) or '...'} "
        f"for {duration(now - entry.started)}"
        for entry in training
    ]
    return f"{len(outcome.failed)} failed; under way: {', '.join(runs) or 'nothing'}"


def _settle(entry: _Training, error: str | None, store: Store, outcome: SweepOutcome) -> str:
    """Note what became of a run, and say it in a line."""
    config = entry.run.config
    seconds = time.perf_counter() - entry.started
    name = f"{config.dataset} {config.run_id}"
    record = store.read(config)
    if error == BUDGET_SPENT:
        outcome.left.append(entry.run)
        return f"{name}: stopped at a checkpoint, the budget is spent"
    if error is None and record is not None and record.finished:
        outcome.trained.append(entry.run)
        outcome.train_seconds += record.result["wall_seconds"]
        drop_weights(config, store)
        return f"{name}: {record.metric.removesuffix('_pct')} {record.score:.2f} in {seconds:.1f} s"
    outcome.failed.append((entry.run, error or "no record was written"))
    return f"{name}: FAILED: {outcome.failed[-1][1]}"
