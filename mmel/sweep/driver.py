"""Trains what is missing of a plan, one run after the other, within a budget."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from mmel.config import RunConfig
from mmel.data import DataError
from mmel.grids import is_teacher
from mmel.records import ResultsError, Store
from mmel.sweep import NotebookError
from mmel.sweep.plan import PlannedRun

NOTEBOOKS = Path("notebooks")


@dataclass
class SweepOutcome:
    """What became of the runs of a sweep.

    Attributes:
        recorded: were there before.
        trained: were trained now.
        failed: failed now or before, with the reason.
        left: were not begun because the budget would not have sufficed.
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
    budget_minutes: float | None = None,
    retry_failed: bool = False,
    notebook: bool = True,
    data_root: str | None = None,
    device: str | None = None,
    report: Callable[[str], None] = print,
) -> SweepOutcome:
    """Train the runs of a plan that are not recorded.

    The networks of runs on text are deleted once the run, its notebook included, is over, but for teachers'.

    Args:
        replan: gives the plan; called again after each run, since each one sharpens the prediction of the next.
        store: where records go.
        budget_minutes: begin no run that is predicted to end after this long.
        retry_failed: train failed runs once more.
        notebook: train through papermill and the table's notebook; otherwise in this process.
        data_root: folder of the data sets.
        device: as `mmel.train.train`.
        report: told one line a run.

    Returns:
        What became of every run.
    """
    begin = time.perf_counter()
    outcome = SweepOutcome()
    first = replan()
    queue = []
    for run in first:
        if run.state == "recorded":
            outcome.recorded.append(run)
        elif run.state == "failed" and not retry_failed:
            outcome.failed.append((run, store.read(run.config).result["error"]))
        else:
            queue.append(run.config)
    total = len(queue)
    with ExitStack() as stack:
        execute = _executor(stack, store, notebook, data_root, device) if queue else None
        for number, config in enumerate(queue, start=1):
            run = next(run for run in replan() if run.config == config)
            spent = time.perf_counter() - begin
            if budget_minutes is not None and spent + (run.predicted_seconds or 0) > budget_minutes * 60:
                outcome.left.append(run)
                continue
            started = time.perf_counter()
            error = execute(run)
            record = store.read(config)
            seconds = time.perf_counter() - started
            if error is None and record is not None and record.finished:
                outcome.trained.append(run)
                outcome.train_seconds += record.result["wall_seconds"]
                drop_weights(config, store)
                score = f"{record.metric.removesuffix('_pct')} {record.score:.2f}"
                report(f"[{number}/{total}] {config.dataset} {config.run_id}: {score} in {seconds:.1f} s")
            else:
                outcome.failed.append((run, error or "no record was written"))
                report(f"[{number}/{total}] {config.dataset} {config.run_id}: FAILED: {outcome.failed[-1][1]}")
    outcome.wall_seconds = time.perf_counter() - begin
    return outcome


def drop_weights(config: RunConfig, store: Store) -> None:
    """Delete the trained network of a run on text that teaches no other: an encoder has hundreds of megabytes."""
    if config.is_text and not is_teacher(config):
        store.weights_path(config).unlink(missing_ok=True)


def _executor(
    stack: ExitStack, store: Store, notebook: bool, data_root: str | None, device: str | None
) -> Callable[[PlannedRun], str | None]:
    """A function that trains one run and returns why it failed, or None."""
    if notebook:
        from mmel.sweep.notebook import execute_run, warm_kernel

        kernel = stack.enter_context(warm_kernel(store, data_root, device))

        def in_notebook(run: PlannedRun) -> str | None:
            try:
                execute_run(kernel, NOTEBOOKS / f"run_{run.table}.ipynb", run.config, store)
            except NotebookError as error:
                return str(error)
            return None

        return in_notebook

    from mmel.train import TrainingError, train

    def in_process(run: PlannedRun) -> str | None:
        try:
            for _ in train(run.config, store, data_root=data_root, device=device):
                pass
        except (TrainingError, DataError, ResultsError) as error:
            return str(error)
        return None

    return in_process
