"""The cost of K augmented samples."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.benchmark import timer
from transformers import BertConfig, BertForSequenceClassification

from benchmarks import common
from benchmarks.common import PAPER_BATCH, compare, medians, or_failure, ratio, table, table_line, training_lines
from benchmarks.texts import MINILM
from mmel import MMELHardLoss
from mmel.augment.images import RandomCropFlip
from mmel.study.models.resnet import build_model
from mmel.study.train import machine

# What makes logits (N, K, C), their labels, the optimizer.
Steps = tuple[Callable[[], Tensor], Tensor, Optimizer]

COUNTS = (2, 5, 10, 20)
# A ResNet-20 on images and a small BERT on texts: K, N, and the side of an image or the pieces of a text.
IMAGE_BASE = {"K": 5, "N": 32, "pixels a side": 32}
IMAGE_VALUES = {"K": COUNTS, "N": (16, 32, 64, 128), "pixels a side": (16, 32, 64)}
TEXT_BASE = {"K": 5, "N": 8, "pieces": 16}
TEXT_VALUES = {"K": COUNTS, "N": (4, 8, 16), "pieces": (8, 16, 32, 64)}
# Steps as small as a CPU wants them take a GPU no longer than their launches.
GPU_FACTOR_ON_N = 8


def cost_of_augmentation(rounds: int = 3) -> Iterator[str]:
    """What do K augmented samples cost, how do time and memory grow? On the GPU, if there is one, else on the CPU.

    The first table times epochs (ResNet-20, batch 128), MMEL-H over Baseline(DA). The second varies one thing at a time
    in a plain step in bf16; memory is what the step adds to data and weights at its peak.
    """
    device = machine.pick_device()
    yield f"On {machine.describe_device(device)['name']}.\n\n{_epochs(device, rounds)}\n"
    yield table(("fixed", "varied", "ms a step", "over the first", "MiB a step adds"))
    factor = GPU_FACTOR_ON_N if device.type == "cuda" else 1
    for steps, base, values in ((image_steps, IMAGE_BASE, IMAGE_VALUES), (text_steps, TEXT_BASE, TEXT_VALUES)):
        scaled = base | {"N": factor * base["N"]}
        for name, tried in values.items():
            yield from growth(steps, scaled, name, [factor * n if name == "N" else n for n in tried], device, rounds)


def _epochs(device: torch.device, rounds: int) -> str:
    """Seconds an epoch for each K, and their ratio to Baseline(DA)'s within each round."""
    # On a CPU an epoch of two steps: what is asked for is a ratio.
    steps = 2 if device.type == "cpu" else 0
    config = PAPER_BATCH.replace(train_size=steps * PAPER_BATCH.batch_size, epochs=rounds + 1, decay_epochs=())
    runs = {"baseline_da": config.replace(method="baseline_da", num_augmented=1)}
    runs |= {f"mmel_h, K = {k}": config.replace(num_augmented=k) for k in COUNTS}
    lines = compare({name: (training_lines, run, str(device)) for name, run in runs.items()}, rounds)
    seconds = {name: [line["train_seconds"] for line in found] for name, found in lines.items()}
    hours = common.paper_hours().loc["cifar10", "resnet20"]
    paper = {f"mmel_h, K = {config.num_augmented}": f"{hours['mmel_h'] / hours['baseline_da']:.1f}"}
    rows = [
        (name, f"{median:.2f}", ratio(seconds[name], seconds["baseline_da"]), paper.get(name, "-"))
        for name, median in medians(seconds).items()
    ]
    images = f"{config.train_size} images" if steps else "all images"
    return table(("method", f"seconds an epoch of {images}", "over baseline_da", "paper, V100"), *rows)


def growth(
    steps: Callable[..., Steps], base: dict[str, int], name: str, values: list[int], device: torch.device, rounds: int
) -> Iterator[str]:
    """Time and memory of a step as one quantity grows, each in a process of its own; what fails says so."""
    fixed = ", ".join(f"{other} = {value}" for other, value in base.items() if other != name)
    firsts: list[float] = []

    def line(value: int) -> str:
        found = compare({"step": (costs, steps, tuple((base | {name: value}).values()), device)}, rounds)["step"]
        firsts.append(seconds := statistics.median(took for took, _ in found))
        memory = max(peak for _, peak in found) / 2**20
        figures = f"{seconds * 1000:.1f}", f"{seconds / firsts[0]:.2f}", f"{memory:,.0f}"
        return table_line(fixed, f"{name} = {value}", *figures)

    for value in values:
        failed = partial(table_line, fixed, f"{name} = {value}")
        yield from or_failure(partial(line, value), lambda why, failed=failed: failed(why, "", ""))


def costs(make: Callable[..., Steps], sizes: tuple[int, ...], device: torch.device) -> Iterator[tuple[float, int]]:
    """Seconds of each of some training steps, and bytes that it adds at its peak."""
    logits, labels, optimizer = make(*sizes, device)
    if device.type == "cpu":
        machine.keep_freed_memory()
    machine.reset_peak_memory(device)
    before = machine.peak_memory_bytes(device)
    while True:
        begin = timer()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            outputs = logits()
        MMELHardLoss()(outputs, labels).backward()
        optimizer.step()
        yield timer() - begin, machine.peak_memory_bytes(device) - before


def image_steps(k: int, n: int, side: int, device: torch.device) -> Steps:
    """ResNet-20 on random images."""
    model = build_model("resnet20", 10).to(device, memory_format=torch.channels_last)
    images = torch.randint(256, (n, 3, side, side), dtype=torch.uint8, device=device)
    augment = RandomCropFlip(padding=side // 8)

    def logits() -> Tensor:
        views = augment(images, k).flatten(0, 1)
        return model(views.to(torch.float32, memory_format=torch.channels_last) / 255).view(n, k, -1)

    labels = torch.randint(10, (n,), device=device)
    return logits, labels, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def text_steps(k: int, n: int, length: int, device: torch.device) -> Steps:
    """A BERT with random weights, of 6 layers and width 384, on random pieces."""
    model = BertForSequenceClassification(BertConfig(num_labels=2, **MINILM)).to(device).train()
    ids = torch.randint(1000, 30_000, (n * k, length), device=device)
    labels = torch.randint(2, (n,), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-5, fused=True)
    return lambda: model(input_ids=ids).logits.view(n, k, -1), labels, optimizer
