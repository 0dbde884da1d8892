import hashlib
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets

from mmel.study.data import DataError
from mmel.study.data.images import Images, channel_statistics, split_train, with_wrong_labels
from mmel.study.datasets import DATASETS

# Digits.


def test_digits_are_all_there_once_and_split_alike_at_every_call():
    before = torch.get_rng_state()
    train, test = DATASETS["digits"].load()
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(train), len(test)] == [1437, 360]
    # Together they are the whole set, so that no image is in both. Ink of 0 ... 16 becomes 0 ... 255.
    bunch = load_digits()
    whole = np.column_stack([np.rint(bunch.images * 255 / 16).reshape(-1, 64), bunch.target])
    pixels, labels = torch.cat([train.pixels, test.pixels]), torch.cat([train.labels, test.labels])
    assert sorted(np.column_stack([pixels.flatten(1), labels]).tolist()) == sorted(whole.tolist())
    assert (pixels.shape, pixels.dtype, labels.dtype) == ((1797, 1, 8, 8), torch.uint8, torch.int64)
    assert train.num_classes == test.num_classes == 10
    # Recorded runs were measured on this very split.
    assert hashlib.sha256(test.labels.numpy().tobytes()).hexdigest()[:16] == "c8eb975c3c91cd1f"


# Splits.


