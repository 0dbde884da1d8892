"""The speed of a GPU: each workload beside its floor, and whether all of it computes what it should."""

import os
import secrets
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch.utils.benchmark import timer

from benchmarks import checks, common, floor
from benchmarks.common import PAPER_BATCH, compare, or_failure, side, table, table_line, training_lines
from benchmarks.texts import BASE, LENGTHS, TINY, batched_fills, fine_tuning_seconds, make_augmenter, make_sentences
from mmel.augment.text import MaskedLMAugmenter
from mmel.study.config import ImageRun
from mmel.study.data import image_sets
from mmel.study.records import Line
from mmel.study.train import machine
from mmel.study.train.images import ImageTask

SPEED = "images_per_second"
HEAD = ("work", "a second", "measured", "at the floor", "its multiple", "bound by", "target", "", "paper's V100")
# Augmented images a second; sentences; of Baseline(DA) over the plain loop; of fine-tuning over the padded one.
TARGETS, TARGET_SENTENCES, OVER_PLAIN, OVER_PADDED = {"resnet20": 250_000, "resnet56": 100_000}, 2_500, 5, 4
# Of a whole run of ResNet-20, K = 10: 200 epochs of 50,000 images.
TARGET_RUN_SECONDS, RUN_IMAGES = 420, 200 * 50_000
# [CLS] and [SEP].
SPECIAL_PIECES = 2
# Of a run; rounds that count; runs side by side; the BERT's shape; sentences to augment and to train on; steps of the
# check. In small for a CPU.
FULL = ({"train_size": 0, "batch_size": 128, "precision": "bf16"}, 3, (1, 2, 4, 8), BASE, 8192, 2048, 100)
SMALL = ({"train_size": 20, "batch_size": 10, "precision": "fp32"}, 1, (2,), TINY, 20, 32, 10)


def gpu() -> Iterator[str]:
    """How fast does a GPU train, and how far is that from what it can do at all? In bf16; K = 10 on images, 5 on text.

    The floor is the least time that the counted operations and bytes take at the rates measured in the same run
    (`benchmarks/floor.py`). Speeds are of training alone, from the second epoch on, as a run's record shows them, and
    of whole epochs with all that a user waits for. "Plain loop" and "padded" launch each operation by itself, over the
    same task. The checks have a seed never used before. `MMEL_DEVICE=cpu` tries all of it out in small.
    """
    device = machine.pick_device()
    if device.type == "cpu" and os.environ.get("MMEL_DEVICE") != "cpu":
        yield "No GPU here, so nothing was measured. MMEL_DEVICE=cpu tries the benchmark out in small."
        return
    if device.type == "cpu":
        yield "**These are not GPU figures**: small sizes on a CPU, to try it out.\n"
    work = Workloads(device)
    yield f"{machine.describe_device(device)['name']}: {floor.describe(work.rates)}.\n"
    yield table(HEAD)
    for name, lines in work.all():
        yield from or_failure(lines, lambda why, name=name: table_line(name, "", why, *[""] * (len(HEAD) - 3)))
    seed = secrets.randbelow(2**31)
    views, noise = (lambda: checks.views(device, seed)), lambda: checks.bf16_noise(work.noise_steps, str(device), seed)
    for name, check in (("views", views), ("bf16 noise", noise)):
        yield from or_failure(lambda check=check: f"\n{check()}", lambda why, name=name: f"\n{name}: {why}")


