"""The one training loop: records, checkpoints, memory, precision."""

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmel.config import SCHEMA, RunConfig
from mmel.grids import teacher_of
from mmel.losses import LossTerms
from mmel.records import Line, RunWriter, Store, write_atomically
from mmel.train import machine
from mmel.train.encoded import EncodedVisionTask
from mmel.train.selection import with_choices
from mmel.train.text import TextTask
from mmel.train.vision import VisionTask

Task = VisionTask | TextTask


class TrainingError(Exception):
    """A run that cannot go on: its loss is not finite, or one original does not fit into memory."""


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
    appended to the record before it is yielded; every `checkpoint_every` epochs the state is saved, and a killed run
    resumes from there to the same result (bit for bit on a CPU). A run on text whose teacher is not trained yet trains
    it first.

    Args:
        config: the run.
        store: where records and checkpoints go.
        data_root: folder of the data sets; see `mmel.data.vision.load_images` and `mmel.data.glue.load_text`.
        device: `cpu`, `cuda`, `cuda:1`; None for MMEL_DEVICE, else the first GPU, else the CPU.
        checkpoint_every: epochs between checkpoints.
        stop_at: time (seconds since 1970) before which to stop, at the last checkpoint that comes before it; None for
            MMEL_STOP_AT, else never.
        wait: where another process trains this run, wait for it rather than refuse.

    Yields:
        A dictionary for each evaluation: `epoch` (epochs done, a fraction within an epoch), `train_loss` (mean since
        the line before), `accuracy_pct` or the task's own metrics, `learning_rate`, `train_seconds`, `eval_seconds`,
        `images_per_second` or `sequences_per_second` (augmented ones), `weight_entropy` (of P*, in nats, mean over
        examples) and `weight_max` (its largest weight, likewise).

    Raises:
        TrainingError: if the loss is not finite or memory does not suffice for one original; the record then says
            `failed`.
        BudgetError: if `stop_at` is too near for another epoch.
        ResultsError: if another process trains this run, and `wait` is false.
        DataError: if the data set is missing or damaged.
    """
    if stop_at is None and (named := os.environ.get("MMEL_STOP_AT")):
        stop_at = float(named)
    with store.claim(config, wait):
        record = store.read(config)
        if record is not None and record.finished:
            yield from record.epochs
            return
        chosen = machine.pick_device(device)
        _ensure_teacher(config, store, data_root, device, stop_at)
        yield from _Training(config, store, data_root, chosen).evaluations(checkpoint_every, stop_at)


def load_trained(
    config: RunConfig, store: Store, *, data_root: str | Path | None = None, device: str | None = None
) -> Task:
    """The task of a finished run with its trained network, for a look at what it learned.

    Raises:
        FileNotFoundError: if the weights are not in this results folder: records travel without them, and a sweep
            keeps those of images and of teachers alone.
    """
    path = store.weights_path(config)
    if not path.exists():
        raise FileNotFoundError(f"no weights of {config.run_id} in this results folder; train it here to have them")
    chosen = machine.pick_device(device)
    task = _build_task(config, store, data_root, chosen)
    task.model.load_state_dict(torch.load(path, map_location=chosen, weights_only=True))
    task.model.eval()
    return task


def _build_task(config: RunConfig, store: Store, data_root: str | Path | None, device: torch.device) -> Task:
    resolved = with_choices(config, store)
    if config.is_text:
        # The teacher of the run that was asked for: what it leaves to be chosen is chosen by other runs.
        return TextTask(resolved, teacher_of(config), store, data_root, device)
    task = EncodedVisionTask if config.is_encoded else VisionTask
    return task(resolved, data_root, device)


def _ensure_teacher(
    config: RunConfig, store: Store, data_root: str | Path | None, device: str | None, stop_at: float | None
) -> None:
    """Train the teacher of a run unless its record and its weights are here: records travel without weights.

    Where another process trains it, this one waits.
    """
    teacher = teacher_of(config)
    if teacher is None:
        return
    for _ in train(teacher, store, data_root=data_root, device=device, stop_at=stop_at, wait=True):
        pass
    with store.claim(teacher, wait=True), store.scratch() as scratch:
        if store.weights_path(teacher).exists():
            return
        resolved = with_choices(teacher, store)
        for _ in train(resolved, scratch, data_root=data_root, device=device, stop_at=stop_at):
            pass
        write_atomically(store.weights_path(teacher), scratch.weights_path(resolved).read_bytes())


class _Training:
    """The state of one run under way."""

    def __init__(self, config: RunConfig, store: Store, data_root: str | Path | None, device: torch.device):
        self.started = time.perf_counter()
        if device.type == "cpu":
            machine.keep_freed_memory()
        machine.reset_peak_memory(device)
        self.config, self.store, self.device = config, store, device
        self.task: Task = _build_task(config, store, data_root, device)
        if config.evals_per_epoch > self.task.steps:
            raise ValueError(
                f"evals_per_epoch must be at most the {self.task.steps} steps of an epoch, got {config.evals_per_epoch}"
            )
        self.model = self.task.model.train()
        self.optimizer = self.task.build_optimizer()
        self.scheduler = self.task.build_scheduler(self.optimizer, self.task.steps * config.total_epochs)
        self.buffers = list(self.model.buffers())
        self.micro_batch = config.micro_batch or config.batch_size
        self.lines: list[Line] = [self._header()]
        self.seconds_before = 0.0

    def evaluations(self, checkpoint_every: int, stop_at: float | None) -> Iterator[Line]:
        """The evaluations of a checkpoint, if there is one, then those that are left; see `train`."""
        self._resume()
        writer = RunWriter(self.store, self.config, self.lines)
        yield from self.lines[1:]
        parts = self.config.evals_per_epoch
        done, total = len(self.lines) - 1, self.config.total_epochs * parts
        try:
            with _progress(self.config, self._step_before(done), self._step_before(total)) as bar:
                self._try_largest_batch()
                for number in range(done, total):
                    line = self._train_and_evaluate(number, bar)
                    self.lines.append(line)
                    writer.append(line)
                    saved = (number + 1) % (checkpoint_every * parts) == 0 and number + 1 < total
                    if saved:
                        self._checkpoint()
                    yield line
                    if saved and stop_at is not None and time.time() + self._seconds_of(checkpoint_every) > stop_at:
                        raise BudgetError(f"{self.config.run_id} goes on from epoch {line['epoch']} another time")
            outcome = {"status": "finished", **self._outcome(), **self._test_outcome()}
        except TrainingError as error:
            writer.finish({"status": "failed", "error": str(error), **self._costs()})
            self._forget()
            raise
        self._save(self.store.weights_path(self.config), self.model.state_dict())
        writer.finish({**outcome, **self._costs()})
        self._forget()

    def _seconds_of(self, epochs: int) -> float:
        """What some more epochs will take, by the last ones."""
        last = self.lines[1:][-self.config.evals_per_epoch * epochs :]
        return sum(line["train_seconds"] + line["eval_seconds"] for line in last)

    def _step_before(self, number: int) -> int:
        """Steps before evaluation interval `number`, of which each epoch has `evals_per_epoch`."""
        epoch, part = divmod(number, self.config.evals_per_epoch)
        return epoch * self.task.steps + part * self.task.steps // self.config.evals_per_epoch

    def _try_largest_batch(self) -> None:
        """Put the batch that needs most memory through once, so that memory fails now or never."""
        index = self.task.largest_batch()
        if index is not None:
            saved = [buffer.clone() for buffer in self.buffers]
            with self._seeded(-1):
                self._fit(index, epoch=1)
            self.optimizer.zero_grad()
            # BatchNorm must not remember it: a resumed run would see it twice.
            for buffer, before in zip(self.buffers, saved, strict=True):
                buffer.copy_(before)

    def _train_and_evaluate(self, number: int, bar: tqdm) -> Line:
        first, last = self._step_before(number), self._step_before(number + 1)
        epoch = number // self.config.evals_per_epoch + 1
        learning_rate = self.optimizer.param_groups[0]["lr"]
        begin = time.perf_counter()
        losses = torch.zeros(last - first, device=self.device)
        sums = torch.zeros(2, device=self.device)
        # Reading a loss makes a GPU wait, so there it is looked at once an interval; the CPU is in step anyway.
        every = 1 if self.device.type == "cpu" else len(losses)
        before = (epoch - 1) * self.task.steps
        batches = self.task.order(epoch).split(self.config.batch_size)[first - before : last - before]
        with self._seeded(number):
            for step, index in enumerate(batches):
                losses[step] = self._step(index, epoch, sums)
                if (step + 1) % every == 0 or step + 1 == len(losses):
                    self._check_finite(losses[: step + 1], first, epoch)
                bar.update()
        train_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        with self._autocast():
            metrics = self.task.evaluate()
        bar.set_postfix(epoch=epoch, **{k: f"{v:.2f}" for k, v in metrics.items()}, refresh=False)
        examples = sum(map(len, batches))
        entropy, largest = (sums / examples).tolist()
        return {
            "kind": "epoch",
            "epoch": _epochs_done(number + 1, self.config.evals_per_epoch),
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
        """Dropout masks that depend on the seed and the interval alone, so that a resumed run draws them again."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.config.seed * 1_000_003 + number + 1)
            yield

    def _step(self, index: Tensor, epoch: int, sums: Tensor) -> Tensor:
        """One optimizer step on a batch of originals."""
        loss, statistics = self._fit(index, epoch)
        self.optimizer.step()
        self.scheduler.step()
        sums += statistics
        return loss

    def _fit(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Gradients of a batch, as `_forward_backward`; halves the micro-batch until it fits into memory."""
        saved = [buffer.clone() for buffer in self.buffers]
        while True:
            try:
                return self._forward_backward(index, epoch)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                message = str(error).splitlines()[0]
            # Outside the handler, so that the failed step's tensors are no longer held by its traceback.
            self._halve(message)
            for buffer, before in zip(self.buffers, saved, strict=True):
                buffer.copy_(before)

    def _forward_backward(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Gradients of the batch's mean loss, summed over micro-batches along N; a group of K is never split."""
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        statistics = torch.zeros(2, device=self.device)
        for part in index.split(self.micro_batch):
            with self._autocast():
                terms = self.task.terms(part, epoch)
            part_loss = terms.loss.sum() / len(index)
            part_loss.backward()
            loss += part_loss.detach()
            statistics += _weight_statistics(terms)
        return loss, statistics

    def _halve(self, message: str) -> None:
        if self.micro_batch == 1:
            raise TrainingError(f"one original with its {self.config.num_views} views does not fit: {message}")
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.micro_batch = (self.micro_batch + 1) // 2
        tqdm.write(
            f"{self.config.run_id}: out of memory; going on with {self.micro_batch} originals at a time. BatchNorm now "
            "sees smaller batches: the record is marked, and tables leave it out.",
            file=sys.stderr,
        )

    def _check_finite(self, losses: Tensor, first: int, epoch: int) -> None:
        bad = torch.nonzero(~torch.isfinite(losses)).flatten()
        if len(bad):
            step = first + int(bad[0]) + 1
            raise TrainingError(
                f"loss is {losses[bad[0]].item()} at step {step} (epoch {epoch}); config: {self.config.non_defaults()}"
            )

    def _autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _header(self) -> Line:
        return {
            "kind": "run",
            "schema": SCHEMA,
            "run_id": self.config.run_id,
            "config": self.config.to_dict(),
            # What was chosen by runs of its own; equal to the configuration where nothing was.
            **{name: getattr(self.task.config, name) for name in ("lambda_t", "hidden_dropout", "attention_dropout")},
            "metric": self.task.metric,
            "sizes": self.task.sizes,
            **self.task.provenance,
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "device": machine.describe_device(self.device),
            "versions": machine.versions(),
            **machine.code_version(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _outcome(self) -> Line:
        evaluations = self.lines[1:]
        best = max(evaluations, key=lambda line: line[self.task.metric])
        last = {name: value for name, value in evaluations[-1].items() if name.endswith("_pct")}
        return {**last, f"best_{self.task.metric}": best[self.task.metric], "best_epoch": best["epoch"]}

    def _test_outcome(self) -> Line:
        """Scores on a labelled test split; of one whose labels are not public the predictions are kept instead."""
        with self._autocast():
            scores, predictions = self.task.test()
        if predictions:
            write_atomically(self.store.predictions_path(self.config), json.dumps(predictions))
        return scores

    def _costs(self) -> Line:
        planned = self.config.micro_batch or self.config.batch_size
        return {
            "train_seconds": sum(line["train_seconds"] for line in self.lines[1:]),
            "wall_seconds": self._wall_seconds(),
            "peak_memory_bytes": machine.peak_memory_bytes(self.device),
            # What memory forced the batch down to; null where all went as configured, as tables ask for.
            "micro_batch": self.micro_batch if self.micro_batch < planned else None,
        }

    def _wall_seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def _checkpoint(self) -> None:
        state = {
            "lines": self.lines,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "micro_batch": self.micro_batch,
            "wall_seconds": self._wall_seconds(),
        }
        self._save(self.store.checkpoint_path(self.config), state)

    def _resume(self) -> None:
        path = self.store.checkpoint_path(self.config)
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        # The first process' header would claim that its device and commit made the whole run.
        resumed = [*state["lines"][0].get("resumed_from", []), _provenance(state["lines"][0])]
        self.lines = [self.lines[0] | {"resumed_from": resumed}, *state["lines"][1:]]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.micro_batch = min(self.micro_batch, state["micro_batch"])
        self.seconds_before = state["wall_seconds"]

    def _forget(self) -> None:
        self.store.checkpoint_path(self.config).unlink(missing_ok=True)

    @staticmethod
    def _save(path: Path, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(path, buffer.getvalue())


def _epochs_done(intervals: int, evals_per_epoch: int) -> int | float:
    """Whole epochs as an integer, as the records of runs with one evaluation an epoch have them."""
    whole, part = divmod(intervals, evals_per_epoch)
    return whole + round(part / evals_per_epoch, 4) if part else whole


def _weight_statistics(terms: LossTerms) -> Tensor:
    """Sums over the examples of P*'s entropy in nats and of its largest weight."""
    entropy = torch.special.entr(terms.weights).sum()
    return torch.stack([entropy, terms.weights.amax(dim=1).sum()])


def _provenance(header: Line) -> Line:
    return {key: header[key] for key in ("device", "versions", "commit", "dirty", "started")}


def _is_out_of_memory(error: RuntimeError) -> bool:
    # A CPU that runs out raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _progress(config: RunConfig, done: int, total: int) -> tqdm:
    """A bar over steps with ETA; where nobody watches, one line every half minute (a notebook keeps each one)."""
    watched = sys.stderr.isatty() or ("ipykernel" in sys.modules and "MMEL_HEADLESS" not in os.environ)
    return tqdm(
        desc=config.run_id,
        initial=done,
        total=total,
        unit="step",
        mininterval=0.5 if watched else 30,
        file=sys.stderr,
    )
