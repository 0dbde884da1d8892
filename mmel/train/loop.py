"""The one training loop: from a configuration to records, checkpoints and weights."""

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmel.config import RunConfig
from mmel.grids import teacher_of
from mmel.records import Line, RunWriter, Store, write_atomically
from mmel.train import checkpoint, encoder, machine, processes
from mmel.train.encoded import EncodedVisionTask
from mmel.train.lines import engines, epochs_done, header, outcome, resumed_header
from mmel.train.precision import autocast, probe, resolve
from mmel.train.progress import progress
from mmel.train.selection import with_choices
from mmel.train.step import Step, Task, TrainingError
from mmel.train.teacher import ensure_teacher
from mmel.train.text import TextTask
from mmel.train.vision import VisionTask

# Within an epoch a checkpoint is worth its time (gigabytes, of a large encoder) where so much work would be lost.
CHECKPOINT_SECONDS = 60.0


class BudgetError(Exception):
    """A run was stopped at a checkpoint, from which it goes on another time."""


def train(
    config: RunConfig,
    store: Store,
    *,
    data_root: str | Path | None = None,
    device: str | None = None,
    checkpoint_every: int = 1,
    stop_at: float | None = None,
    wait: bool = False,
) -> Iterator[Line]:
    """Train one run, or go on with it where an earlier process stopped, and yield a record for each evaluation.

    There is one at the end of each epoch, or `evals_per_epoch` of them. A run that is already recorded as finished
    yields its recorded lines and trains nothing; a resumed one yields those of its checkpoint first. Every line is
    appended to the record before it is yielded. Every `checkpoint_every` epochs the state is saved, and between them at
    evaluations from a minute after it last was; a killed run resumes from there to the same result (bit for bit on a
    CPU). Nothing is saved between two evaluations: where an epoch is more than one may lose, `evals_per_epoch` makes
    several parts of it. A run on text whose teacher is not trained yet trains it first. Where `accelerate launch`
    started several processes they train it together, see `mmel.train.processes`: all call this, and the main one alone
    writes and yields.

    Args:
        config: the run.
        store: where records and checkpoints go.
        data_root: folder of the data sets; see `mmel.data.vision.load_images` and `mmel.data.glue.load_text`.
        device: `cpu`, `cuda`, `cuda:1`; None for MMEL_DEVICE, else the first GPU, else the CPU.
        checkpoint_every: epochs between checkpoints that take less than a minute.
        stop_at: time (seconds since 1970) before which to stop, with a checkpoint at the last evaluation that comes
            before it (the first of a run is always waited for); None for MMEL_STOP_AT, else never.
        wait: where another process trains this run, wait for it rather than refuse.

    Yields:
        A dictionary for each evaluation: `epoch` (epochs done, a fraction within an epoch), `train_loss` (mean since
        the line before), `accuracy_pct` or the task's own metrics, `learning_rate`, `train_seconds`, `eval_seconds`,
        `images_per_second` or `sequences_per_second` (augmented ones), `weight_entropy` (of P*, in nats, mean over
        examples) and `weight_max` (its largest weight, likewise).

    Raises:
        TrainingError: if the loss is not finite or memory does not suffice for one original; the record then says
            `failed`.
        BudgetError: if `stop_at` is too near for another evaluation, judged by how long the last one took.
        ClaimedError: if another process trains this run, and `wait` is false.
        DataError: if the data set is missing or damaged.
        ResultsError: if the run's record, checkpoint or teacher cannot be used.
    """
    if stop_at is None and (named := os.environ.get("MMEL_STOP_AT")):
        stop_at = float(named)
    chosen = processes.start(device)
    with contextlib.ExitStack() as stack:
        processes.on_main(lambda: stack.enter_context(store.claim(config, wait)))
        record = processes.on_main(lambda: store.read(config))
        if record is not None and record.finished:
            yield from record.epochs if processes.is_main() else ()
            return
        ensure_teacher(config, store, functools.partial(train, data_root=data_root, device=device, stop_at=stop_at))
        yield from _Training(config, store, data_root, chosen).evaluations(checkpoint_every, stop_at)


def load_trained(
    config: RunConfig, store: Store, *, data_root: str | Path | None = None, device: str | None = None
) -> Task:
    """The task of a finished run with its trained network, for a look at what it learned.

    Raises:
        FileNotFoundError: if the weights are not in this results folder: records travel without them, and a sweep
            keeps those of images and of teachers alone.
        ResultsError: if they cannot be used.
    """
    path = store.weights_path(config)
    if not path.exists():
        raise FileNotFoundError(f"no weights of {config.run_id} in this results folder; train it here to have them")
    chosen = machine.pick_device(device)
    task = _build_task(config, store, data_root, chosen, resolve(config.precision, chosen))
    checkpoint.fill(task.model, checkpoint.load(path), path)
    task.model.eval()
    return task


