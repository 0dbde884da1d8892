"""The lines of a plan, and the display of a sweep under way."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from mmel.study.sweep.paper_hours import paper_hours
from mmel.study.sweep.plan import PlannedRun, duration

Status = Callable[[int, int, str], None]
# Without a terminal, the seconds between two lines on what is under way.
STATUS_SECONDS = 60.0


def plan_lines(runs: list[PlannedRun], tables: list[str], device: str | None) -> Iterator[str]:
    """Each run with its state and cost, then the cost of each table and of all that are missing.

    Args:
        runs: the plan.
        tables: the tables in it.
        device: name of the device at hand, on which the plan's predictions were measured; None for a Ray cluster.
    """
    for run in runs:
        yield f"{run.state:9} {_cost([run]):>12}  {run.table}  {run.config.dataset}  {run.config.run_id}"
    missing = [run for run in runs if run.state == "missing"]
    for table in tables:
        mine = [run for run in missing if run.table == table]
        yield f"{table}: {len(mine)} runs, {_cost(mine)}"
    total = f"{len(missing)} runs to train, each counted with the first of its tables: {_cost(missing)}"
    if all(run.predicted_seconds is not None for run in missing):
        yield f"{total}, at the speed recorded on {device}" if missing else total
        return
    by_paper = "V100: by the paper's own times on one; " if "V100" in total else ""
    where = f"no run like these is recorded on {device}" if device else "a cluster's devices show as it trains"
    yield f"{total} ({by_paper}{where})"


def _cost(runs: list[PlannedRun]) -> str:
    """The measured time of runs, then the paper's of those of which none is measured, then the number of the others."""
    predicted = [run.predicted_seconds for run in runs]
    hours = [paper_hours(run.config) for run in runs if run.predicted_seconds is None]
    measured = [seconds for seconds in predicted if seconds is not None]
    published = [number for number in hours if number is not None]
    parts = [duration(sum(measured))] if measured or not runs else []
    if published:
        parts.append(f"{duration(sum(published) * 3600)} (V100)")
    if unknown := len(runs) - len(measured) - len(published):
        parts.append("unknown" if unknown == len(runs) else f"{unknown} runs whose time is unknown")
    return " and ".join(parts)


@contextmanager
def watch() -> Iterator[tuple[Callable[[str], None], Status]]:
    """Functions that show a sweep, as `mmel.study.sweep.driver.sweep` takes them: `report` and `status`.

    On a terminal a bar stays below the lines of the finished runs and says what is under way; elsewhere one line per
    minute does.
    """
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line_per_minute(done: int, total: int, text: str) -> None:
            nonlocal last
            if time.monotonic() - last >= STATUS_SECONDS:
                last = time.monotonic()
                print(f"[{done}/{total}] {text}", flush=True)

        yield lambda line: print(line, flush=True), line_per_minute
        return
    with tqdm(total=0, bar_format="{n_fmt}/{total_fmt} |{bar:20}| {elapsed}{postfix}", leave=False) as bar:

        def status(done: int, total: int, text: str) -> None:
            bar.n, bar.total = done, total
            bar.set_postfix_str(text)

        yield tqdm.write, status


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM too, as batch systems send it before they kill."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
