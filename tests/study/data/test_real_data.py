"""The loaders on official data, if the folder that MMEL_DATA names holds them; else these tests are skipped."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from mmel.augment.text import encode
from mmel.study.config import MAX_LENGTH
from mmel.study.data.images import channel_statistics
from mmel.study.datasets import DATASETS
from mmel.study.models.encoder import load_tokenizer

ROOT = Path(os.environ.get("MMEL_DATA") or "nowhere")
# Mean and deviation of each channel, as anybody's training code has them.
CHANNELS = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
}
# The most frequent class of a dev set, and its share in percent: the accuracy of a constant answer.
CONSTANT = {
    **{"cola": (1, 69.1), "sst2": (1, 50.9), "mrpc": (1, 68.4)},
    **{"mnli": (0, 35.4), "qnli": (1, 50.5), "rte": (0, 52.7)},
}


def load(name, folder):
    if not (ROOT / folder).is_dir():
        pytest.skip(f"needs {folder} in the folder that MMEL_DATA names")
    return DATASETS[name].load(ROOT)


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_cifar_is_the_one_that_everybody_has(name, folder):
    parts = load(name, folder)
    assert [len(part) for part in parts] == [50_000, 10_000]
    for part in parts:
        assert part.pixels.shape[1:] == (3, 32, 32)
        assert set(torch.bincount(part.labels).tolist()) == {len(part) // part.num_classes}
    for found, known in zip(channel_statistics(parts[0]), CHANNELS[name], strict=True):
        assert found.tolist() == pytest.approx(known, abs=1e-4)


def test_every_jpeg_of_imagenette_can_be_decoded():
    for part in load("imagenette", "imagenette"):
        images = [part.decode(n) for n in range(len(part))]
        assert all(image.shape[0] == 3 and image.dtype == torch.uint8 for _, image in images)
        assert set(part.labels.tolist()) == set(range(10))


@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "rte"])
def test_a_complete_task_of_glue_has_its_sizes_and_lengths(name):
    data = DATASETS[name]
    parts = load(name, f"glue/{data.label}")
    assert {split: len(part) for split, part in parts.items()} == data.sizes
    if (ROOT / "minilm-l6-mlm").is_dir():
        # It has the vocabulary of bert-base-uncased.
        train = parts["train"]
        lengths = [
            len(entry.ids)
            for entry in encode(load_tokenizer(ROOT / "minilm-l6-mlm"), train.sentences, train.pairs, MAX_LENGTH)
        ]
        assert data.pieces == round(sum(lengths) / len(lengths))


@pytest.mark.parametrize("name", CONSTANT)
def test_labels_are_numbered_as_on_the_hub(name):
    targets = load(name, f"glue/{DATASETS[name].label}")["dev"].targets
    ((label, count),) = Counter(targets).most_common(1)
    assert (label, round(100 * count / len(targets), 1)) == CONSTANT[name]
