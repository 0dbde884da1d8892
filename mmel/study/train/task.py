"""Data, network and loss of a run: the contract between the training loop and the two kinds of data."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mmel.losses import LossTerms
from mmel.study.config import Run, TextRun
from mmel.study.needs import teacher_of, with_choices
from mmel.study.records import Store
from mmel.study.train import checkpoint, machine
from mmel.study.train.images import ImageTask
from mmel.study.train.precision import resolve
from mmel.study.train.texts import TextTask


class Task(Protocol):
    """Data, network and loss of one run.

    Attributes:
        config: the run, with nothing left to be chosen; its precision is `bf16` or `fp32`.
        model: the network.
        steps: steps of an epoch.
        sizes: data set sizes, for the record.
        unit: `images` or `sequences`, for the record.
        provenance: for the record, all else that decides the result.
        why_eager: why a step cannot be a CUDA graph; None if it can.
    """

    config: Run
    model: nn.Module
    steps: int
    sizes: dict[str, Any]
    unit: str
    provenance: dict[str, Any]
    why_eager: str | None

    def build_optimizer(self) -> Optimizer:
        """The optimizer, with one group of parameters."""

    def build_scheduler(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """The schedule of the learning rate, stepped after each of `total_steps` steps."""

    def order(self, epoch: int) -> Tensor:
        """Indices of the training examples in the order of an epoch (from 1)."""

    def terms(self, index: Tensor, epoch: int | Tensor) -> LossTerms:
        """One joint forward over all views of some examples, and the loss of it."""

    def evaluate(self) -> dict[str, float]:
        """Scores on the dev or test split, in percent."""

    def test(self) -> tuple[dict[str, Any], dict[str, list]]:
        """More fields for the record's result, and predictions on splits without public labels."""

    def most_uneven(self) -> dict[str, Any]:
        """The example on whose views the present network has the most unequal weights P*, for its notebook."""


def build_task(config: Run, store: Store, data_root: str | Path | None, device: torch.device, precision: str) -> Task:
    """The task of a run, with the choices of other runs in their place.

    Args:
        config: the run.
        store: the recorded runs that choose for it, and the cache of augmented texts.
        data_root: folder of the data sets.
        device: where to train.
        precision: `bf16`, `fp32` or `auto`.

    Raises:
        ResultsError: if a run that it needs is not recorded.
        DataError: if the data set is missing or damaged.
    """
    resolved = with_choices(config, store).replace(precision=resolve(precision, device))
    if isinstance(resolved, TextRun):
        # The teacher of the run that was asked for: its unresolved fields are chosen by other runs.
        return TextTask(resolved, teacher_of(config), store, data_root, device)
    return ImageTask(resolved, data_root, device)


def load_trained(config: Run, store: Store, *, data_root: str | Path | None = None, device: str | None = None) -> Task:
    """The task of a finished run with its trained network, ready to predict.

    Raises:
        FileNotFoundError: if the weights are not in this results folder: records travel without them, and a sweep
            keeps those of small networks and of teachers alone.
        ResultsError: if they cannot be used.
    """
    task = build_task(config, store, data_root, machine.pick_device(device), config.precision)
    checkpoint.load(store.weights_path(config), model=task.model)
    task.model.eval()
    return task
