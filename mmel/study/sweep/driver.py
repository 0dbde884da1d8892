"""Trains the missing runs of a plan, one after the other or several at once, within a budget."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import KW_ONLY, dataclass

from mmel.study.config import Run
from mmel.study.needs import is_teacher, needs
from mmel.study.records import Record, Store
from mmel.study.sweep import Ended, Outcome
from mmel.study.sweep.local import Executor
from mmel.study.sweep.plan import PlannedRun, duration, first_epoch_seconds, time_to_go

# Between two looks at what is under way, and at what other sweeps train.
PAUSE_SECONDS = 2.0
# Trained networks up to this size stay, for a look at them; an encoder may have hundreds of megabytes.
KEPT_BYTES = 8_000_000


@dataclass
class _Training:
    """A run that the executor was given.

    Attributes:
        run: the run.
        given: when.
        where: machine and process that train it; empty while it waits, as it may on Ray.
        begun: when they were first seen to do so.
    """

    run: PlannedRun
    given: float
    where: str = ""
    begun: float | None = None


@dataclass
class Sweep:
    """Trains the runs of a plan that are not recorded.

    A run that fails or whose process dies does not stop the sweep; runs that need it are left. A run that another sweep
    trains is passed over until that one is done with it, so several sweeps can share a results folder. The networks of
    runs on text are deleted once the run is over, except those of teachers and small ones.

    Args:
        replan: gives the plan; called again after each run, which may sharpen the predictions.
        store: where records go.
        executor: trains one run, here or elsewhere.
        slots: runs to give to the executor at once; None for all, as on Ray, which queues them.
        stop_at: time (seconds since 1970); no run is begun whose first epoch is predicted to end after it.
        retry_failed: train runs again that are recorded as failed.
        report: told one line per run.
        status: told every two seconds how many runs are done, of how many, and the rest in words.
    """

    replan: Callable[[], list[PlannedRun]]
    store: Store
    executor: Executor
    _: KW_ONLY
    slots: int | None = 1
    stop_at: float = float("inf")
    retry_failed: bool = False
    report: Callable[[str], None] = print
    status: Callable[[int, int, str], None] | None = None

    def __post_init__(self):
        self._planned = {run.config: run for run in self.replan()}
        self._ended: list[tuple[PlannedRun, Ended]] = []
        self._queue: list[Run] = []
        self._training: dict[Future[Ended], _Training] = {}
        for run in self._planned.values():
            if run.state == "missing" or (run.state == "failed" and self.retry_failed):
                self._queue.append(run.config)
            else:
                self._ended.append((run, _as_recorded(self.store.read(run.config))))
        self._total, self._before = len(self._queue), len(self._ended)

    def run(self) -> list[tuple[PlannedRun, Ended]]:
        """Train; returns every run of the plan and what became of it."""
        while self._going():
            self._begin_runs()
            self._look()
            if self.status is not None:
                self.status(self._total - len(self._going()), self._total, self._describe())
            self._collect()
        return self._ended

    def _going(self) -> list[Run]:
        """The runs that are queued or under way."""
        return [*self._queue, *(entry.run.config for entry in self._training.values())]

    def _begin_runs(self) -> None:
        """Give the executor the runs that can be trained now; end those that cannot be begun any more."""
        waiting = set(self._going())
        for config in list(self._queue):
            if self.slots is not None and len(self._training) >= self.slots:
                return
            if not waiting.isdisjoint(needs(config)):
                continue
            run = self._planned[config]
            if ended := self._ended_already(run):
                self._ended.append((run, ended))
                waiting.remove(config)
            elif self.store.holder(config):
                # Another sweep trains it.
                continue
            else:
                self._training[self.executor.submit(run)] = _Training(run, given=time.perf_counter())
            self._queue.remove(config)

    def _look(self) -> None:
        """See which runs are really being trained, and where."""
        for future, entry in self._training.items():
            entry.where = "" if future.done() else self.store.holder(entry.run.config)
            if entry.where and entry.begun is None:
                entry.begun = time.perf_counter()
        self._at_once = self.slots or max(1, sum(bool(entry.where) for entry in self._training.values()))

    def _describe(self) -> str:
        """How many runs failed and are to be trained, the time to go, then which run trains where and for how long."""
        now = time.perf_counter()
        runs = [
            f"{entry.run.config.dataset} {entry.run.config.run_id} on {entry.where} for {duration(now - entry.begun)}"
            for entry in self._training.values()
            if entry.where
        ]
        waiting = len(self._training) - len(runs)
        count = Counter(ended.outcome for _, ended in self._ended[self._before :])
        shown = [Outcome.FAILED, *(outcome for outcome in (Outcome.LOST, Outcome.LEFT) if count[outcome])]
        return (
            f"{', '.join(f'{count[outcome]} {outcome.value}' for outcome in shown)}, "
            f"{len(self._going())} to train{self._ahead()}; "
            f"under way: {', '.join(runs) or 'nothing'}{f'; {waiting} waiting' if waiting else ''}"
        )

    def _collect(self) -> None:
        """Wait a little for runs to end, and see what became of them."""
        if not self._training:
            # What is queued is trained by other sweeps.
            time.sleep(PAUSE_SECONDS if self._queue else 0.0)
            return
        for future in wait(self._training, PAUSE_SECONDS, FIRST_COMPLETED).done:
            entry, ended = self._training.pop(future), future.result()
            if ended.outcome is Outcome.LOCKED:
                self._queue.append(entry.run.config)
                continue
            line = self._settle(entry, ended)
            self._planned = {run.config: run for run in self.replan()}
            self.report(f"[{self._total - len(self._going())}/{self._total}] {line}{self._ahead()}")

    def _ended_already(self, run: PlannedRun) -> Ended | None:
        """The end of a run that is not to be begun, or None."""
        record = self.store.read(run.config)
        if record is not None and (record.finished or not self.retry_failed):
            # By another process, since this sweep began.
            return _as_recorded(record)
        good = (Outcome.RECORDED, Outcome.TRAINED)
        undone = {other.config for other, ended in self._ended if ended.outcome not in good}
        if missing := [need.run_id for need in needs(run.config) if need in undone]:
            return Ended(Outcome.LEFT, f"needs {', '.join(missing)}")
        if time.time() + first_epoch_seconds(run.config, run.predicted_seconds) > self.stop_at:
            return Ended(Outcome.LEFT, f"predicted {duration(run.predicted_seconds)}, beyond the budget")
        return None

    def _ahead(self) -> str:
        """The time that the queued runs and those under way still take, as far as that can be told."""
        now, going = time.perf_counter(), self._going()
        if not going:
            return ""
        spent = {entry.run.config: now - (entry.begun or now) for entry in self._training.values()}
        predicted = ((self._planned[config].predicted_seconds, spent.get(config, 0.0)) for config in going)
        return f" ({time_to_go(predicted, min(self._at_once, len(going)))})"

    def _settle(self, entry: _Training, ended: Ended) -> str:
        """Note what became of a run, and say it in a line."""
        config, record = entry.run.config, self.store.read(entry.run.config)
        if ended.outcome is Outcome.TRAINED and (record is None or not record.finished):
            ended = Ended(Outcome.FAILED, "no record was written")
        self._ended.append((entry.run, ended))
        name = f"{config.dataset} {config.run_id}"
        if ended.outcome is not Outcome.TRAINED:
            return f"{name}: {ended.outcome.value.upper()}: {ended.reason}"
        drop_weights(config, self.store)
        seconds = time.perf_counter() - (entry.begun or entry.given)
        return f"{name}: {record.metric.removesuffix('_pct')} {record.score:.2f} in {seconds:.1f} s"


def drop_weights(config: Run, store: Store) -> None:
    """Delete the trained network of a run on text that teaches no other, unless it is small as `tiny-bert` is."""
    path = store.weights_path(config)
    # A run that another process recorded may have left none here.
    if config.is_text and not is_teacher(config) and path.exists() and path.stat().st_size > KEPT_BYTES:
        path.unlink()


def _as_recorded(record: Record) -> Ended:
    return Ended(Outcome.RECORDED) if record.finished else Ended(Outcome.FAILED, record.result["error"])
