"""Questions about a training step on images, on the CPU: ResNet-20, K = 10, batch 128."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.benchmark import timer
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import v2

from benchmarks import common, floor
from benchmarks.common import CPU, PAPER_BATCH, alternate, compare, medians, our_steps, ratio, seconds_of, speeds, table
from mmel import ColorJitter, KViews, RandomCropFlip, RandomResizedCropFlip
from mmel.augment.base import ImageAugmentation
from mmel.study.config import MOMENTUM
from mmel.study.data import image_sets
from mmel.study.data.images import channel_statistics
from mmel.study.models.resnet import build_model
from mmel.study.train.images import ImageTask

TARGET, SHARE_TARGETS = 5, {"augmentation": "2 %", "loss": "1 %"}
VIEWS_A_STEP = PAPER_BATCH.batch_size * PAPER_BATCH.num_augmented


def plain_steps(steps: int, num_workers: int) -> Iterator[float]:
    """Seconds of a step as one writes it first: PIL images, torchvision's transforms, one view at a time."""
    config = PAPER_BATCH
    images, _ = common.load_or_make()
    part = images.take(torch.arange(steps * config.batch_size))
    original = [transforms.ToTensor(), transforms.Normalize(*channel_statistics(images))]
    augment = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *original])
    pairs = list(zip(map(transforms.ToPILImage(), part.pixels), part.labels.tolist(), strict=True))
    views = KViews(pairs, augment, config.num_augmented, transforms.Compose(original))
    loader = DataLoader(views, batch_size=config.batch_size, shuffle=True, num_workers=num_workers)
    model = build_model(config.model, images.num_classes)
    optimizer = torch.optim.SGD(model.parameters(), config.lr, momentum=MOMENTUM, weight_decay=config.weight_decay)
    while True:
        begin = timer()  # of a fresh pass, so that no worker loads ahead unseen
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
    plain = {f"plain, num_workers={number}": (plain_steps, steps, number) for number in (0, 2)}
    seconds = compare({"ours": (our_steps, steps), **plain}, rounds)
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


def settings(rounds: int = 3, steps: int = 2) -> str:
    """Does the default precision take the faster one, and what does memory gain that is kept once freed?

    For a CPU without native bf16 set ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2.
    """
    sides = {"default": (our_steps, steps), **{name: (our_steps, steps, name) for name in ("bf16", "fp32")}}
    seconds = compare(sides | {"memory given back": (our_steps, steps, "auto", False)}, rounds)
    better = min(("bf16", "fp32"), key=medians(seconds).get)
    return (
        f"{speeds(seconds, VIEWS_A_STEP, 'augmented images')}\n\nDefault over {better}: "
        f"{ratio(seconds[better], seconds['default'])}; target: at least 0.9. Over memory given back: "
        f"{ratio(seconds['memory given back'], seconds['default'])}."
    )


def making_views(rounds: int = 5) -> str:
    """How fast are a batch's views made on the CPU, beside torchvision image by image and kornia, if it is installed?

    Nine views of 128 images of 32 pixels, or of 8 of 320 x 256. kornia makes floats and resizes without antialiasing.
    """
    small, large = common.load_or_make()[0].pixels[:128], torch.randint(256, (8, 3, 256, 320), dtype=torch.uint8)
    crop, jitter, resized = ("RandomCrop", (32, 32), 4), ("ColorJitter", 0.4, 0.4, 0.4, 0.1), "RandomResizedCrop"
    made = {
        "crop, flip": (small, RandomCropFlip(), crop),
        "crop, flip, colour jitter": (small, ColorJitter(*jitter[1:], RandomCropFlip()), crop, jitter),
        "resized crop to 32, flip": (small, RandomResizedCropFlip(32), (resized, (32, 32))),
        "resized crop to 224, flip": (large, RandomResizedCropFlip(224), (resized, (224, 224))),
    }
    rows = []
    for name, (images, *augmentations) in made.items():
        sides = {side: partial(seconds_of, make) for side, make in makers(images, *augmentations)}
        seconds = alternate(sides, rounds)
        rates = {side: f"{9 * len(images) / took:,.0f}" for side, took in medians(seconds).items()}
        rows.append((name, *rates.values(), *["-"] * (3 - len(rates)), ratio(seconds["torchvision"], seconds["ours"])))
    return table(("views/s", "ours", "torchvision", "kornia", "ours over torchvision"), *rows)


def makers(images: Tensor, ours: ImageAugmentation, *steps: tuple) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Who makes nine views of each image, and how; `steps` name transforms that torchvision and kornia both have."""
    steps = (*steps, ("RandomHorizontalFlip",))
    yield "ours", partial(ours, images, 9, include_original=False)
    each = v2.Compose([getattr(v2, name)(*arguments) for name, *arguments in steps])
    yield "torchvision", lambda: torch.stack([each(image) for image in images for _ in range(9)])
    if find_spec("kornia"):
        kornia = import_module("kornia.augmentation")
        batched = nn.Sequential(*(getattr(kornia, name)(*arguments) for name, *arguments in steps))
        yield "kornia", lambda: batched(images.repeat_interleave(9, 0) / 255).mul(255).round().to(torch.uint8)


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

    for seconds in our_steps(steps):
        yield {
            "whole step": seconds,
            "augmentation": seconds_of(lambda: task.views(index, epoch=1), repeats),
            "loss": seconds_of(loss, repeats),
        }


def step_shares(rounds: int = 3, steps: int = 3, repeats: int = 20) -> str:
    """How large a share of a training step do augmentation and loss take? ResNet-20, K = 10, batch 128."""
    values = compare({"all": (pieces, steps, repeats)}, rounds)["all"]
    seconds = {name: [value[name] for value in values] for name in values[0]}
    whole = seconds["whole step"]
    rows = [
        (name, f"{1000 * median:.1f}", ratio([100 * s for s in seconds[name]], whole), SHARE_TARGETS.get(name, ""))
        for name, median in medians(seconds).items()
    ]
    return table(("piece", "ms", "% of a step", "target: under"), *rows)
