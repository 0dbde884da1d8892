"""Questions about a training step on images, on the CPU: ResNet-20, K = 10, batch 128."""

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import timer
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from benchmarks import common, floor
from benchmarks.common import CPU, PAPER_BATCH, compare, medians, our_steps, ratio, seconds_of, speeds, table
from mmel.study.config import MOMENTUM
from mmel.study.data import image_sets
from mmel.study.data.images import Images, channel_statistics
from mmel.study.models.resnet import build_model
from mmel.study.train.images import ImageTask

TARGET, SHARE_TARGETS = 5, {"augmentation": "2 %", "loss": "1 %"}
VIEWS_A_STEP = PAPER_BATCH.batch_size * PAPER_BATCH.num_augmented


class PlainViews(Dataset):
    """The K views of an image as one writes them first: a PIL image, torchvision's transforms, one view at a time."""

    def __init__(self, images: Images, num_augmented: int):
        self.pixels, self.labels = images.pixels.permute(0, 2, 3, 1).contiguous().numpy(), images.labels.tolist()
        original = [transforms.ToTensor(), transforms.Normalize(*channel_statistics(images))]
        augmented = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *original]
        # The same B(x) as ours: the image itself and K - 1 random views.
        self.views = [transforms.Compose(steps) for steps in (original, *[augmented] * (num_augmented - 1))]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.pixels[index])
        return torch.stack([view(image) for view in self.views]), self.labels[index]


def plain_steps(steps: int, num_workers: int) -> Iterator[float]:
    """Seconds of a step of the plain implementation; a fresh pass for each, so that no worker loads ahead unseen."""
    config = PAPER_BATCH
    images, _ = common.load_or_make()
    subset = Subset(PlainViews(images, config.num_augmented), range(steps * config.batch_size))
    loader = DataLoader(subset, batch_size=config.batch_size, shuffle=True, num_workers=num_workers)
    model = build_model(config.model, images.num_classes)
    optimizer = torch.optim.SGD(model.parameters(), config.lr, momentum=MOMENTUM, weight_decay=config.weight_decay)
    while True:
        begin = timer()
        for views, labels in loader:
            logits = model(views.flatten(0, 1))
            losses = F.cross_entropy(logits, labels.repeat_interleave(config.num_augmented), reduction="none")
            losses = losses.view(-1, config.num_augmented)
            weights = torch.softmax(losses.detach() / config.lambda_p, dim=1)
            optimizer.zero_grad()
            (weights * losses).sum(dim=1).mean().backward()
            optimizer.step()
        yield (timer() - begin) / steps


def image_training(rounds: int = 3, steps: int = 4) -> Iterator[str]:
    """How much faster is a training step on the CPU than in the plain implementation? ResNet-20, K = 10, batch 128.

    The plain implementation loads with two processes and with none; the better one counts. Its multiple of the floor
    (`benchmarks/floor.py`), at the best of the machine's rates, is the most that any target could ask for here.
    """
    sides = {
        "ours": (our_steps, steps),
        "plain, num_workers=0": (plain_steps, steps, 0),
        "plain, num_workers=2": (plain_steps, steps, 2),
    }
    seconds = compare(sides, rounds)
    rates = np.max([floor.measure_rates(CPU) for _ in range(rounds)], axis=0)
    yield speeds(seconds, VIEWS_A_STEP, "augmented images")
    yield beside_floor(seconds, rates)


def beside_floor(seconds: dict[str, list[float]], rates: floor.Pair) -> str:
    """Our step beside the better plain one, and both beside the floor."""
    found = medians(seconds)
    ours = found.pop("ours")
    better = min(found, key=found.get)
    least, bound = floor.least_seconds(floor.image_step(PAPER_BATCH), rates)
    return (
        f"\nOurs over `{better}`: {ratio(seconds[better], seconds['ours'])}; target: at least {TARGET}.\n\nFloor of "
        f"the step at this machine's {floor.describe(rates)}: {least:.2f} s, bound by {bound}. In multiples of it: "
        f"ours {ours / least:.2f}, `{better}` {found[better] / least:.2f}."
    )


def precision(rounds: int = 3, steps: int = 2) -> str:
    """Does the default precision take the faster one? Speed of a step over that of the better of bf16 and fp32.

    For a CPU without native bf16 set ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2.
    """
    sides = {"default": (our_steps, steps), **{name: (our_steps, steps, name) for name in ("bf16", "fp32")}}
    seconds = compare(sides, rounds)
    found = medians(seconds)
    better = min(("bf16", "fp32"), key=found.get)
    return (
        f"{speeds(seconds, VIEWS_A_STEP, 'augmented images')}\n\nDefault over {better}: "
        f"{ratio(seconds[better], seconds['default'])}; target: at least 0.9."
    )


def allocator(rounds: int = 3, steps: int = 3) -> str:
    """How much faster is a step on the CPU that keeps freed memory (`mmel.study.train.machine.keep_freed_memory`)?"""
    sides = {"freed memory kept": (our_steps, steps), "given back (glibc's default)": (our_steps, steps, "auto", False)}
    seconds = compare(sides, rounds)
    kept, returned = seconds.values()
    return f"{speeds(seconds, VIEWS_A_STEP, 'augmented images')}\n\nKept over given back: {ratio(returned, kept)}."


def pieces(steps: int, repeats: int) -> Iterator[dict[str, float]]:
    """Seconds of a whole step and of its pieces by themselves, in one process."""
    config = PAPER_BATCH
    with patch.object(image_sets, "load_cifar", common.load_or_make):
        task = ImageTask(config, None, CPU)
    index = task.order(epoch=1)[: config.batch_size]
    views, labels = task.views(index, epoch=1)
    # What autocast makes of the last layer's output.
    logits = torch.randn(*views.shape[:2], 10, dtype=torch.bfloat16, requires_grad=True)

    def loss() -> None:
        logits.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            terms = task.criterion.terms(logits, labels)
        terms.loss.mean().backward()

    ours = our_steps(steps)
    for seconds in ours:
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            next(ours)
        yield {
            "whole step": seconds,
            "augmentation": seconds_of(lambda: task.views(index, epoch=1), repeats),
            "normalisation": seconds_of(lambda: task.normalize(views.flatten(0, 1)), repeats),
            "loss": seconds_of(loss, repeats),
            "convolutions": seconds * convolution_share(profiled),
        }


def convolution_share(profiled: profile) -> float:
    """The share of the convolutions, forward and backward, in the time of all operators."""
    seconds = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    return sum(took for name, took in seconds.items() if "conv" in name) / sum(seconds.values())


def step_shares(rounds: int = 3, steps: int = 3, repeats: int = 20) -> str:
    """How large a share of a training step do augmentation, loss and convolutions take? ResNet-20, K = 10, batch 128.

    One over the share of the convolutions, which are the library's, is the most by which a step could still get faster.
    """
    values = compare({"all": (pieces, steps, repeats)}, rounds)["all"]
    seconds = {name: [value[name] for value in values] for name in values[0]}
    whole = seconds["whole step"]
    rows = [
        (name, f"{1000 * median:.1f}", ratio([100 * s for s in seconds[name]], whole), SHARE_TARGETS.get(name, ""))
        for name, median in medians(seconds).items()
    ]
    return table(("piece", "ms", "% of a step", "target: under"), *rows)
