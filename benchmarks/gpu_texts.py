"""The workloads on text of `benchmarks/gpu.py`."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks import floor
from benchmarks.common import Side, alternate, eager_lines, training_lines
from benchmarks.gpu_rows import Row, Sizes, Workload, rates_of
from benchmarks.text_augmentation import LENGTHS, make_augmenter, make_sentences
from benchmarks.text_training import PADDED_LENGTH, padded_outputs
from mmel.augment.text import MaskedLMAugmenter
from mmel.config import RunConfig
from mmel.grids import recipe
from mmel.records import Line, Store
from mmel.train.encoder import build_augmenter
from mmel.train.text import TextTask

ENCODER = "random-bert"
# [CLS] and [SEP].
SPECIAL_PIECES = 2
TARGET_SENTENCES = 2_500
# Of fine-tuning, over the loop padded to 128.
TARGET_OVER_PADDED = 4


def workloads(device: torch.device, sizes: Sizes) -> Iterator[Workload]:
    """Algorithm 2, and fine-tuning beside the padded loop."""
    config = RunConfig(
        **(recipe("cola") | {"model": ENCODER, "epochs": sizes.rounds + 1}), dataset="cola", label_source="original"
    )
    yield "Algorithm 2", partial(_algorithm_2, config, device, sizes)
    yield "fine-tuning", partial(_fine_tuning, config, device, sizes)


def _algorithm_2(config: RunConfig, device: torch.device, sizes: Sizes) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as root:
        per_sentence = work_of_algorithm_2(_save_encoder(Path(root), sizes.shape))
        with Side(augmented_texts, config, str(device), root, sizes.num_augment) as ours:
            found = alternate({"ours": ours}, sizes.rounds)["ours"]
    yield Row(f"Algorithm 2, mask ratio {config.mask_ratio}", "sentences", found, 1, per_sentence, TARGET_SENTENCES)


def augmented_texts(config: RunConfig, device: str, data_root: str, num_sentences: int) -> Iterator[float]:
    """Sentences a second of the augmenter that a run on text uses, its cache empty each time."""
    sentences = make_sentences(num_sentences)
    while True:
        with tempfile.TemporaryDirectory() as folder:
            augment = build_augmenter(config, Store(folder), data_root=data_root, device=device)
            begin = time.perf_counter()
            augment.ids(sentences)
            yield num_sentences / (time.perf_counter() - begin)


def work_of_algorithm_2(augment: MaskedLMAugmenter) -> floor.Work:
    """The work of a sentence, the mean over CoLA's lengths."""
    one_of_each = make_sentences(len(LENGTHS))
    # The first call tries out the model's head, too.
    augment.ids(one_of_each[:1])

    def fill() -> torch.Tensor:
        # One by one: in a batch of several lengths padding would be counted too.
        for sentence in one_of_each:
            augment.ids([sentence])
        return torch.zeros(())

    return floor.count(augment.model, fill) * (1 / len(LENGTHS))


def _fine_tuning(config: RunConfig, device: torch.device, sizes: Sizes) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as root:
        _save_encoder(Path(root), sizes.shape)
        _make_cola(Path(root), sizes.num_finetune)
        with (
            Side(training_lines, config, str(device), root) as ours,
            Side(padded_text, config, str(device), root) as padded,
        ):
            lines = alternate({"ours": ours, "padded": padded}, sizes.rounds)
    k = config.num_augmented
    lengths = tuple(length + SPECIAL_PIECES for length in LENGTHS)
    step = floor.text_step(sizes.shape, lengths, k, config.batch_size)
    name, per_step = f"fine-tuning, K = {k}, CoLA's lengths", config.batch_size * k
    row = Row(f"{name}, padded to {PADDED_LENGTH}", "sequences", rates_of(lines["padded"]), per_step, step)
    work = f"{name} (target: {TARGET_OVER_PADDED} times padded)"
    yield Row(work, "sequences", rates_of(lines["ours"]), per_step, step, TARGET_OVER_PADDED * row.rate)
    yield row


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


def _save_encoder(root: Path, shape: dict[str, int]) -> MaskedLMAugmenter:
    """Save a BERT with random weights under `root`; returns the augmenter that has it."""
    augment = make_augmenter(shape)
    augment.model.save_pretrained(root / ENCODER)
    augment.tokenizer.save_pretrained(root / ENCODER)
    return augment


def _make_cola(root: Path, num_sentences: int) -> None:
    """Write sentences with random labels under `root` as CoLA's files."""
    folder = root / "glue" / "CoLA"
    folder.mkdir(parents=True)
    rows = [f"x\t{place % 2}\t\t{sentence}\n" for place, sentence in enumerate(make_sentences(num_sentences))]
    (folder / "train.tsv").write_text("".join(rows), encoding="utf-8")
    (folder / "dev.tsv").write_text("".join(rows[:32]), encoding="utf-8")
