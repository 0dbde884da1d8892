"""What share of a training step do augmentation and loss take? ResNet-20, K = 10, batch 128."""

import statistics
from collections.abc import Iterator
from unittest.mock import patch

import torch

from benchmarks.common import CPU, PAPER_BATCH, Side, alternate, load_or_make, our_steps, ratio, seconds_of, table
from mmel.train import vision

TARGETS = {"augmentation": "2 %", "loss": "1 %"}


def pieces(steps: int, repeats: int) -> Iterator[dict[str, float]]:
    """Seconds of a whole step and of its pieces by themselves, in one process."""
    config = PAPER_BATCH
    with patch.object(vision, "load_images", load_or_make):
        task = vision.VisionTask(config, None, CPU)
    index = task.order(epoch=1)[: config.batch_size]
    labels = task.train_images.labels[index]
    views = task.views(index, epoch=1)
    # What autocast makes of the last layer's output.
    logits = torch.randn(*views.shape[:2], 10, dtype=torch.bfloat16, requires_grad=True)

    def loss() -> None:
        logits.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            terms = task.criterion.terms(logits, labels)
        terms.loss.mean().backward()

    for seconds in our_steps(steps):
        yield {
            "whole step": seconds,
            "augmentation": seconds_of(lambda: task.views(index, epoch=1), repeats),
            "normalisation": seconds_of(lambda: task.normalize(views.flatten(0, 1)), repeats),
            "loss": seconds_of(loss, repeats),
        }


def measure(rounds: int = 3, steps: int = 3, repeats: int = 20) -> str:
    """The pieces in turn with whole steps; the loss is its forward and its backward down to the logits."""
    with Side(pieces, steps, repeats) as side:
        values = alternate({"all": side}, rounds)["all"]
    whole = [value["whole step"] for value in values]
    rows = []
    for name in values[0]:
        seconds = [value[name] for value in values]
        milliseconds = f"{1000 * statistics.median(seconds):.1f}"
        share = "" if seconds == whole else ratio([100 * s for s in seconds], whole)
        rows.append((name, milliseconds, share, TARGETS.get(name, "")))
    return table(("piece", "ms", "% of a step", "target: under"), *rows)
