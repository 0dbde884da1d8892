"""Is the training loss in bf16 that of the plain loop in float32, but for noise? ResNet-20, K = 4, batch 32.

The plain loop launches each operation by itself, in float32 (on a GPU without TF32), from the same initial weights, on
the same views in the same order. Yes or no as docs/decisions.md has it: the mean loss over the first steps differs by
less than the spread (largest minus smallest) of three float32 runs with other data orders.
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

# Precision, and the number of the data order: `mmel.train` in bf16, then the plain loop in float32.
RUNS = (("bf16", 0), ("fp32", 0), ("fp32", 1), ("fp32", 2), ("fp32", 3))


def mean_losses(steps: int, device: str, seed: int) -> Iterator[float]:
    """The mean training loss over the first `steps` steps of each of `RUNS`."""
    for precision, order in RUNS:
        yield _mean_loss(precision, order, steps, device, seed)


def _mean_loss(precision: str, order: int, steps: int, device: str, seed: int) -> float:
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

    if precision == "fp32":
        lines = islice(eager_lines(FirstSteps(config, None, torch.device(device))), config.epochs)
        return statistics.mean(line["train_loss"] for line in lines)
    with tempfile.TemporaryDirectory() as folder, patch.object(loop, "VisionTask", FirstSteps):
        return statistics.mean(line["train_loss"] for line in train(config, Store(folder), device=device))


def measure(steps: int = 100, device: str = "cpu", seed: int = 0) -> str:
    """Ours in bf16 and the plain loop in float32 in the same order, then the plain loop in three others.

    Args:
        steps: of each run.
        device: where they train.
        seed: of initial weights, orders and views.
    """
    with Side(mean_losses, steps, device, seed) as run:
        ours, plain, *others = losses = [run() for _ in RUNS]
    spread = max(others) - min(others)
    sides = ["ours", *["plain loop"] * (len(RUNS) - 1)]
    rows = [(side, *run, f"{loss:.4f}") for side, run, loss in zip(sides, RUNS, losses, strict=True)]
    return (
        table(("run", "precision", "data order", f"mean loss of {steps} steps"), *rows)
        + f"\n\nOurs in bf16 from the plain loop in float32: {abs(ours - plain):.4f}; spread of the other orders: "
        f"{spread:.4f}. Within bf16 noise: {'yes' if abs(ours - plain) < spread else 'no'}."
    )
