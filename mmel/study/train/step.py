"""The optimizer steps of one run: micro-batches, precision, CUDA graph, several processes."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmel.study.records import Line
from mmel.study.train import graph, processes
from mmel.study.train.precision import autocast, math_of
from mmel.study.train.task import Task


class TrainingError(Exception):
    """A run that cannot be trained: its batch does not fit into memory, or its loss is not finite."""


class DivergedError(TrainingError):
    """A loss that is not finite: the same run would diverge again."""


class Step:
    """Takes the optimizer steps of one run on a device."""

    def __init__(self, task: Task, device: torch.device):
        self.task, self.config, self.device = task, task.config, device
        self.optimizer = task.build_optimizer()
        self.scheduler = task.build_scheduler(self.optimizer, task.steps * self.config.total_epochs)
        why_eager = (
            graph.reason_for_eager(device)
            or ("micro-batches" if self.config.micro_batch else task.why_eager)
            or ("drawing views waits for the device" if self.config.backward == "sampled" else None)
        )
        self._update = graph.Captured(self._update_once, device, why_eager, self._state)

    @property
    def parts(self) -> dict[str, Any]:
        """The parts of a checkpoint, by name."""
        return {**self.task.parts, "optimizer": self.optimizer, "scheduler": self.scheduler}

    @property
    def engine(self) -> Line:
        """How the steps were taken, for the record: `engine`, `cuda graph` or `eager`, and `why_eager`."""
        why = self._update.why_eager
        return {"engine": "cuda graph" if why is None else "eager", "why_eager": why}

    def before(self, number: int) -> int:
        """Steps before evaluation interval `number`: a part of an epoch, one, or several."""
        epoch, part = divmod(number * self.config.epochs_per_eval, self.config.evals_per_epoch)
        return epoch * self.task.steps + part * self.task.steps // self.config.evals_per_epoch

    def interval(self, number: int, bar: tqdm) -> Line:
        """Take the steps of evaluation interval `number`; returns their part of the record's line.

        Raises:
            TrainingError: if a loss is not finite, or a batch does not fit into memory.
        """
        config, task = self.config, self.task
        first, last = self.before(number), self.before(number + 1)
        learning_rate = self.optimizer.param_groups[0]["lr"]
        begin = time.perf_counter()
        losses, sums = torch.zeros(last - first, device=self.device), torch.zeros(3, device=self.device)
        # Evaluating, and asking a teacher, ends in evaluation mode.
        task.model.train()
        examples = 0
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []), math_of(config.precision):
            # Dropout masks depend on seed, interval and process alone, so that a resumed run draws them again.
            torch.manual_seed(config.seed * 1_000_003 + number + 1 + (processes.rank() << 40))
            for step, (epoch, index) in enumerate(self._batches(first, last)):
                losses[step], statistics = self(index, epoch)
                sums += statistics
                examples += len(index)
                # Reading a loss makes a GPU wait, so there all are read at the end.
                if self.device.type == "cpu" or step + 1 == len(losses):
                    self._check_finite(losses[: step + 1], first, epoch)
                bar.update()
        seconds = time.perf_counter() - begin
        # BatchNorm's running statistics are the only state in which the processes differ.
        differing = [buffer for buffer in task.model.buffers() if buffer.is_floating_point()]
        processes.add_up(differing)
        for buffer in differing:
            buffer.div_(processes.count())
        entropy, largest, effective = (sums / examples).tolist()
        return {
            "train_loss": losses.mean().item(),
            "learning_rate": learning_rate,
            "train_seconds": seconds,
            f"{task.unit}_per_second": examples * config.num_views / seconds,
            "weight_entropy": entropy,
            "weight_max": largest,
            "effective_views": effective,
        }

    def _batches(self, first: int, last: int) -> Iterator[tuple[int, Tensor]]:
        """Epoch and indices of the originals of the steps from `first` to before `last`."""
        steps = self.task.steps
        for epoch in range(first // steps, -(-last // steps)):
            batches = self.task.order(epoch + 1).split(self.config.batch_size)[:steps]
            for index in batches[max(first - epoch * steps, 0) : last - epoch * steps]:
                yield epoch + 1, index

    def __call__(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Take one step.

        Args:
            index: (N,) indices of the originals, as the task's `order` has them; several processes share them.
            epoch: the epoch, from 1.

        Returns:
            The batch's mean loss, and (3,) sums over its examples: P*'s entropy in nats, its largest weight, and its
            effective number of views, 1 / sum(P*^2).

        Raises:
            TrainingError: if the batch does not fit into memory.
        """
        try:
            outputs = self._update(index, epoch, self.optimizer.param_groups[0]["lr"])
        except RuntimeError as error:
            # A CPU that runs out raises a plain RuntimeError.
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            share = len(processes.share(index))
            size = min(self.config.micro_batch or share, share)
            smaller = f"set micro_batch to {size // 2} or less (it is part of the run's name)"
            raise TrainingError(
                f"{self.config.run_id}: {size} originals with {self.config.num_views} views each do not fit into "
                f"memory; {smaller if size > 1 else 'use a smaller K'}: {str(error).splitlines()[0]}"
            ) from error
        self.scheduler.step()
        return outputs

    def _update_once(self, index: Tensor, epoch: int | Tensor, lr: float | Tensor) -> tuple[Tensor, Tensor]:
        """Gradients and an optimizer step; on one GPU this is what a CUDA graph captures."""
        self.optimizer.zero_grad()
        loss, statistics = torch.zeros((), device=self.device), torch.zeros(3, device=self.device)
        own = processes.share(index)
        # A group of K is never split.
        for part in own.split(self.config.micro_batch or len(own)):
            with autocast(self.config.precision, self.device, cache=self.config.is_text):
                terms = self.task.terms(part, epoch)
            part_loss = terms.loss.sum() / len(index)
            part_loss.backward()
            loss += part_loss.detach()
            weights = terms.weights
            of_examples = (torch.special.entr(weights).sum(dim=1), weights.amax(dim=1), 1 / weights.square().sum(dim=1))
            statistics += torch.stack([values.sum() for values in of_examples])
        processes.add_up([*(p.grad for p in self.task.model.parameters() if p.grad is not None), loss, statistics])
        (group,) = self.optimizer.param_groups
        planned, group["lr"] = group["lr"], lr
        try:
            self.optimizer.step()
        finally:
            # The schedule and checkpoints know the rate as a number, whatever the graph reads it from.
            group["lr"] = planned
        return loss, statistics

    def _state(self) -> Iterator[Tensor]:
        yield from self.task.model.parameters()
        yield from self.task.model.buffers()
        for state in self.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def _check_finite(self, losses: Tensor, first: int, epoch: int) -> None:
        bad = torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
        if bad:
            raise DivergedError(
                f"loss is {losses[bad[0]].item()} at step {first + bad[0] + 1} (epoch {epoch}); "
                f"config: {self.config.non_defaults()}"
            )
