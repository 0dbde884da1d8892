"""The one training loop: records, checkpoints, memory, precision."""

import contextlib
import io
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
from mmel.losses import LossTerms
from mmel.records import Line, RunWriter, Store, write_atomically
from mmel.train import machine
from mmel.train.selection import effective_lambda_t
from mmel.train.vision import VisionTask


class TrainingError(Exception):
    """A run that cannot go on: its loss is not finite, or one original does not fit into memory."""


def train(
    config: RunConfig,
    store: Store,
    *,
    data_root: str | Path | None = None,
    device: str | None = None,
    checkpoint_every: int = 1,
) -> Iterator[Line]:
    """Train one run, or go on with it where an earlier process stopped, and yield a record for each of its epochs.

    A run that is already recorded as finished yields its recorded epochs and trains nothing; a resumed one yields
    those of its checkpoint first. Every epoch is appended
    to the record before it is yielded; every `checkpoint_every` epochs the state is saved, and a killed run resumes
    from there to the same result (bit for bit on a CPU).

    Args:
        config: the run.
        store: where records and checkpoints go.
        data_root: folder of the data sets; see `mmel.data.vision.load_images`.
        device: `cpu`, `cuda`, `cuda:1`; None for MMEL_DEVICE, else the first GPU, else the CPU.
        checkpoint_every: epochs between checkpoints.

    Yields:
        A dictionary for each epoch: `epoch` (from 1), `train_loss`, `accuracy_pct`, `learning_rate`, `train_seconds`,
        `eval_seconds`, `images_per_second` (augmented images), `weight_entropy` (of P*, in nats, mean over examples)
        and `weight_max` (its largest weight, likewise).

    Raises:
        TrainingError: if the loss is not finite or memory does not suffice for one original; the record then says
            `failed`.
        ResultsError: if another process trains this run.
        DataError: if the data set is missing or damaged.
    """
    with store.claim(config):
        record = store.read(config)
        if record is not None and record.finished:
            yield from record.epochs
            return
        yield from _Training(config, store, data_root, machine.pick_device(device)).epochs(checkpoint_every)


def load_trained(
    config: RunConfig, store: Store, *, data_root: str | Path | None = None, device: str | None = None
) -> VisionTask:
    """The task of a finished run with its trained network, for a look at what it learned.

    Raises:
        FileNotFoundError: if the weights are not in this results folder (records travel without them).
    """
    path = store.weights_path(config)
    if not path.exists():
        raise FileNotFoundError(f"no weights of {config.run_id} in this results folder; train it here to have them")
    chosen = machine.pick_device(device)
    task = VisionTask(config, data_root, chosen, effective_lambda_t(config, store))
    task.model.load_state_dict(torch.load(path, map_location=chosen, weights_only=True))
    task.model.eval()
    return task