def numbered(per_class):
    """Images whose two pixels are their own index, classes shuffled."""
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(per_class)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    index = torch.arange(len(labels))
    pixels = torch.stack([index // 256, index % 256], dim=1).to(torch.uint8).view(-1, 1, 1, 2)
    return Images(pixels, labels, len(per_class))


def indices(images):
    high, low = images.pixels.flatten(1).int().unbind(dim=1)
    return (high * 256 + low).tolist()


@pytest.mark.parametrize(
    ("train_size", "holdout", "kept_counts", "held_counts"),
    [
        (0, 0, [100, 120, 130], [0, 0, 0]),
        (0, 30, [90, 110, 120], [10, 10, 10]),
        (60, 0, [20, 20, 20], [0, 0, 0]),
        (270, 30, [90, 90, 90], [10, 10, 10]),
        # Sizes that the classes do not divide: the first ones get one more.
        (61, 32, [21, 20, 20], [11, 11, 10]),
    ],
)
def test_a_split_is_balanced_disjoint_and_the_same_in_every_run(train_size, holdout, kept_counts, held_counts):
    images = numbered([100, 120, 130])
    parts = split_train(images, train_size, holdout)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        again = split_train(images, train_size, holdout)
    for part, other, counts in zip(parts, again, (kept_counts, held_counts), strict=True):
        assert torch.bincount(part.labels, minlength=3).tolist() == counts
        assert indices(part) == indices(other) == sorted(set(indices(part)))
        assert torch.equal(part.labels, images.labels[indices(part)])
    assert not set(indices(parts[0])) & set(indices(parts[1]))


def test_smaller_training_sets_lie_within_larger_ones_and_are_drawn_at_random():
    images = numbered([400, 400])
    splits = [split_train(images, train_size, holdout=200) for train_size in (30, 200, 0)]
    small, middle, large = (set(indices(kept)) for kept, _ in splits)
    assert small < middle < large
    # The held-out images do not depend on how many of the others are used.
    assert len({tuple(indices(held)) for _, held in splits}) == 1
    # Not the first ones of each class, whose files may be sorted by something.
    for part in splits[1]:
        assert 350 < np.mean(indices(part)) < 450
        assert max(indices(part)) > 780


def test_another_seed_draws_another_split():
    images = numbered([400, 400])
    first, second = (split_train(images, 200, 200, seed) for seed in (0, 1))
    for part, other in zip(first, second, strict=True):
        assert torch.bincount(other.labels).tolist() == [100, 100]
        assert 10 < len(set(indices(part)) & set(indices(other))) < 100
    assert not set(indices(second[0])) & set(indices(second[1]))


def test_a_share_of_the_labels_is_wrong():
    images = numbered([400, 400, 200])
    spoiled = with_wrong_labels(images, 0.2, seed=1)
    wrong = spoiled.labels != images.labels
    assert wrong.sum() == 200
    assert torch.equal(spoiled.pixels, images.pixels)
    # Whatever the class, any of the others.
    pairs = set(zip(images.labels[wrong].tolist(), spoiled.labels[wrong].tolist(), strict=True))
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}
    assert torch.equal(spoiled.labels, with_wrong_labels(images, 0.2, seed=1).labels)
    assert not torch.equal(spoiled.labels, with_wrong_labels(images, 0.2, seed=2).labels)
    assert torch.equal(with_wrong_labels(images, 0.0, seed=1).labels, images.labels)


@pytest.mark.parametrize("sizes", [(303, 0), (0, 300), (0, 303), (270, 33), (2, 0)])
def test_a_split_that_the_classes_cannot_give_is_refused(sizes):
    wrong = [name for name, size in zip(("train_size", "holdout"), sizes, strict=True) if size]
    with pytest.raises(ValueError, match=wrong[0]):
        split_train(numbered([100, 120, 130]), *sizes)


@pytest.mark.parametrize(("n", "channels"), [(2, 3), (500, 3), (50, 1)])
def test_channel_statistics_are_numpys(n, channels):
    pixels = torch.randint(0, 256, (n, channels, 4, 5), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)
    # Channels that differ in mean and spread.
    images = Images(pixels // torch.arange(1, channels + 1)[:, None, None], torch.zeros(n).long(), 2)
    scaled = images.pixels.numpy().astype(np.float64) / 255
    for actual, expected in zip(channel_statistics(images), (scaled.mean, scaled.std), strict=True):
        assert actual.dtype == torch.float32
        np.testing.assert_allclose(actual.numpy(), expected(axis=(0, 2, 3)), rtol=1e-6, atol=0)


# CIFAR, which torchvision reads, checks and downloads.


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, monkeypatch):
    """Name, torchvision's class with four images a part in the place of its own, and the calls that it gets."""
    kind, calls = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[request.param], []

    def init(self, root, train, download):
        calls.append((root, train, download))
        if download:
            raise URLError("no network here")
        generator = np.random.default_rng(train)
        self.data = generator.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        self.targets, self.classes = [3, 1, 3, 0], ["a", "b", "c", "d"]

    monkeypatch.setattr(kind, "__init__", init)
    return request.param, kind, calls


def test_cifar_is_read_as_planes(cifar, tmp_path):
    name, kind, calls = cifar
    (tmp_path / kind.base_folder).mkdir()
    for images, train in zip(DATASETS[name].load(tmp_path), (True, False), strict=True):
        rows = np.random.default_rng(train).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        assert torch.equal(images.pixels, torch.from_numpy(rows.transpose(0, 3, 1, 2).copy()))
        assert images.pixels.is_contiguous()
        assert (images.labels.dtype, images.labels.tolist()) == (torch.int64, [3, 1, 3, 0])
        assert images.num_classes == 4
    # A folder that is there is never overwritten.
    assert calls == [(tmp_path, True, False), (tmp_path, False, False)]


def test_cifar_without_a_folder_and_without_a_network(cifar, tmp_path):
    name, kind, calls = cifar
    with pytest.raises(DataError, match=rf"^{name}: {tmp_path / kind.base_folder} .*no network here.*MMEL_DATA"):
        DATASETS[name].load(tmp_path)
    assert calls == [(tmp_path, True, True)]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_damaged_folder_of_cifar_is_named(name, tmp_path):
    folder = tmp_path / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"<html>")
    with pytest.raises(DataError, match=rf"^{name}: {folder} .*MMEL_DATA"):
        DATASETS[name].load(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["data_batch_1"]
