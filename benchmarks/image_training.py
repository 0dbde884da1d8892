"""How much faster is a training step on the CPU than in the plain implementation? ResNet-20, K = 10, batch 128.

Beside ours stands the floor: the least time that the step's counted operations and bytes take at this machine's own
bf16 matmul rate and copy bandwidth, the best of the rounds (`benchmarks/floor.py` says what is counted). The floor over
the plain implementation is the most that any target could ask for here; with the library's convolutions as they are, it
is the ratio over their share of our step.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from benchmarks import floor
from benchmarks.common import CPU, PAPER_BATCH, Side, alternate, load_or_make, our_steps, ratio, table
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


def convolution_shares(steps: int) -> Iterator[float]:
    """What part of the time of our steps' operators the convolutions take, forward and backward."""
    ours = our_steps(steps)
    next(ours)
    while True:
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            next(ours)
        seconds = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
        yield sum(took for name, took in seconds.items() if "conv" in name) / sum(seconds.values())


def machine_rates() -> Iterator[floor.Rates]:
    """What the machine can do."""
    while True:
        yield floor.measure_rates(CPU)


def measure(rounds: int = 3, steps: int = 4) -> str:
    """Ours beside the plain implementation with two loading processes and with none; the better one counts."""
    with ExitStack() as stack:
        machine = stack.enter_context(Side(machine_rates))
        sides = {
            "ours": stack.enter_context(Side(our_steps, steps)),
            "plain, num_workers=0": stack.enter_context(Side(plain_steps, steps, 0)),
            "plain, num_workers=2": stack.enter_context(Side(plain_steps, steps, 2)),
        }
        shares = stack.enter_context(Side(convolution_shares, 1))
        values = alternate({**sides, "machine": machine, "shares": shares}, rounds)
    seconds = {name: values[name] for name in sides}
    found = values["machine"]
    best = floor.Rates(max(rates.operations for rates in found), max(rates.moved for rates in found))
    share = statistics.median(values["shares"])
    return f"{_speeds(seconds, rounds, steps)}\n\n{_beside_floor(seconds, best)} {_beside_convolutions(seconds, share)}"


def _speeds(seconds: dict[str, list[float]], rounds: int, steps: int) -> str:
    images = PAPER_BATCH.batch_size * PAPER_BATCH.num_augmented
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [(name, f"{median:.2f}", f"{images / median:.0f}") for name, median in medians.items()]
    better = _better(seconds)
    return (
        table(("side", "seconds a step", "augmented images/s"), *rows)
        + f"\n\nOurs over `{better}`: {ratio(seconds[better], seconds['ours'])}, {rounds} rounds of {steps} steps; "
        f"target: at least {TARGET}."
    )


def _beside_floor(seconds: dict[str, list[float]], rates: floor.Rates) -> str:
    work = floor.image_step(PAPER_BATCH)
    least, bound = rates.floor(work)
    better = _better(seconds)
    ours, plain = (statistics.median(seconds[name]) for name in ("ours", better))
    needed = plain / TARGET
    asks = f"asks for a step of {needed:.2f} s, {needed / least:.2f} times the floor"
    return (
        f"Floor of the step at this machine's {rates.operations / 1e9:,.0f} GFLOP/s of bf16 matrix products and "
        f"{rates.moved / 1e9:,.0f} GB/s copied (read and written): {least:.2f} s, bound by {bound} "
        f"({work.operations / rates.operations:.2f} s of operations, {work.moved / rates.moved:.2f} s of bytes). "
        f"Ours takes {ours / least:.2f} times the floor. The floor over `{better}`: {plain / least:.2f}; the target of "
        f"{TARGET} {asks}."
    )


def _beside_convolutions(seconds: dict[str, list[float]], share: float) -> str:
    ours, plain = (statistics.median(seconds[name]) for name in ("ours", _better(seconds)))
    return (
        f"Convolutions are {share:.0%} of our step: with everything else free, the ratio would be "
        f"{plain / ours / share:.1f}."
    )


def _better(seconds: dict[str, list[float]]) -> str:
    """The faster one of the plain implementations."""
    return min((name for name in seconds if name != "ours"), key=lambda name: statistics.median(seconds[name]))