class _Training:
    """The state of one run under way."""

    def __init__(self, config: RunConfig, store: Store, data_root: str | Path | None, device: torch.device):
        self.started = time.perf_counter()
        if device.type == "cpu":
            machine.keep_freed_memory()
        machine.reset_peak_memory(device)
        lambda_t = effective_lambda_t(config, store)
        self.config, self.store, self.device = config, store, device
        self.task = VisionTask(config, data_root, device, lambda_t)
        self.model = self.task.model.train()
        # Bytes are moved for every parameter once a step; on a GPU one fused kernel does it.
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=device.type == "cuda",
        )
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer, list(config.total_decay_epochs), config.lr_decay
        )
        self.buffers = list(self.model.buffers())
        self.micro_batch = config.micro_batch or config.batch_size
        self.lines: list[Line] = [self._header(lambda_t)]
        self.seconds_before = 0.0

    def epochs(self, checkpoint_every: int) -> Iterator[Line]:
        """The epochs of a checkpoint, if there is one, then those that are left; see `train`."""
        self._resume()
        writer = RunWriter(self.store, self.config, self.lines)
        yield from self.lines[1:]
        done, total = len(self.lines) - 1, self.config.total_epochs
        try:
            with _progress(self.config, done * self.task.steps, total * self.task.steps) as bar:
                for epoch in range(done + 1, total + 1):
                    line = self._epoch(epoch, bar)
                    self.lines.append(line)
                    writer.append(line)
                    if epoch % checkpoint_every == 0 and epoch < total:
                        self._checkpoint()
                    yield line
        except TrainingError as error:
            writer.finish({"status": "failed", "error": str(error), **self._costs()})
            self._forget()
            raise
        self._save(self.store.weights_path(self.config), self.model.state_dict())
        writer.finish({"status": "finished", **self._outcome(), **self._costs()})
        self._forget()

    def _epoch(self, epoch: int, bar: tqdm) -> Line:
        learning_rate = self.optimizer.param_groups[0]["lr"]
        begin = time.perf_counter()
        losses = torch.zeros(self.task.steps, device=self.device)
        sums = torch.zeros(2, device=self.device)
        # Reading a loss makes a GPU wait, so there it is looked at once an epoch; the CPU is in step anyway.
        every = 1 if self.device.type == "cpu" else self.task.steps
        order = self.task.order(epoch).split(self.config.batch_size)
        for step, index in enumerate(order[: self.task.steps]):
            losses[step] = self._step(index, epoch, sums)
            if (step + 1) % every == 0 or step + 1 == self.task.steps:
                self._check_finite(losses[: step + 1], epoch)
            bar.update()
        self.scheduler.step()
        train_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        with self._autocast():
            metrics = self.task.evaluate()
        bar.set_postfix(epoch=epoch, **{k: f"{v:.2f}" for k, v in metrics.items()}, refresh=False)
        examples = min(self.task.steps * self.config.batch_size, self.task.sizes["train"])
        entropy, largest = (sums / examples).tolist()
        return {
            "kind": "epoch",
            "epoch": epoch,
            "train_loss": losses.mean().item(),
            **metrics,
            "learning_rate": learning_rate,
            "train_seconds": train_seconds,
            "eval_seconds": time.perf_counter() - begin,
            "images_per_second": examples * self.config.num_views / train_seconds,
            "weight_entropy": entropy,
            "weight_max": largest,
        }

    def _step(self, index: Tensor, epoch: int, sums: Tensor) -> Tensor:
        """One optimizer step on a batch of originals; halves the micro-batch until it fits."""
        saved = [buffer.clone() for buffer in self.buffers]
        while True:
            try:
                loss, statistics = self._forward_backward(index, epoch)
                break
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                message = str(error).splitlines()[0]
            # Outside the handler, so that the failed step's tensors are no longer held by its traceback.
            self._halve(message)
            for buffer, before in zip(self.buffers, saved, strict=True):
                buffer.copy_(before)
        self.optimizer.step()
        sums += statistics
        return loss

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

    def _check_finite(self, losses: Tensor, epoch: int) -> None:
        bad = torch.nonzero(~torch.isfinite(losses)).flatten()
        if len(bad):
            step = (epoch - 1) * self.task.steps + int(bad[0]) + 1
            raise TrainingError(
                f"loss is {losses[bad[0]].item()} at step {step} (epoch {epoch}); config: {self.config.non_defaults()}"
            )

    def _autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _header(self, lambda_t: float) -> Line:
        return {
            "kind": "run",
            "schema": SCHEMA,
            "run_id": self.config.run_id,
            "config": self.config.to_dict(),
            "lambda_t": lambda_t,
            "sizes": self.task.sizes,
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "device": machine.describe_device(self.device),
            "versions": machine.versions(),
            **machine.code_version(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _outcome(self) -> Line:
        epochs = self.lines[1:]
        best = max(epochs, key=lambda line: line["accuracy_pct"])
        return {
            "accuracy_pct": epochs[-1]["accuracy_pct"],
            "best_accuracy_pct": best["accuracy_pct"],
            "best_epoch": best["epoch"],
        }

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
