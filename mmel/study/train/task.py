"""The contract between the training loop and the two kinds of data."""

from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mmel.losses import LossTerms
from mmel.study.config import Run


class Task(Protocol):
    """Data, network and loss of one run.

    Attributes:
        config: the run, with nothing left to be chosen; its precision is `bf16` or `fp32`.
        model: the network.
        steps: steps of an epoch.
        sizes: data set sizes, for the record.
        metric: score by which the run is judged, in percent.
        unit: `images` or `sequences`, for the record.
        provenance: for the record, all else that decides the result.
        why_eager: why a step cannot be a CUDA graph; None if it can.
    """

    config: Run
    model: nn.Module
    steps: int
    sizes: dict[str, Any]
    metric: str
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
