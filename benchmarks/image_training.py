"""How much faster is a training step on the CPU than in the plain implementation? ResNet-20, K = 10, batch 128."""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from benchmarks.common import PAPER_BATCH, Side, alternate, load_or_make, our_steps, ratio, table
from mmel.data.vision import Images, channel_statistics
from mmel.models import build_model

TARGET = 5


class PlainViews(Dataset):
    """The K views of an image as one writes them first: a PIL image, torchvision's transforms, one view at a time."""

    def __init__(self, images: Images, num_augmented: int):
        self.pixels = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = images.labels.tolist()
        self.num_augmented = num_augmented
        to_tensor = [transforms.ToTensor(), transforms.Normalize(*channel_statistics(images))]
        self.original = transforms.Compose(to_tensor)
        self.augmented = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *to_tensor]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.pixels[place])
        # The same B(x) as ours: the image itself and K - 1 random views.
        views = [self.original(image), *(self.augmented(image) for _ in range(self.num_augmented - 1))]
        return torch.stack(views), self.labels[place]


def plain_steps(steps: int, num_workers: int) -> Iterator[float]:
    """Seconds of one step of the plain implementation: float32, contiguous, the default allocator.

    Each value comes from a fresh pass over `steps` batches. So all the loading that the steps need is inside the
    clock, and no worker loads ahead while the other side is timed.
    """
    config = PAPER_BATCH
    images, _ = load_or_make()
    subset = Subset(PlainViews(images, config.num_augmented), range(steps * config.batch_size))
    loader = DataLoader(subset, batch_size=config.batch_size, shuffle=True, num_workers=num_workers)
    model = build_model(config.model, images.num_classes)
    optimizer = torch.optim.SGD(
        model.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    while True:
        begin = time.perf_counter()
        for views, labels in loader:
            logits = model(views.flatten(0, 1))
            losses = F.cross_entropy(logits, labels.repeat_interleave(config.num_augmented), reduction="none")
            losses = losses.view(-1, config.num_augmented)
            weights = torch.softmax(losses.detach() / config.lambda_p, dim=1)
            optimizer.zero_grad()
            (weights * losses).sum(dim=1).mean().backward()
            optimizer.step()
        yield (time.perf_counter() - begin) / steps


def measure(rounds: int = 2, steps: int = 8) -> str:
    """Ours beside the plain implementation with two loading processes and with none; the better one counts."""
    images = PAPER_BATCH.batch_size * PAPER_BATCH.num_augmented
    with ExitStack() as stack:
        sides = {
            "ours": stack.enter_context(Side(our_steps, steps)),
            "plain, num_workers=0": stack.enter_context(Side(plain_steps, steps, 0)),
            "plain, num_workers=2": stack.enter_context(Side(plain_steps, steps, 2)),
        }
        seconds = alternate(sides, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    better = min((name for name in medians if name != "ours"), key=medians.get)
    rows = [(name, f"{median:.2f}", f"{images / median:.0f}") for name, median in medians.items()]
    return (
        table(("side", "seconds a step", "augmented images/s"), *rows)
        + f"\n\nOurs over `{better}`: {ratio(seconds[better], seconds['ours'])}, {rounds} rounds of {steps} steps; "
        f"target: at least {TARGET}."
    )
