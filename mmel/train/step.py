"""One optimizer step on a batch of originals: micro-batches, memory, precision."""

import contextlib
import sys

import torch
from torch import Tensor
from tqdm import tqdm

from mmel.config import RunConfig
from mmel.losses import LossTerms
from mmel.train.text import TextTask
from mmel.train.vision import VisionTask

Task = VisionTask | TextTask


class TrainingError(Exception):
    """A run that cannot go on: its loss is not finite, or one original does not fit into memory."""


def autocast(config: RunConfig, device: torch.device) -> contextlib.AbstractContextManager:
    """The precision that a run's forwards have."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


class Step:
    """Takes the optimizer steps of one run.

    Args:
        task: network, data and loss.
        config: the run.
        device: where it trains.

    Attributes:
        optimizer: of the network.
        scheduler: of the learning rate, stepped after each step.
        micro_batch: originals that go through the network at once.
    """

    def __init__(self, task: Task, config: RunConfig, device: torch.device):
        self.task, self.config, self.device = task, config, device
        self.optimizer = task.build_optimizer()
        self.scheduler = task.build_scheduler(self.optimizer, task.steps * config.total_epochs)
        self.micro_batch = config.micro_batch or config.batch_size
        self._buffers = list(task.model.buffers())

    def __call__(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Take one step.

        Args:
            index: (N,) places of the originals, as the task's `order` has them.
            epoch: the epoch, from 1.

        Returns:
            The batch's mean loss, and the sums over its examples of P*'s entropy in nats and of its largest weight.

        Raises:
            TrainingError: if one original does not fit into memory.
        """
        loss, statistics = self.gradients(index, epoch)
        self.optimizer.step()
        self.scheduler.step()
        return loss, statistics

    def gradients(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Gradients of a batch's mean loss, returning as a step does; halves the micro-batch until it fits."""
        saved = [buffer.clone() for buffer in self._buffers]
        while True:
            try:
                return self._forward_backward(index, epoch)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                message = str(error).splitlines()[0]
            # Outside the handler, so that the failed step's tensors are no longer held by its traceback.
            self._halve(message)
            for buffer, before in zip(self._buffers, saved, strict=True):
                buffer.copy_(before)

    def _forward_backward(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Gradients of the batch's mean loss, summed over micro-batches along N; a group of K is never split."""
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        statistics = torch.zeros(2, device=self.device)
        for part in index.split(self.micro_batch):
            with autocast(self.config, self.device):
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


def _weight_statistics(terms: LossTerms) -> Tensor:
    """Sums over the examples of P*'s entropy in nats and of its largest weight."""
    entropy = torch.special.entr(terms.weights).sum()
    return torch.stack([entropy, terms.weights.amax(dim=1).sum()])


def _is_out_of_memory(error: RuntimeError) -> bool:
    # A CPU that runs out raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
