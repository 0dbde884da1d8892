"""What a person who watches a sweep, or plans one, sees."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from mmel.sweep.paper_hours import paper_hours
from mmel.sweep.plan import PlannedRun, cost, duration

Status = Callable[[int, int, str], None]
# Where there is no terminal, the seconds between two lines on what is under way.
STATUS_SECONDS = 60.0


def plan_lines(runs: list[PlannedRun], tables: list[str], device: str | None) -> Iterator[str]:
    """Each run with its state and cost, then what each table and all of them still cost.

    Where the plan predicts nothing, the hours are the paper's, on a V100.

    Args:
        runs: the plan.
        tables: the tables in it.
        device: name of the device at hand, whose records the plan's predictions come from; None for a Ray cluster's.
    """
    seconds = {run.config: run.predicted_seconds for run in runs}
    recorded = any(took is not None for took in seconds.values())
    if not recorded:
        hours = {config: paper_hours(config) for config in seconds}
        seconds = {config: None if took is None else took * 3600 for config, took in hours.items()}
    for run in runs:
        took = duration(seconds[run.config])
        yield f"{run.state:9} {took:>10}  {run.table}  {run.config.dataset}  {run.config.run_id}"
    missing = [run for run in runs if run.state == "missing"]
    for table in tables:
        mine = [seconds[run.config] for run in missing if run.table == table]
        yield f"{table}: {len(mine)} runs, {cost(mine)}"
    total = f"{len(missing)} runs to train, each counted with the first of its tables: "
    total += cost(seconds[run.config] for run in missing)
    if recorded:
        yield f"{total}, at the speed recorded on {device}"
        return
    why = f"no run like these is recorded on {device}" if device else "what a cluster's devices need shows as it trains"
    known = any(took is not None for took in seconds.values())
    yield f"{total} (on one V100, by the paper's own times; {why})" if known else f"{total}: {why}"


@contextmanager
def watch() -> Iterator[tuple[Callable[[str], None], Status]]:
    """Functions that show a sweep, as `mmel.sweep.driver.sweep` takes them: `report` and `status`.

    On a terminal a bar stays below the lines of the finished runs and says what is under way; elsewhere a line in a
    minute does.
    """
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line_in_a_minute(done: int, total: int, text: str) -> None:
            nonlocal last
            if time.monotonic() - last >= STATUS_SECONDS:
                last = time.monotonic()
                print(f"[{done}/{total}] {text}", flush=True)

        yield lambda line: print(line, flush=True), line_in_a_minute
        return
    with tqdm(total=0, bar_format="{n_fmt}/{total_fmt} |{bar:20}| {elapsed}{postfix}", leave=False) as bar:

        def status(done: int, total: int, text: str) -> None:
            bar.n, bar.total = done, total
            bar.set_postfix_str(text)

        yield tqdm.write, status
