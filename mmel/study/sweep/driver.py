"""Trains the missing runs of a plan, one after the other or several at once, within a budget."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from tqdm import tqdm

from mmel.study.config import Run
from mmel.study.needs import is_teacher, needs
from mmel.study.records import Store
from mmel.study.sweep import Ended, Outcome
from mmel.study.sweep.cost import Speed, duration

# Between two looks at the runs under way, and at those that other sweeps train.
PAUSE_SECONDS = 2.0
# Without a terminal, the seconds between two lines on the runs under way.
STATUS_SECONDS = 60.0
# Trained networks up to this size stay, for a look at them; an encoder may have hundreds of megabytes.
KEPT_BYTES = 8_000_000


@dataclass
class Sweep:
    """Trains the runs of a plan that are not recorded.

    A run that fails or whose process dies does not stop the sweep; runs that need it are left. A run that another sweep
    trains is passed over until that one is done with it, so several sweeps can share a results folder.

    Args:
        plan: the runs, each with the table whose notebook trains it.
        store: where records go.
        submit: trains one run; the result tells how it ended, whatever it raised.
        speed: predicts first epochs for the budget; it learns from the runs that are trained.
        slots: runs to submit at once; None for all, as on Ray, which queues them.
        stop_at: time (seconds since 1970); no run is begun whose first epoch is predicted to end after it.
        retry_failed: train runs again that are recorded as failed.
    """

    plan: dict[Run, str]
    store: Store
    submit: Callable[[Run, str], Future[Ended]]
    speed: Speed
    slots: int | None = 1
    stop_at: float = float("inf")
    retry_failed: bool = False

    def __post_init__(self):
        self._queue = list(self.plan)
        self._training: dict[Future[Ended], Run] = {}
        self._ended: dict[Run, Ended] = {}
        self._needs = {run: [need for need in needs(run) if need in self.plan] for run in self.plan}

    def run(self) -> dict[Run, Ended]:
        """Train; returns how each run of the plan ended."""
        # The mean time of a run tells the time to go; without a terminal there is no bar (`disable=None`).
        form = "{n_fmt}/{total_fmt} |{bar:20}| {elapsed}<{remaining}{postfix}"
        with tqdm(total=len(self.plan), smoothing=0, bar_format=form, leave=False, disable=None) as self._bar:
            self._shown = time.monotonic()
            while self._queue or self._training:
                self._begin_runs()
                self._show()
                self._collect()
        return self._ended

    def _begin_runs(self) -> None:
        """Submit the runs that can be trained now; end those that are not to be trained."""
        for run in list(self._queue):
            if ended := self._ended_untrained(run):
                self._end(run, ended)
                self._queue.remove(run)
            elif (
                len(self._training) != self.slots
                and all(need in self._ended for need in self._needs[run])
                # Else another sweep trains it.
                and not self.store.holder(run)
            ):
                self._training[self.submit(run, self.plan[run])] = run
                self._queue.remove(run)

    def _ended_untrained(self, run: Run) -> Ended | None:
        """The end of a run that is not to be begun, or None."""
        record = self.store.read(run)
        if record is not None and record.finished:
            return Ended(Outcome.RECORDED)
        if record is not None and not self.retry_failed:
            return Ended(Outcome.FAILED, record.result["error"])
        done = (Outcome.RECORDED, Outcome.TRAINED)
        ended = {need.run_id: self._ended[need].outcome for need in self._needs[run] if need in self._ended}
        if undone := [name for name, outcome in ended.items() if outcome not in done]:
            return Ended(Outcome.LEFT, f"needs {', '.join(undone)}")
        seconds = self.speed.seconds(run) or 0.0
        if time.time() + seconds / run.total_epochs > self.stop_at:
            return Ended(Outcome.LEFT, f"the budget is too short for its first epoch (a run takes {duration(seconds)})")
        return None

    def _collect(self) -> None:
        """Wait a little for runs to end."""
        if not self._training:
            # The runs in the queue are trained by other sweeps.
            time.sleep(PAUSE_SECONDS if self._queue else 0.0)
            return
        for future in wait(self._training, PAUSE_SECONDS, FIRST_COMPLETED).done:
            run, ended = self._training.pop(future), future.result()
            if ended.outcome is Outcome.LOCKED:
                # Another sweep was a moment faster.
                self._queue.append(run)
            else:
                self._end(run, ended)

    def _end(self, run: Run, ended: Ended) -> None:
        """Note how a run ended, and print it unless it was recorded before."""
        record = self.store.read(run)
        if ended.outcome is Outcome.TRAINED and (record is None or not record.finished):
            ended = Ended(Outcome.FAILED, "no record was written")
        self._ended[run] = ended
        text = f"{ended.outcome.value.upper()}: {ended.reason}"
        if ended.outcome is Outcome.TRAINED:
            drop_weights(run, self.store)
            self.speed.learn(record)
            text = f"{record.metric.removesuffix('_pct')} {record.score:.2f} in {record.result['wall_seconds']:.1f} s"
        if ended.outcome is Outcome.RECORDED:
            self._bar.total -= 1
        else:
            self._bar.n += 1
            self._print(f"{run.dataset} {run.run_id}: {text}")

    def _show(self) -> None:
        """Say which runs are under way: in the bar or, without a terminal, in a line per minute."""
        holders = {run: self.store.holder(run) for run in self._training.values()}
        under_way = [f"{run.dataset} {run.run_id} on {holder}" for run, holder in holders.items() if holder]
        count = Counter(ended.outcome for ended in self._ended.values())
        text = f"{count[Outcome.FAILED] + count[Outcome.LOST]} failed or lost; under way: {', '.join(under_way)}"
        if not self._bar.disable:
            self._bar.set_postfix_str(text)
        elif time.monotonic() - self._shown >= STATUS_SECONDS:
            self._shown = time.monotonic()
            self._print(text)

    def _print(self, line: str) -> None:
        tqdm.write(f"[{self._bar.n}/{self._bar.total}] {line}")
        sys.stdout.flush()


def drop_weights(run: Run, store: Store) -> None:
    """Delete the trained network of a run on text that teaches no other, unless it is small as `tiny-bert` is."""
    path = store.weights_path(run)
    # A run that another process recorded may have left none here.
    if run.is_text and not is_teacher(run) and path.exists() and path.stat().st_size > KEPT_BYTES:
        path.unlink()
