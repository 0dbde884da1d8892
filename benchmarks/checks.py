"""Whether what is timed computes what it should: the loss in bf16, and every view of a batch."""

import statistics
import tempfile
from collections.abc import Iterator
from itertools import islice
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.common import CPU, PAPER_BATCH, eager_lines, has_cifar10, side, table
from mmel.study.config import ImageRun
from mmel.study.data import image_sets
from mmel.study.data.images import Images
from mmel.study.records import Store
from mmel.study.train import graph, train
from mmel.study.train import task as tasks
from mmel.study.train.images import ImageTask

# Who trains, precision, and the number of the data order.
RUNS = (("ours", "bf16", 0), *(("plain loop", "fp32", order) for order in range(4)))
# No pixel has it.
POISON = 255


def bf16_noise(steps: int = 100, device: str = "cpu", seed: int = 0) -> str:
    """Is the training loss in bf16 that of the plain loop in float32, but for noise? ResNet-20, K = 4, batch 32.

    From the same weights, on the same views in the same order; the noise is the spread of float32 in three other orders
    (docs/decisions.md). On a GPU the plain loop has no TF32.
    """
    with side(mean_losses, steps, device, seed) as ask:
        ours, plain, *others = losses = [ask().result() for _ in RUNS]
    spread = max(others) - min(others)
    rows = [(*run, f"{loss:.4f}") for run, loss in zip(RUNS, losses, strict=True)]
    return (
        table(("run", "precision", "data order", f"mean loss of {steps} steps"), *rows)
        + f"\n\nOurs in bf16 from the plain loop in float32, seed {seed}: {abs(ours - plain):.4f}; spread of the other "
        f"orders: {spread:.4f}. Within bf16 noise: {'yes' if abs(ours - plain) < spread else 'no'}."
    )


def mean_losses(steps: int, device: str, seed: int) -> Iterator[float]:
    """The mean training loss over the first `steps` steps of each of `RUNS`."""
    config = ImageRun(num_augmented=4, batch_size=32, holdout=10, seed=seed, epochs=1, decay_epochs=())
    if not has_cifar10():
        # An epoch of the digits has fewer steps than are wanted; five shortened ones make up for it.
        config = config.replace(dataset="digits", augment="crop", epochs=5)
    for who, precision, number in RUNS:

        class FirstSteps(ImageTask):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.steps = steps // config.epochs

            def order(self, epoch: int, number: int = number) -> Tensor:
                # The order is drawn from seed and epoch; a seed of its own would change the weights too.
                return super().order(epoch + 1000 * number)

        run = config.replace(precision=precision)
        with tempfile.TemporaryDirectory() as folder, patch.object(tasks, "ImageTask", FirstSteps):
            ours = who == "ours"
            task = None if ours else FirstSteps(run, None, torch.device(device))
            lines = train(run, Store(folder), device=device) if ours else islice(eager_lines(task), run.epochs)
            yield statistics.mean(line["train_loss"] for line in lines)


def views(device: torch.device, seed: int) -> str:
    """Compare the views of a batch with those that a CPU makes, which a test compares with slicing.

    A CUDA graph, if runs have one, is captured on a first batch, poisoned, and replayed on a second in another epoch.
    """
    size = PAPER_BATCH.batch_size
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(POISON, (2 * size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(len(pixels)) % 10, 10)
    config = PAPER_BATCH.replace(seed=seed, holdout=0)
    with patch.object(image_sets, "load_cifar", lambda *_: (images, images)):
        task, reference = ImageTask(config, None, device), ImageTask(config, None, CPU)
    first, second = torch.randperm(len(pixels), generator=generator).split(size)

    def make(index: Tensor, epoch: int | Tensor) -> Tensor:
        return task.views(index, epoch)[0]

    make = graph.Captured(make, device, graph.reason_for_eager(device) or task.why_eager)
    make(first.to(device), 1).fill_(POISON)
    found = make(second.to(device), 2).cpu()
    wrong = (found != reference.views(second, 2)[0]).flatten(2).any(dim=2)
    how = "replayed from a CUDA graph" if make.why_eager is None else f"made eagerly ({make.why_eager})"
    return f"Views that differ from a CPU's, {how}, seed {seed}: {wrong.sum()} of {wrong.numel()}."
