"""How fast does a GPU train, and how far is that from what it can do at all? All in bf16; K = 10 on images, 5 on text.

Each workload stands beside its floor: the least time that its counted operations and bytes take at the matmul rate and
copy bandwidth measured in the same run (`benchmarks/floor.py` says what is counted). Speeds are those that a run's
record shows (`images_per_second`, `sequences_per_second`: training alone, from the second epoch on), so they are what
users get; "plain loop" and "padded" launch each operation by itself, over the same task. `MMEL_DEVICE=cpu` tries all of
it out in small.
"""

import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F

from benchmarks import bf16_noise, floor
from benchmarks.common import PAPER_BATCH, Side, alternate, eager_lines, load_or_make, table, training_lines
from benchmarks.text_augmentation import BASE, LENGTHS, TINY, make_augmenter, make_sentences
from benchmarks.text_training import PADDED_LENGTH, padded_outputs
from mmel.augment.image import RandomCropFlip
from mmel.config import RunConfig
from mmel.grids import recipe
from mmel.records import Line, Store
from mmel.report.aggregate import paper_table
from mmel.train import machine, vision
from mmel.train.text import TextTask, build_augmenter

ENCODER = "random-bert"
# [CLS] and [SEP].
SPECIAL_PIECES = 2


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        train_size: images an epoch; 0 for all but those held out.
        batch_size: of the runs on images.
        rounds: epochs (of Algorithm 2: passes) that count, after one that warms up.
        packs: numbers of runs side by side.
        shape: of the BERT with random weights.
        num_augment: sentences that Algorithm 2 augments.
        num_finetune: sentences that are trained on.
        noise_steps: of each run of the self-check.
    """

    train_size: int
    batch_size: int
    rounds: int
    packs: tuple[int, ...]
    shape: dict[str, int]
    num_augment: int
    num_finetune: int
    noise_steps: int


FULL = Sizes(0, 128, 3, (1, 2, 4, 8), BASE, 8192, 2048, 100)
SMALL = Sizes(40, 20, 1, (1, 2), TINY, 40, 64, 10)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what is done.
        unit: of which there are so many a second.
        rates: measured, one a round.
        per_step: how many of them one `step` is.
        step: what has to be done for that.
        target: in the same unit.
        paper: the paper's V100, in the same unit.
    """

    work: str
    unit: str
    rates: list[float]
    per_step: float
    step: floor.Work
    target: float | None = None
    paper: float | None = None

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    def cells(self, rates: floor.Rates, judged: bool) -> tuple[str, ...]:
        """The line's cells, with the floor at a machine's rates, and the target's verdict where it is judged."""
        seconds, bound = rates.floor(self.step)
        limit = self.per_step / seconds
        verdict = "-" if self.target is None or not judged else "met" if self.rate >= self.target else "missed"
        spread = f"{self.rate:,.0f} ({min(self.rates):,.0f} to {max(self.rates):,.0f})"
        wanted, paper = ("-" if value is None else f"{value:,.0f}" for value in (self.target, self.paper))
        return self.work, self.unit, spread, f"{limit:,.0f}", f"{limit / self.rate:.1f}", bound, wanted, verdict, paper


def measure() -> str:
    """All workloads, one after the other, then the self-checks."""
    device = machine.pick_device()
    if device.type == "cpu" and os.environ.get("MMEL_DEVICE") != "cpu":
        return "No GPU here, so nothing was measured. MMEL_DEVICE=cpu tries the benchmark out in small."
    sizes = SMALL if device.type == "cpu" else FULL
    rates = floor.measure_rates(device)
    rows = [*_images(device, sizes), *_texts(device, sizes)]
    head = ("work", "a second", "measured", "at the floor", "its multiple", "bound by", "target", "", "paper's V100")
    warning = "" if device.type == "cuda" else "**These are not GPU figures**: small sizes on a CPU, to try it out.\n\n"
    return (
        f"{warning}{machine.describe_device(device)['name']}: {rates.moved / 1e9:,.0f} GB/s copied (read and written), "
        f"{rates.operations / 1e12:,.1f} TFLOP/s of bf16 matrix products.\n\n"
        f"{table(head, *(row.cells(rates, device.type == 'cuda') for row in rows))}\n\n{_checks(device, sizes)}"
    )


