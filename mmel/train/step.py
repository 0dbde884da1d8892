"""One optimizer step on a batch of originals: micro-batches, memory, precision, CUDA graph, several processes."""

import sys
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from mmel.config import RunConfig
from mmel.losses import LossTerms
from mmel.records import Line
from mmel.train import processes
from mmel.train.graph import Captured
from mmel.train.precision import autocast
from mmel.train.text import TextTask
from mmel.train.vision import VisionTask

Task = VisionTask | TextTask


class TrainingError(Exception):
    """A run that cannot go on: its loss is not finite, or one original does not fit into memory."""


def why_eager(task: Task, config: RunConfig, device: torch.device) -> str | None:
    """Why a run's steps cannot be one CUDA graph; None if they can."""
    if device.type != "cuda":
        return "no CUDA device"
    if processes.count() > 1:
        return "several processes"
    if 0 < config.micro_batch < config.batch_size:
        return "micro-batches"
    return task.why_eager


class Step:
    """Takes the optimizer steps of one run.

    Args:
        task: network, data and loss.
        config: the run.
        device: where it trains.

    Attributes:
        optimizer: of the network.
        scheduler: of the learning rate, stepped after each step.
        planned: originals that go through the network at once, if memory allows.
        micro_batch: those that do.
    """

    def __init__(self, task: Task, config: RunConfig, device: torch.device):
        self.task, self.config, self.device = task, config, device
        self.optimizer = task.build_optimizer()
        self.scheduler = task.build_scheduler(self.optimizer, task.steps * config.total_epochs)
        # Of several processes each has its share of a batch.
        self.planned = config.micro_batch or -(-config.batch_size // processes.count())
        self.micro_batch = self.planned
        self._buffers = list(task.model.buffers())
        self._trained: list[Tensor] = []
        self._why_eager = why_eager(task, config, device)
        self._update = self._update_eagerly
        if self._why_eager is None:
            self._update = Captured(self._update_unguarded, device, self._update_eagerly, self._state)
            task.capture_evaluation()

    @property
    def engine(self) -> Line:
        """How the steps were taken, for the record: `engine`, `cuda graph` or `eager`, and `why_eager`.

        Where only the evaluation is eager, `engine` is the steps' and `why_eager` says so.
        """
        why = self._why_eager
        if isinstance(self._update, Captured) and self._update.failure is not None:
            why = f"capture failed: {self._update.failure}"
        engine = "cuda graph" if why is None else "eager"
        if self.task.eval_failure is not None:
            failed = f"evaluation: capture failed: {self.task.eval_failure}"
            why = failed if why is None else f"{why}; {failed}"
        return {"engine": engine, "why_eager": why}

    def __call__(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Take one step.

        Args:
            index: (N,) places of the originals, as the task's `order` has them; of several processes each is given the
                whole batch, and takes its share.
            epoch: the epoch, from 1.

        Returns:
            The batch's mean loss, and the sums over its examples of P*'s entropy in nats and of its largest weight.

        Raises:
            TrainingError: if one original does not fit into memory.
        """
        outputs = self._update(index, epoch, self.optimizer.param_groups[0]["lr"])
        self.scheduler.step()
        return outputs

    def _update_eagerly(self, index: Tensor, epoch: int, lr: float) -> tuple[Tensor, Tensor]:
        outputs = self.gradients(index, epoch)
        self._step_optimizer(lr)
        return outputs

    def _update_unguarded(self, index: Tensor, epoch: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """What a graph captures: whoever runs out of memory here goes on eagerly, and only there in smaller parts."""
        outputs = self._forward_backward(index, epoch, len(index))
        self._step_optimizer(lr)
        return outputs

    def _step_optimizer(self, lr: float | Tensor) -> None:
        (group,) = self.optimizer.param_groups
        planned, group["lr"] = group["lr"], lr
        try:
            self.optimizer.step()
        finally:
            # The schedule and checkpoints know the rate as a number, whatever the graph reads it from.
            group["lr"] = planned

    def _state(self) -> Iterator[Tensor]:
        yield from self.task.model.parameters()
        yield from self._buffers
        for state in self.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def try_out(self, index: Tensor) -> None:
        """Put a batch through as a step does, so that memory fails now or never; changes nothing but the micro-batch.

        The optimizer's state, which the first step of a run makes, is there meanwhile.
        """
        saved = [buffer.clone() for buffer in self._buffers]
        is_first = not self.optimizer.state
        if is_first:
            for parameter in self.task.model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            self._step_optimizer(0.0)
        self.gradients(index, epoch=1)
        self.optimizer.zero_grad()
        if is_first:
            self.optimizer.state.clear()
        # BatchNorm must not remember it: a resumed run would see it twice.
        for buffer, before in zip(self._buffers, saved, strict=True):
            buffer.copy_(before)

    def gradients(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Gradients of a batch's mean loss, returning as a step does; halves the micro-batch until it fits.

        Before each halving the same is tried once more.
        """
        saved = [buffer.clone() for buffer in self._buffers]
        mine, tried = processes.share(index), 0
        while True:
            try:
                loss, statistics = self._forward_backward(mine, epoch, len(index))
                break
            except RuntimeError as error:
                # Synchronized BatchNorm waits for the other processes in every forward: none can go its own way.
                if not _is_out_of_memory(error) or (self.config.sync_batch_norm and processes.count() > 1):
                    raise
                message = str(error).splitlines()[0]
            # Outside the handler, so that the failed step's tensors are no longer held by its traceback.
            self.optimizer.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            tried += 1
            # Another process may have had the memory for a moment.
            if tried == 2:
                self._halve(message)
                tried = 0
            for buffer, before in zip(self._buffers, saved, strict=True):
                buffer.copy_(before)
        # After the backward, not within it: a process that has to split its share does so while the others wait.
        if processes.count() > 1:
            self._add_up(loss, statistics)
        return loss, statistics

    def _add_up(self, loss: Tensor, statistics: Tensor) -> None:
        """Gradients, loss and statistics of the batch from those of the shares, which are already divided by its N."""
        if trained := [p for p in self.task.model.parameters() if p.grad is not None]:
            self._trained = trained
        # A short last batch may leave this process without a share.
        for parameter in self._trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        processes.add_up([*(p.grad for p in self._trained), loss, statistics])

    def _forward_backward(self, index: Tensor, epoch: int | Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Gradients of a share of a batch of `total`, summed over micro-batches; a group of K is never split."""
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        statistics = torch.zeros(2, device=self.device)
        for part in index.split(self.micro_batch) if len(index) else ():
            with autocast(self.task.config.precision, self.device, cache=self.config.is_text):
                terms = self.task.terms(part, epoch)
            part_loss = terms.loss.sum() / total
            part_loss.backward()
            loss += part_loss.detach()
            statistics += _weight_statistics(terms)
        return loss, statistics

    def _halve(self, message: str) -> None:
        if self.micro_batch == 1:
            # Where others wait for this process' gradients, they end when its launcher sees it die.
            error = TrainingError if processes.count() == 1 else torch.OutOfMemoryError
            raise error(f"one original with its {self.config.num_views} views does not fit: {message}")
        self.micro_batch = (self.micro_batch + 1) // 2
        # The graph, if there was one, is of the whole batch; letting go of it frees its memory.
        self._why_eager, self._update = self._why_eager or "out of memory", self._update_eagerly
        tqdm.write(
            f"{self.config.run_id}: out of memory; going on with {self.micro_batch} originals at a time. BatchNorm now "
            "sees smaller batches: the record is marked, and tables leave it out. If other processes have the device's "
            "memory (a sweep's other runs, --pack), train it anew with fewer of them.",
            file=sys.stderr,
        )


def _weight_statistics(terms: LossTerms) -> Tensor:
    """Sums over the examples of P*'s entropy in nats and of its largest weight."""
    entropy = torch.special.entr(terms.weights).sum()
    return torch.stack([entropy, terms.weights.amax(dim=1).sum()])


def _is_out_of_memory(error: RuntimeError) -> bool:
    # A CPU that runs out raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