def _build_task(
    config: RunConfig, store: Store, data_root: str | Path | None, device: torch.device, precision: str
) -> Task:
    resolved = with_choices(config, store).replace(precision=precision)
    if config.is_text:
        # The teacher of the run that was asked for: what it leaves to be chosen is chosen by other runs.
        return TextTask(resolved, teacher_of(config), store, data_root, device)
    task = EncodedVisionTask if config.is_encoded else VisionTask
    return task(resolved, data_root, device)


class _Training:
    """The state of one run under way."""

    def __init__(self, config: RunConfig, store: Store, data_root: str | Path | None, device: torch.device):
        self.started = time.perf_counter()
        if config.batch_size < processes.count():
            raise ValueError(
                f"batch_size must be at least the {processes.count()} processes of the run, got {config.batch_size}"
            )
        if device.type == "cpu":
            machine.keep_freed_memory()
        machine.reset_peak_memory(device)
        self.config, self.store, self.device = config, store, device
        state = self._load_checkpoint()
        described = machine.describe_device(device)
        self.precision = processes.on_main(lambda: self._choose_precision(state, described))
        self.task: Task = _build_task(config, store, data_root, device, self.precision)
        if config.evals_per_epoch > self.task.steps:
            raise ValueError(
                f"evals_per_epoch must be at most the {self.task.steps} steps of an epoch, got {config.evals_per_epoch}"
            )
        self.model = self.task.model.train()
        self.step = Step(self.task, config, device)
        self.lines: list[Line] = [header(config, self.task, described | {"precision": self.precision})]
        if config.precision == "auto":
            self.lines[0]["precision_probe"] = probe(device)
        # Of the processes that came before this one.
        self.seconds_before = 0.0
        self.engines_before: list[Line] = []
        if state is not None:
            self._resume(state)

    def evaluations(self, checkpoint_every: int, stop_at: float | None) -> Iterator[Line]:
        """The evaluations of a checkpoint, if there is one, then those that are left; see `train`."""
        # One process writes; the others wait for it here, and fail with it.
        on_main = processes.on_main
        writer = RunWriter(self.store, self.config, self.lines) if processes.is_main() else None
        yield from self.lines[1:] if processes.is_main() else ()
        parts = self.config.evals_per_epoch
        saved = done = len(self.lines) - 1
        total, saved_at = self.config.total_epochs * parts, time.monotonic()
        try:
            with progress(self.config, self._step_before(done), self._step_before(total)) as bar:
                self._try_largest_batch()
                for number in range(done, total):
                    if stop_at is not None and on_main(lambda: self._too_late(stop_at)):
                        if saved < number:
                            self._checkpoint()
                        epoch = epochs_done(number, parts)
                        raise BudgetError(f"{self.config.run_id} goes on from epoch {epoch} another time")
                    line = self._train_and_evaluate(number, bar)
                    self.lines.append(line)
                    on_main(lambda line=line: writer.append(line))
                    # Clocks of several processes differ; the main one's decides.
                    is_due = (number + 1) % (checkpoint_every * parts) == 0 or on_main(
                        lambda since=saved_at: time.monotonic() - since >= CHECKPOINT_SECONDS
                    )
                    if is_due and number + 1 < total:
                        self._checkpoint()
                        saved, saved_at = number + 1, time.monotonic()
                    if processes.is_main():
                        yield line
            result = {"status": "finished", **outcome(self.lines[1:], self.task.metric), **self._test_outcome()}
        except TrainingError as error:
            result = {"status": "failed", "error": str(error), **self._costs()}
            on_main(lambda: writer.finish(result))
            on_main(self._forget)
            raise
        result |= self._costs()
        weights = {"model": self.model.state_dict(), "score": result[self.task.metric]}
        on_main(lambda: checkpoint.save(self.store.weights_path(self.config), weights))
        on_main(lambda: writer.finish(result))
        on_main(self._forget)

    def _too_late(self, stop_at: float) -> bool:
        """Whether another evaluation would come after a time, by what the last one took; never before the first."""
        last = self.lines[1:][-1:]
        return any(time.time() + line["train_seconds"] + line["eval_seconds"] > stop_at for line in last)

    def _step_before(self, number: int) -> int:
        """Steps before evaluation interval `number`, of which each epoch has `evals_per_epoch`."""
        epoch, part = divmod(number, self.config.evals_per_epoch)
        return epoch * self.task.steps + part * self.task.steps // self.config.evals_per_epoch

    def _try_largest_batch(self) -> None:
        """Put the batch that needs most memory through once, so that memory fails now or never."""
        index = self.task.largest_batch()
        if index is not None:
            with self._seeded(-1), self._fp32_math():
                self.step.try_out(index)

    def _train_and_evaluate(self, number: int, bar: tqdm) -> Line:
        first, last = self._step_before(number), self._step_before(number + 1)
        epoch = number // self.config.evals_per_epoch + 1
        learning_rate = self.step.optimizer.param_groups[0]["lr"]
        begin = time.perf_counter()
        losses = torch.zeros(last - first, device=self.device)
        sums = torch.zeros(2, device=self.device)
        # Reading a loss makes a GPU wait, so there it is looked at once an interval; the CPU is in step anyway.
        every = 1 if self.device.type == "cpu" else len(losses)
        before = (epoch - 1) * self.task.steps
        batches = self.task.order(epoch).split(self.config.batch_size)[first - before : last - before]
        with self._seeded(number), self._fp32_math():
            for step, index in enumerate(batches):
                losses[step], statistics = self.step(index, epoch)
                sums += statistics
                if (step + 1) % every == 0 or step + 1 == len(losses):
                    self._check_finite(losses[: step + 1], first, epoch)
                bar.update()
        train_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        # BatchNorm's running statistics are the only state that the processes' shares make differ.
        processes.average([buffer for buffer in self.model.buffers() if buffer.is_floating_point()])
        with autocast(self.precision, self.device, cache=self.config.is_text), self._fp32_math():
            metrics = self.task.evaluate()
        bar.set_postfix(epoch=epoch, **{k: f"{v:.2f}" for k, v in metrics.items()}, refresh=False)
        examples = sum(map(len, batches))
        entropy, largest = (sums / examples).tolist()
        return {
            "kind": "epoch",
            "epoch": epochs_done(number + 1, self.config.evals_per_epoch),
            "train_loss": losses.mean().item(),
            **metrics,
            "learning_rate": learning_rate,
            "train_seconds": train_seconds,
            "eval_seconds": time.perf_counter() - begin,
            f"{self.task.unit}_per_second": examples * self.config.num_views / train_seconds,
            "weight_entropy": entropy,
            "weight_max": largest,
        }

    @contextlib.contextmanager
    def _seeded(self, number: int) -> Iterator[None]:
        """Dropout masks that depend on seed, interval and process alone, so that a resumed run draws them again."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.config.seed * 1_000_003 + number + 1 + (processes.rank() << 40))
            yield

    def _fp32_math(self) -> contextlib.AbstractContextManager[None]:
        """The precision fp32, on a GPU too."""
        return machine.ieee_fp32() if self.precision == "fp32" else contextlib.nullcontext()

    def _check_finite(self, losses: Tensor, first: int, epoch: int) -> None:
        bad = torch.nonzero(~torch.isfinite(losses)).flatten()
        if len(bad):
            step = first + int(bad[0]) + 1
            raise TrainingError(
                f"loss is {losses[bad[0]].item()} at step {step} (epoch {epoch}); config: {self.config.non_defaults()}"
            )

    def _test_outcome(self) -> Line:
        """Scores on a labelled test split; of one whose labels are not public the predictions are kept instead."""
        with autocast(self.precision, self.device, cache=self.config.is_text), self._fp32_math():
            scores, predictions = self.task.test()
        if predictions and processes.is_main():
            write_atomically(self.store.predictions_path(self.config), json.dumps(predictions))
        return scores

    def _costs(self) -> Line:
        smallest = min(processes.gathered(self.step.micro_batch))
        return {
            **engines([*self.engines_before, self.step.engine]),
            "train_seconds": sum(line["train_seconds"] for line in self.lines[1:]),
            "wall_seconds": self._wall_seconds(),
            "peak_memory_bytes": machine.peak_memory_bytes(self.device),
            # What memory forced the batch down to; null where all went as configured, as tables ask for.
            "micro_batch": smallest if smallest < self.step.planned else None,
        }

    def _wall_seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def _checkpoint(self) -> None:
        state = {
            "lines": self.lines,
            "model": self.model.state_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "scheduler": self.step.scheduler.state_dict(),
            "micro_batch": min(processes.gathered(self.step.micro_batch)),
            "wall_seconds": self._wall_seconds(),
            "engines": [*self.engines_before, self.step.engine],
        }
        processes.on_main(lambda: checkpoint.save(self.store.checkpoint_path(self.config), state))

    def _load_checkpoint(self) -> dict[str, Any] | None:
        path = self.store.checkpoint_path(self.config)
        if not processes.on_main(path.exists):
            return None
        return checkpoint.load(path)

    def _choose_precision(self, state: dict[str, Any] | None, device: Line) -> str:
        """The precision of the run; a resumed one keeps its own on the same device, whatever a probe says now."""
        before = state["lines"][0]["device"] if state else {}
        if before == device | {"precision": before.get("precision")}:
            return before["precision"]
        return resolve(self.config.precision, self.device)

    def _resume(self, state: dict[str, Any]) -> None:
        encoder.check_encoder(self.lines[0], state["lines"][0])
        self.lines = [resumed_header(self.lines[0], state["lines"][0]), *state["lines"][1:]]
        checkpoint.fill(self.model, state, self.store.checkpoint_path(self.config))
        self.step.optimizer.load_state_dict(state["optimizer"])
        self.step.scheduler.load_state_dict(state["scheduler"])
        self.step.micro_batch = min(self.step.micro_batch, state["micro_batch"])
        self.seconds_before = state["wall_seconds"]
        # Checkpoints of earlier versions do not say.
        self.engines_before = state.get("engines", [])

    def _forget(self) -> None:
        self.store.checkpoint_path(self.config).unlink(missing_ok=True)