def eager_images(config: RunConfig, device: str) -> Iterator[Line]:
    """A run on images in the plain loop."""
    with patch.object(vision, "load_images", load_or_make):
        yield from eager_lines(vision.VisionTask(config, None, torch.device(device)))


def padded_text(config: RunConfig, device: str, data_root: str) -> Iterator[Line]:
    """A run on text in the plain loop, each sequence padded."""
    with tempfile.TemporaryDirectory() as folder:
        task = TextTask(config, None, Store(folder), data_root, torch.device(device))
        yield from eager_lines(
            task,
            lambda index, _: task.criterion.terms(
                padded_outputs(task.model, task.sequences, index), task.targets[index]
            ),
        )


def augmented_texts(config: RunConfig, device: str, data_root: str, num_sentences: int) -> Iterator[float]:
    """Sentences a second of the augmenter that a run on text uses, its cache empty each time."""
    sentences = make_sentences(num_sentences)
    while True:
        with tempfile.TemporaryDirectory() as folder:
            augment = build_augmenter(config, Store(folder), data_root=data_root, device=device)
            begin = time.perf_counter()
            augment.ids(sentences)
            yield num_sentences / (time.perf_counter() - begin)


def _images(device: torch.device, sizes: Sizes) -> Iterator[Row]:
    base = PAPER_BATCH.replace(
        train_size=sizes.train_size, batch_size=sizes.batch_size, epochs=sizes.rounds + 1, decay_epochs=()
    )
    for model, target in (("resnet20", 250_000), ("resnet56", 100_000)):
        config = base.replace(model=model)
        with Side(training_lines, config, str(device)) as ours:
            lines = alternate({"ours": ours}, sizes.rounds)["ours"]
            work = f"{model}, K = {config.num_augmented}, training ({_engine(ours())})"
        yield _image_row(work, config, _rates(lines), target)

    config = base.replace(method="baseline_da", num_augmented=1)
    with Side(training_lines, config, str(device)) as ours, Side(eager_images, config, str(device)) as plain:
        lines = alternate({"ours": ours, "plain": plain}, sizes.rounds)
        work = f"{config.model}, baseline_da ({_engine(ours())}; target: 5 times the plain loop)"
    row = _image_row(f"{config.model}, baseline_da, plain loop", config, _rates(lines["plain"]))
    yield _image_row(work, config, _rates(lines["ours"]), 5 * row.rate)
    yield row
    for number in sizes.packs:
        totals = _packed(config, number, device, sizes.rounds)
        yield Row(f"{number} such runs side by side, in all", "images", totals, *_floor_of(config))


def _packed(config: RunConfig, number: int, device: torch.device, rounds: int) -> list[float]:
    """Images a second of several runs in processes of their own, all in the same epoch; the slowest one counts."""
    totals = []
    with ExitStack() as stack, ThreadPoolExecutor(number) as pool:
        sides = [stack.enter_context(Side(training_lines, config.replace(seed=s), str(device))) for s in range(number)]
        for _ in range(1 + rounds):
            lines = list(pool.map(lambda side: side(), sides))
            images = sum(line["images_per_second"] * line["train_seconds"] for line in lines)
            totals.append(images / max(line["train_seconds"] for line in lines))
    return totals[1:]


def _texts(device: torch.device, sizes: Sizes) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as root:
        per_sentence = _make_encoder(Path(root) / ENCODER, sizes.shape)
        _make_cola(Path(root) / "glue" / "CoLA", sizes.num_finetune)
        config = RunConfig(
            **(recipe("cola") | {"model": ENCODER, "epochs": sizes.rounds + 1}), dataset="cola", label_source="original"
        )
        with Side(augmented_texts, config, str(device), root, sizes.num_augment) as ours:
            found = alternate({"ours": ours}, sizes.rounds)["ours"]
        yield Row("Algorithm 2, mask ratio 0.4", "sentences", found, 1, per_sentence, 2_500)

        with (
            Side(training_lines, config, str(device), root) as ours,
            Side(padded_text, config, str(device), root) as padded,
        ):
            lines = alternate({"ours": ours, "padded": padded}, sizes.rounds)
        k = config.num_augmented
        lengths = tuple(length + SPECIAL_PIECES for length in LENGTHS)
        step = floor.text_step(sizes.shape, lengths, k, config.batch_size)
        name, per_step = f"fine-tuning, K = {k}, CoLA's lengths", config.batch_size * k
        row = Row(f"{name}, padded to {PADDED_LENGTH}", "sequences", _rates(lines["padded"]), per_step, step)
        ours = _rates(lines["ours"])
        yield Row(f"{name} (target: 4 times padded)", "sequences", ours, per_step, step, 4 * row.rate)
        yield row


