"""The one training loop: from a configuration to a record, checkpoints and weights."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from mmel.study.config import Run
from mmel.study.records import Line, RunWriter, Store
from mmel.study.train import checkpoint, machine, processes
from mmel.study.train.precision import autocast, math_of, resolve
from mmel.study.train.step import DivergedError, Step
from mmel.study.train.task import build_task, header
from mmel.study.train.teacher import ensure_teacher

# Within an epoch a checkpoint is worth its time (gigabytes, for a large encoder) if so much work would be lost.
CHECKPOINT_SECONDS = 60.0


class BudgetError(Exception):
    """A run was stopped at a checkpoint, from which it resumes another time."""


def train(
    config: Run,
    store: Store,
    *,
    data_root: str | Path | None = None,
    device: str | None = None,
    stop_at: float | None = None,
    wait: bool = False,
) -> Iterator[Line]:
    """Train one run, or resume it from its checkpoint, and yield a line for each evaluation.

    A finished run yields its recorded lines and trains nothing; a resumed one yields those of its checkpoint first.
    Every line is in the record before it is yielded. The state is saved after every epoch, and at an evaluation a
    minute or more after it last was; a killed run resumes from there to the same result (bit for bit on a CPU). A
    teacher that is missing is trained first. Several processes that a launcher started all call this.

    Args:
        config: the run.
        store: where records and checkpoints go.
        data_root: folder of the data sets, see docs/data.md.
        device: `cpu`, `cuda`, `cuda:1`; None for MMEL_DEVICE, else the first GPU, else the CPU.
        stop_at: time (seconds since 1970) before which to stop, with a checkpoint; the first evaluation is always
            waited for. None for MMEL_STOP_AT, else never.
        wait: if another process trains this run, wait for it rather than refuse.

    Yields:
        A dictionary for each evaluation: `epoch` (epochs done, a fraction within an epoch), `train_loss` (mean since
        the line before), `accuracy_pct` or the task's own metrics, `learning_rate`, `train_seconds`, `eval_seconds`,
        `images_per_second` or `sequences_per_second` (augmented ones), and, as means over examples, `weight_entropy`
        (of P*, in nats), `weight_max` (its largest weight) and `effective_views` (1 / sum of its squares).

    Raises:
        TrainingError: if the loss is not finite, and the record then says `failed`; or if memory does not suffice.
        BudgetError: if `stop_at` is too near for another evaluation, judged by how long the last one took.
        LockedError: if another process trains this run, and `wait` is false.
        DataError: if the data set is missing or damaged.
        ResultsError: if the run's record, checkpoint or teacher cannot be used.
    """
    stop_at = stop_time(stop_at)
    chosen = processes.start(device)
    with processes.held_by_main(store.lock(config, wait)):
        record = processes.from_main(store.read(config))
        if record is not None and record.finished:
            yield from record.epochs
            return
        ensure_teacher(config, store, train, data_root=data_root, device=device, stop_at=stop_at)
        yield from _train(config, store, data_root, chosen, stop_at)


def _train(
    config: Run, store: Store, data_root: str | Path | None, device: torch.device, stop_at: float
) -> Iterator[Line]:
    begin = time.perf_counter()
    if config.batch_size < processes.count():
        raise ValueError(f"batch_size must be at least the {processes.count()} processes, got {config.batch_size}")
    if device.type == "cpu":
        machine.keep_freed_memory()
    machine.reset_peak_memory(device)

    path, before, lines = store.checkpoint_path(config), None, []
    if processes.from_main(path.exists()):
        state = checkpoint.load(path)
        before, *lines = state["lines"]
        begin -= state["wall_seconds"]
    precision = processes.from_main(_precision(config, device, before))
    task = build_task(config, store, data_root, device, precision)
    parts, whole = config.evals_per_epoch, config.epochs_per_eval
    if parts > task.steps:
        raise ValueError(f"evals_per_epoch must be at most the {task.steps} steps of an epoch, got {parts}")
    step = Step(task, device)
    head = header(config, task, device, before)
    if before is not None:
        checkpoint.load(path, **step.parts)

    writer = RunWriter(store, config, [head, *lines], writes=processes.is_main())
    yield from lines
    saved, saved_at, total = len(lines), time.monotonic(), config.total_epochs * parts // whole
    with _progress(config, step.before(saved), step.before(total)) as bar:
        for number in range(saved, total):
            is_due = number % parts == 0 or time.monotonic() - saved_at > CHECKPOINT_SECONDS
            # The main process decides, since clocks differ: save, stop, or neither.
            is_due, too_late = processes.from_main((is_due, _too_late(lines, stop_at)))
            if number > saved and (is_due or too_late):
                owners = {name: part.state_dict() for name, part in step.parts.items()}
                checkpoint.save(path, {**owners, "lines": [head, *lines], "wall_seconds": time.perf_counter() - begin})
                saved, saved_at = number, time.monotonic()
            if too_late:
                raise BudgetError(f"{config.run_id} resumes from epoch {lines[-1]['epoch']} another time")
            try:
                trained = step.interval(number, bar)
            except DivergedError as error:
                writer.finish({"status": "failed", "error": str(error), **_costs(lines, step, begin)})
                raise
            evaluated_at = time.perf_counter()
            with autocast(precision, device, cache=config.is_text), math_of(precision):
                metrics = task.evaluate()
            seconds = time.perf_counter() - evaluated_at
            epoch, part = divmod((number + 1) * whole, parts)
            # Whole epochs as an integer, as in the records of runs with one evaluation per epoch.
            epoch = epoch + round(part / parts, 4) if part else epoch
            bar.set_postfix(epoch=epoch, **{name: f"{value:.2f}" for name, value in metrics.items()}, refresh=False)
            lines.append({"kind": "epoch", "epoch": epoch, **trained, **metrics, "eval_seconds": seconds})
            writer.append(lines[-1])
            yield lines[-1]
    with autocast(precision, device, cache=config.is_text), math_of(precision):
        scores, predictions = task.test()
    # The last scores, and the best of the one by which the run is judged.
    metric = config.data.metric
    last, best = lines[-1], max(lines, key=lambda line: line[metric])
    result = {"status": "finished", **{name: value for name, value in last.items() if name.endswith("_pct")}}
    result |= {f"best_{metric}": best[metric], "best_epoch": best["epoch"], **scores}
    checkpoint.save(store.weights_path(config), {"model": task.model.state_dict(), "score": result[metric]})
    writer.finish(result | _costs(lines, step, begin), predictions)


def stop_time(named: float | str | None = None) -> float:
    """The time, in seconds since 1970, before which training is to stop: as named, else by MMEL_STOP_AT, else never.

    Raises:
        ValueError: if it is not a number.
    """
    if named is None:
        named = os.environ.get("MMEL_STOP_AT") or math.inf
    with contextlib.suppress(ValueError):
        if not math.isnan(stop_at := float(named)):
            return stop_at
    raise ValueError(f"stop_at (or MMEL_STOP_AT) must be a time in seconds since 1970, got {named!r}")


def _precision(config: Run, device: torch.device, before: Line | None) -> str:
    """The precision of a run; a resumed one keeps its own on the same device, whatever a probe says now."""
    known = dict(before["device"]) if before else {}
    kept = known.pop("precision", None)
    return kept if known == machine.describe_device(device) else resolve(config, device)


def _too_late(lines: list[Line], stop_at: float) -> bool:
    """Whether another evaluation, as long as the last one, would end after a time; the first is waited for."""
    return any(time.time() + line["train_seconds"] + line["eval_seconds"] > stop_at for line in lines[-1:])


def _progress(config: Run, done: int, total: int) -> tqdm:
    """A bar over steps with ETA; if nobody watches, a line every half minute (a notebook keeps each one)."""
    watched = sys.stderr.isatty() or ("ipykernel" in sys.modules and "MMEL_HEADLESS" not in os.environ)
    return tqdm(
        desc=config.run_id,
        initial=done,
        total=total,
        unit="step",
        mininterval=0.5 if watched else 30,
        disable=not processes.is_main(),
    )


def _costs(lines: list[Line], step: Step, begin: float) -> Line:
    return {
        **step.engine,
        "train_seconds": sum(line["train_seconds"] for line in lines),
        "wall_seconds": time.perf_counter() - begin,
        "peak_memory_bytes": machine.peak_memory_bytes(step.device),
    }
