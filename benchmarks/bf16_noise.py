"""Does bf16 change the training loss by more than another order of the data does? ResNet-20, K = 4, batch 32.

Yes or no as docs/decisions.md has it: the mean loss over the first steps differs from float32's by less than the
spread (largest minus smallest) of three float32 runs with other data orders. Initial weights and views are the same.
"""

import statistics
import tempfile
from collections.abc import Iterator
from itertools import islice
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.common import Side, eager_lines, has_cifar10, table
from mmel.config import RunConfig
from mmel.records import Store
from mmel.train import loop, train
from mmel.train.vision import VisionTask


def mean_loss(precision: str, order: int, steps: int, device: str, seed: int, eager: bool) -> Iterator[float]:
    """The mean training loss over the first `steps` steps in the order of that number."""
    config = RunConfig(
        num_augmented=4, batch_size=32, holdout=10, precision=precision, seed=seed, epochs=1, decay_epochs=()
    )
    if not has_cifar10():
        # An epoch of the digits has fewer steps than are wanted; five shortened ones make up for it.
        config = config.replace(dataset="digits", augment="crop", epochs=5)

    class FirstSteps(VisionTask):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.steps = steps // config.epochs

        def order(self, epoch: int) -> Tensor:
            # The order is drawn from seed and epoch; a seed of its own would change the weights too.
            return super().order(epoch + 1000 * order)

    if eager:
        lines = islice(eager_lines(FirstSteps(config, None, torch.device(device))), config.epochs)
        yield statistics.mean(line["train_loss"] for line in lines)
        return
    with tempfile.TemporaryDirectory() as folder, patch.object(loop, "VisionTask", FirstSteps):
        yield statistics.mean(line["train_loss"] for line in train(config, Store(folder), device=device))


def measure(steps: int = 100, device: str = "cpu", seed: int = 0, eager_fp32: bool = False) -> str:
    """One bf16 run and one float32 run in the same order, three float32 runs in others.

    Args:
        steps: of each run.
        device: where they train.
        seed: of initial weights, orders and views.
        eager_fp32: whether the float32 runs are a plain loop's, not those of `mmel.train`.
    """
    losses = []
    for precision, order in (("bf16", 0), ("fp32", 0), ("fp32", 1), ("fp32", 2), ("fp32", 3)):
        eager = eager_fp32 and precision == "fp32"
        with Side(mean_loss, precision, order, steps, device, seed, eager) as run:
            losses.append((precision, order, run()))
    difference = abs(losses[0][2] - losses[1][2])
    others = [loss for _, _, loss in losses[2:]]
    spread = max(others) - min(others)
    rows = [(precision, order, f"{loss:.4f}") for precision, order, loss in losses]
    return (
        table(("precision", "data order", f"mean loss of {steps} steps"), *rows)
        + f"\n\nbf16 minus float32: {difference:.4f}; spread of the other orders: {spread:.4f}. "
        f"Within bf16 noise: {'yes' if difference < spread else 'no'}."
    )
