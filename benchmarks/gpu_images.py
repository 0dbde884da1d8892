"""The workloads on images of `benchmarks/gpu.py`."""

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from unittest.mock import patch

import torch

from benchmarks import floor
from benchmarks.common import PAPER_BATCH, Side, alternate, eager_lines, load_or_make, table, training_lines
from benchmarks.gpu_rows import Row, Sizes, Workload, rates_of
from mmel.config import RunConfig
from mmel.records import Line
from mmel.report.frames import paper_table
from mmel.train import vision

TARGETS = {"resnet20": 250_000, "resnet56": 100_000}
# Of Baseline(DA), over the plain loop.
TARGET_OVER_PLAIN = 5
# Of a whole run of ResNet-20, K = 10.
TARGET_RUN_SECONDS = 420


def workloads(device: torch.device, sizes: Sizes) -> Iterator[Workload]:
    """Training alone: MMEL-H on two networks, Baseline(DA) beside the plain loop, and several of it side by side."""
    base = _config(sizes, sizes.rounds + 1)
    for model, target in TARGETS.items():
        config = base.replace(model=model)
        yield f"{model}, K = {config.num_augmented}, training", partial(_training, config, device, sizes, target)
    config = base.replace(method="baseline_da", num_augmented=1)
    yield f"{config.model}, baseline_da", partial(_beside_plain, config, device, sizes)
    for number in sizes.packs:
        yield f"{number} such runs side by side", partial(_packed, config, number, device, sizes)


def _config(sizes: Sizes, epochs: int) -> RunConfig:
    return PAPER_BATCH.replace(train_size=sizes.train_size, batch_size=sizes.batch_size, epochs=epochs, decay_epochs=())


def _training(config: RunConfig, device: torch.device, sizes: Sizes, target: float) -> Iterator[Row]:
    with Side(training_lines, config, str(device)) as ours:
        lines = alternate({"ours": ours}, sizes.rounds)["ours"]
        work = f"{config.model}, K = {config.num_augmented}, training ({_engine(ours())})"
    yield image_row(work, config, rates_of(lines), target)


def _beside_plain(config: RunConfig, device: torch.device, sizes: Sizes) -> Iterator[Row]:
    with Side(training_lines, config, str(device)) as ours, Side(eager_images, config, str(device)) as plain:
        lines = alternate({"ours": ours, "plain": plain}, sizes.rounds)
        work = f"{config.model}, baseline_da ({_engine(ours())}; target: {TARGET_OVER_PLAIN} times the plain loop)"
    row = image_row(f"{config.model}, baseline_da, plain loop", config, rates_of(lines["plain"]))
    yield image_row(work, config, rates_of(lines["ours"]), TARGET_OVER_PLAIN * row.rate)
    yield row


def eager_images(config: RunConfig, device: str) -> Iterator[Line]:
    """A run on images in the plain loop."""
    with patch.object(vision, "load_images", load_or_make):
        yield from eager_lines(vision.VisionTask(config, None, torch.device(device)))


def _packed(config: RunConfig, number: int, device: torch.device, sizes: Sizes) -> Iterator[Row]:
    """Several runs in processes of their own, all in the same epoch, of which the slowest one counts."""
    totals = []
    with ExitStack() as stack, ThreadPoolExecutor(number) as pool:
        sides = [stack.enter_context(Side(training_lines, config.replace(seed=s), str(device))) for s in range(number)]
        for _ in range(1 + sizes.rounds):
            lines = list(pool.map(lambda side: side(), sides))
            images = sum(line["images_per_second"] * line["train_seconds"] for line in lines)
            totals.append(images / max(line["train_seconds"] for line in lines))
    yield Row(f"{number} such runs side by side, in all", "images", totals[1:], *_floor_of(config))


def whole_run(device: torch.device, sizes: Sizes) -> str:
    """How long a run takes a user: training, evaluation, record and checkpoint of every epoch, and the start."""
    # The last epoch is not timed: it has no checkpoint.
    config = _config(sizes, sizes.rounds + 2).replace(holdout=sizes.holdout)
    with Side(epoch_seconds, config, str(device)) as run:
        (first, _), *later = [run() for _ in range(sizes.rounds + 1)]
    epoch = statistics.median(wall for wall, _ in later)
    training = statistics.median(seconds for _, seconds in later)
    epochs = RunConfig().epochs
    total = first + (epochs - 1) * epoch
    verdict = "-" if device.type == "cpu" else "met" if total < TARGET_RUN_SECONDS else "missed"
    head = (
        "first epoch, with the start",
        "a later epoch, s",
        "of it training, s",
        f"{epochs} epochs, s",
        "target: under",
    )
    row = (f"{first:.2f}", f"{epoch:.2f}", f"{training:.2f}", f"{total:,.0f}", f"{TARGET_RUN_SECONDS} s")
    paper = f"{3600 * _paper_hours(config):,.0f} s"
    return (
        f"A whole run of {config.model}, K = {config.num_augmented}, through `mmel.train.train`: wall time with each "
        "epoch's evaluation, record and checkpoint, loading and capture in the first. Not run to its end: the first "
        f"epoch and {epochs - 1} times the median of {len(later)} later ones.\n\n"
        + table((*head, "", "paper's V100"), (*row, verdict, paper))
    )


def epoch_seconds(config: RunConfig, device: str) -> Iterator[tuple[float, float]]:
    """Wall seconds of each epoch of a run, all included, and seconds of training in it."""
    begin = time.perf_counter()
    for line in training_lines(config, device):
        yield time.perf_counter() - begin, line["train_seconds"]
        begin = time.perf_counter()


def image_row(work: str, config: RunConfig, rates: list[float], target: float | None = None) -> Row:
    """The line of a run on CIFAR-10, with its floor and the paper's speed."""
    # 200 epochs of 50,000 images.
    images = 200 * 50_000 * config.num_views
    return Row(work, "images", rates, *_floor_of(config), target, images / (3600 * _paper_hours(config)))


def _paper_hours(config: RunConfig) -> float:
    paper = paper_table("table1").set_index(["dataset", "model", "method"])
    return paper.loc[("cifar10", config.model, config.method), "train_hours_v100"]


def _floor_of(config: RunConfig) -> tuple[float, floor.Work]:
    return config.batch_size * config.num_views, floor.image_step(config)


def _engine(result: Line) -> str:
    # A record that does not say was trained before there was a choice.
    return result.get("engine", "eager")