class Workloads:
    """The lines of the table, on one device; on a CPU in small, and no target is judged."""

    def __init__(self, device: torch.device):
        self.device, self.judged = str(device), device.type == "cuda"
        fields, self.rounds, self.packs, self.shape, self.to_augment, self.to_train, self.noise_steps = (
            FULL if self.judged else SMALL
        )
        self.rates = floor.measure_rates(device)
        self.config = PAPER_BATCH.replace(epochs=self.rounds + 1, decay_epochs=(), **fields)
        self.baseline_da = self.config.replace(method="baseline_da", num_augmented=1)

    def all(self) -> Iterator[tuple[str, Callable[[], Iterator[str]]]]:
        """The name of each workload, should it fail, and what yields its lines."""
        for model in TARGETS:
            yield f"{model}, training", lambda model=model: self.training(model)
        yield "whole epochs", self.whole_epochs
        yield "baseline_da", self.baseline
        for number in self.packs:
            yield f"{number} such runs side by side", lambda number=number: self.packed(number)
        yield "Algorithm 2", self.algorithm_2
        yield "fine-tuning", self.fine_tuning

    def training(self, model: str) -> Iterator[str]:
        config = self.config.replace(model=model)
        # After the last epoch comes the record's result.
        *lines, result = compare({"ours": (training_lines, config, self.device)}, self.rounds + 1)["ours"]
        yield self.image_line(f"training ({result['engine']})", config, [line[SPEED] for line in lines], TARGETS[model])

    def whole_epochs(self) -> Iterator[str]:
        """Wall time: training, evaluation, record and checkpoint of each epoch, but for the last, which has none."""
        config = self.config.replace(epochs=self.rounds + 2, holdout=0 if self.judged else self.config.holdout)
        rates = compare({"ours": (epoch_rates, config, self.device)}, self.rounds)["ours"]
        target = RUN_IMAGES * config.num_views / TARGET_RUN_SECONDS
        yield self.image_line(f"whole epochs (target: 200 in {TARGET_RUN_SECONDS} s)", config, rates, target)

    def baseline(self) -> Iterator[str]:
        config = self.baseline_da
        sides = {"ours": (training_lines, config, self.device), "plain": (eager_images, config, self.device)}
        lines = compare(sides, self.rounds + 1)
        *ours, result = lines["ours"]
        plain = [line[SPEED] for line in lines["plain"][:-1]]
        work = f"training ({result['engine']}; target: {OVER_PLAIN} times the plain loop)"
        yield self.image_line(work, config, [line[SPEED] for line in ours], OVER_PLAIN * statistics.median(plain))
        yield self.image_line("plain loop", config, plain)

    def packed(self, number: int) -> Iterator[str]:
        """Several such runs in processes of their own, all in the same epoch, of which the slowest one counts."""
        config, totals = self.baseline_da, []
        with ExitStack() as stack:
            runs = [(training_lines, config.replace(seed=seed), self.device) for seed in range(number)]
            asked = [stack.enter_context(side(*run)) for run in runs]
            for _ in range(1 + self.rounds):
                lines = [future.result() for future in [ask() for ask in asked]]
                images = sum(line[SPEED] * line["train_seconds"] for line in lines)
                totals.append(images / max(line["train_seconds"] for line in lines))
        yield self.image_line(f"{number} such runs side by side, in all", config, totals[1:])

    def algorithm_2(self) -> Iterator[str]:
        ours = (batched_fills, self.to_augment, self.shape, self.device)
        rates = [self.to_augment / seconds for seconds, _ in compare({"ours": ours}, self.rounds)["ours"]]
        work = work_of_algorithm_2(make_augmenter(self.shape))
        yield self.line("Algorithm 2, mask ratio 0.4", "sentences", rates, work, TARGET_SENTENCES)

    def fine_tuning(self) -> Iterator[str]:
        config, seconds = fine_tuning_seconds(self.shape, self.to_train, self.rounds, self.device)
        k, sequences = config.num_augmented, config.batch_size * config.num_augmented
        ours, padded = ([sequences / took for took in seconds[side]] for side in ("ours", "padded"))
        lengths = tuple(length + SPECIAL_PIECES for length in LENGTHS)
        one = floor.text_step(self.shape, lengths, k, config.batch_size) / sequences
        work, target = f"fine-tuning, K = {k}, CoLA's lengths", OVER_PADDED * statistics.median(padded)
        yield self.line(f"{work} (target: {OVER_PADDED} times padded)", "sequences", ours, one, target)
        yield self.line(f"{work}, padded", "sequences", padded, one)

    def image_line(self, work: str, config: ImageRun, rates: list[float], target: float | None = None) -> str:
        """The line of a run on CIFAR-10, with its floor and the paper's speed by the time column of its Table 1."""
        hours = common.paper_hours()["cifar10", config.model, config.method]
        paper = RUN_IMAGES * config.num_views / (3600 * hours)
        name = f"{config.model}, {config.method}, K = {config.num_views}, {work}"
        step = floor.image_step(config) / (config.batch_size * config.num_views)
        return self.line(name, "images", rates, step, target, paper)

    def line(self, work: str, unit: str, rates: list[float], one: floor.Pair, *judged_by: float | None) -> str:
        """Rates in a unit, beside what one of it takes at least; perhaps a target, and the paper's V100."""
        target, paper = (*judged_by, None, None)[:2]
        seconds, bound = floor.least_seconds(one, self.rates)
        rate = statistics.median(rates)
        verdict = "-" if target is None or not self.judged else "met" if rate >= target else "missed"
        measured = f"{rate:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        wanted, theirs = ("-" if value is None else f"{value:,.0f}" for value in (target, paper))
        limit = f"{1 / seconds:,.0f}", f"{1 / seconds / rate:.1f}", bound
        return table_line(work, unit, measured, *limit, wanted, verdict, theirs)


def epoch_rates(config: ImageRun, device: str) -> Iterator[float]:
    """Augmented images that a run trains a second of wall time, in each epoch."""
    begin = timer()
    for line in training_lines(config, device):
        yield line[SPEED] * line["train_seconds"] / (timer() - begin)
        begin = timer()


def eager_images(config: ImageRun, device: str) -> Iterator[Line]:
    """A run on images in the plain loop."""
    with patch.object(image_sets, "load_cifar", common.load_or_make):
        yield from common.eager_lines(ImageTask(config, None, torch.device(device)))


def work_of_algorithm_2(augment: MaskedLMAugmenter) -> floor.Pair:
    """The work of a sentence, the mean over CoLA's lengths."""
    one_of_each = make_sentences(len(LENGTHS))
    # The first call tries out the model's head, too.
    augment.ids(one_of_each[:1])

    def fill() -> torch.Tensor:
        # One by one: in a batch of several lengths padding would be counted too.
        for sentence in one_of_each:
            augment.ids([sentence])
        return torch.zeros(())

    return floor.count(augment.model, fill) / len(LENGTHS)
