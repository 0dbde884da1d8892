"""What do K augmented samples cost, and how do time and memory grow? On the GPU, if there is one, else on the CPU.

The first table times epochs of `mmel.train` (ResNet-20, batch 128, bf16), MMEL-H over Baseline(DA); the paper's column
is its Table 1, which has K = 10 alone. The second varies one thing at a time in a plain step (views, forward, MMEL-H's
loss, backward, optimizer); memory is what the step adds to data and weights at its peak: allocated on a GPU, resident
on a CPU.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch

from benchmarks.common import PAPER_BATCH, Side, SideError, alternate, ratio, table, table_line, training_lines
from benchmarks.floor import synchronize
from mmel import MMELHardLoss
from mmel.augment.image import RandomCropFlip
from mmel.models import build_model
from mmel.report.frames import paper_table
from mmel.train import machine

COUNTS = (2, 5, 10, 20)
# A ResNet-20 on images and a small BERT on texts: K, N, and the side of an image or the pieces of a text.
IMAGE_BASE = {"K": 5, "N": 32, "pixels a side": 32}
IMAGE_VALUES = {"K": COUNTS, "N": (16, 32, 64, 128), "pixels a side": (16, 32, 64)}
TEXT_BASE = {"K": 5, "N": 8, "pieces": 16}
TEXT_VALUES = {"K": COUNTS, "N": (4, 8, 16), "pieces": (8, 16, 32, 64)}
# Steps as small as a CPU wants them take a GPU no longer than their launches.
GPU_FACTOR_ON_N = 8
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}

# Seconds of a step, and bytes that it adds at its peak.
Cost = tuple[float, int]


def image_steps(k: int, n: int, side: int, device: torch.device) -> Iterator[Cost]:
    """Training steps of ResNet-20 on random images."""
    model = build_model("resnet20", 10).to(device, memory_format=torch.channels_last)
    images = torch.randint(256, (n, 3, side, side), dtype=torch.uint8, device=device)
    labels = torch.randint(10, (n,), device=device)
    augment = RandomCropFlip(padding=side // 8)

    def logits() -> torch.Tensor:
        views = augment(images, k).flatten(0, 1)
        pixels = views.to(torch.float32, memory_format=torch.channels_last) / 255
        return model(pixels).view(n, k, -1)

    yield from _steps(model, logits, labels, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), device)


def text_steps(k: int, n: int, length: int, device: torch.device) -> Iterator[Cost]:
    """Fine-tuning steps of a BERT with random weights, of 6 layers and width 384, on random pieces."""
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig(num_labels=2, **SHAPE)).to(device).train()
    ids = torch.randint(1000, 30_000, (n * k, length), device=device)
    labels = torch.randint(2, (n,), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-5, fused=True)
    yield from _steps(model, lambda: model(input_ids=ids).logits.view(n, k, -1), labels, optimizer, device)


def _steps(
    model: torch.nn.Module,
    logits: Callable[[], torch.Tensor],
    labels: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> Iterator[Cost]:
    if device.type == "cpu":
        machine.keep_freed_memory()
    criterion = MMELHardLoss()
    machine.reset_peak_memory(device)
    before = machine.peak_memory_bytes(device)
    while True:
        begin = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            outputs = logits()
        criterion(outputs, labels).backward()
        optimizer.step()
        synchronize(device)
        yield time.perf_counter() - begin, machine.peak_memory_bytes(device) - before


def measure(rounds: int = 3) -> Iterator[str]:
    """Both tables, the second one line by line."""
    device = machine.pick_device()
    yield f"On {machine.describe_device(device)['name']}.\n\n{_epochs(device, rounds)}\n"
    yield table(("fixed", "varied", "ms a step", "over the first", "MiB a step adds"))
    for kind, make, base, values in (
        ("images", image_steps, IMAGE_BASE, IMAGE_VALUES),
        ("text", text_steps, TEXT_BASE, TEXT_VALUES),
    ):
        if device.type == "cuda":
            base = base | {"N": GPU_FACTOR_ON_N * base["N"]}
            values = values | {"N": tuple(GPU_FACTOR_ON_N * n for n in values["N"])}
        for name, tried in values.items():
            rest = ", ".join(f"{other} = {fixed}" for other, fixed in base.items() if other != name)
            for value, *cells in _growth(make, base, name, tried, device, rounds):
                yield table_line(f"{kind}, {rest}", f"{name} = {value}", *cells)


def _epochs(device: torch.device, rounds: int) -> str:
    """Seconds an epoch for each K, and their ratio to Baseline(DA)'s within each round."""
    # On a CPU an epoch of two steps: what is asked for is a ratio.
    steps = 2 if device.type == "cpu" else 0
    config = PAPER_BATCH.replace(train_size=steps * PAPER_BATCH.batch_size, epochs=rounds + 1, decay_epochs=())
    runs = {"baseline_da": config.replace(method="baseline_da", num_augmented=1)}
    runs |= {f"mmel_h, K = {k}": config.replace(num_augmented=k) for k in COUNTS}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(Side(training_lines, run, str(device))) for name, run in runs.items()}
        lines = alternate(sides, rounds)
    seconds = {name: [line["train_seconds"] for line in found] for name, found in lines.items()}
    hours = paper_table("table1").set_index(["dataset", "model", "method"]).loc["cifar10", "resnet20"]
    paper = {f"mmel_h, K = {config.num_augmented}": hours["train_hours_v100"]["mmel_h"]}
    rows = []
    for name, found in seconds.items():
        theirs = f"{paper[name] / hours['train_hours_v100']['baseline_da']:.1f}" if name in paper else "-"
        over = ratio(found, seconds["baseline_da"])
        rows.append((name, f"{statistics.median(found):.2f}", over, theirs))
    images = "all images" if not steps else f"{config.train_size} images"
    return table(("method", f"seconds an epoch of {images}", "over baseline_da", "paper, V100"), *rows)


def _growth(
    make: Callable[..., Iterator[Cost]],
    base: dict[str, int],
    name: str,
    values: tuple[int, ...],
    device: torch.device,
    rounds: int,
) -> Iterator[tuple[object, ...]]:
    """Time and memory of a step as one quantity grows, each in a process of its own; what fails says so."""
    first = None
    for value in values:
        try:
            with Side(make, *(base | {name: value}).values(), device) as side:
                found = alternate({"step": side}, rounds)["step"]
        except SideError as error:
            yield value, f"failed: {error}", "", ""
            continue
        median = statistics.median(seconds for seconds, _ in found)
        first = first or median
        memory = max(peak for _, peak in found)
        yield value, f"{median * 1000:.1f}", f"{median / first:.2f}", f"{memory / 2**20:,.0f}"