def _make_encoder(folder: Path, shape: dict[str, int]) -> floor.Work:
    """Save a BERT with random weights; the work of Algorithm 2 on a sentence, the mean over CoLA's lengths."""
    augment = make_augmenter(shape)
    augment.model.save_pretrained(folder)
    augment.tokenizer.save_pretrained(folder)
    one_of_each = make_sentences(len(LENGTHS))
    # The first call tries out the model's head, too.
    augment.ids(one_of_each[:1])

    def fill() -> torch.Tensor:
        # One by one: in a batch of several lengths padding would be counted too.
        for sentence in one_of_each:
            augment.ids([sentence])
        return torch.zeros(())

    return floor.count(augment.model, fill) * (1 / len(LENGTHS))


def _make_cola(folder: Path, num_sentences: int) -> None:
    folder.mkdir(parents=True)
    rows = [f"x\t{place % 2}\t\t{sentence}\n" for place, sentence in enumerate(make_sentences(num_sentences))]
    (folder / "train.tsv").write_text("".join(rows), encoding="utf-8")
    (folder / "dev.tsv").write_text("".join(rows[:32]), encoding="utf-8")


def _rates(lines: list[Line]) -> list[float]:
    return [value for line in lines for name, value in line.items() if name.endswith("s_per_second")]


def _engine(result: Line) -> str:
    # A record that does not say was trained before there was a choice.
    return result.get("engine", "eager")


def _floor_of(config: RunConfig) -> tuple[float, floor.Work]:
    return config.batch_size * config.num_views, floor.image_step(config)


def _image_row(work: str, config: RunConfig, rates: list[float], target: float | None = None) -> Row:
    paper = paper_table("table1").set_index(["dataset", "model", "method"])
    hours = paper.loc[("cifar10", config.model, config.method), "train_hours_v100"]
    # 200 epochs of 50,000 images.
    images = 200 * 50_000 * config.num_views
    return Row(work, "images", rates, *_floor_of(config), target, images / (hours * 3600))


def _checks(device: torch.device, sizes: Sizes) -> str:
    """Whether what was timed computes what it should, on inputs that no run has seen before."""
    seed = secrets.randbelow(2**31)
    noise = bf16_noise.measure(sizes.noise_steps, str(device), seed, eager_fp32=True)
    return (
        f"Views on the device that differ from slicing, seed {seed}: {_wrong_views(device, seed)}.\n\n"
        f"bf16 of `mmel.train` beside float32 of the plain loop, seed {seed}:\n\n{noise}"
    )


def _wrong_views(device: torch.device, seed: int) -> str:
    """Views of a batch that are not what slicing gives: one that was never written would not be, either."""
    augment = RandomCropFlip(padding=4)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (128, 3, 32, 32), generator=generator, dtype=torch.uint8)
    codes = augment.draw(torch.arange(len(images), device=device), 10, seed, epoch=1)
    views = augment.apply(images.to(device), codes).cpu()
    padded = F.pad(images, (augment.padding,) * 4)
    wrong = 0
    for n, v in product(range(len(images)), range(views.shape[1])):
        flipped, place = divmod(int(codes[n, v]), augment.side**2)
        top, left = divmod(place, augment.side)
        view = padded[n, :, top : top + 32, left : left + 32]
        wrong += not torch.equal(views[n, v], view.flip(-1) if flipped else view)
    return f"{wrong} of {views.shape[0] * views.shape[1]}"
