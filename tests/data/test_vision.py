import hashlib
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets

from mmel.data import DataError
from mmel.data.digits import digits
from mmel.data.vision import Images, channel_statistics, load_images, split_train

CIFAR = {
    "cifar10": {
        "class": datasets.CIFAR10,
        "folder": "cifar-10-batches-py",
        "train": ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        "test": ["test_batch"],
        "meta": "batches.meta",
        "labels": "labels",
        "classes": 10,
    },
    "cifar100": {
        "class": datasets.CIFAR100,
        "folder": "cifar-100-python",
        "train": ["train"],
        "test": ["test"],
        "meta": "meta",
        "labels": "fine_labels",
        "classes": 100,
    },
}
each_cifar = pytest.mark.parametrize("dataset", CIFAR)


def rows(pixels, labels):
    """Image and label as one row of numbers, sorted: equal for the same set in any order."""
    return sorted(map(tuple, np.concatenate([pixels.flatten(1).numpy(), labels[:, None].numpy()], axis=1).tolist()))


# Digits.


def test_digits_are_all_there_once():
    (train_pixels, train_labels), (test_pixels, test_labels) = digits()
    for pixels, labels, n in ((train_pixels, train_labels, 1437), (test_pixels, test_labels, 360)):
        assert pixels.shape == (n, 1, 8, 8)
        assert pixels.dtype == torch.uint8
        assert labels.shape == (n,)
        assert labels.dtype == torch.int64
        assert labels.unique().tolist() == list(range(10))
    # Together they are the whole set, so that no image is in both. Ink of 0 ... 16 becomes 0 ... 255.
    bunch = load_digits()
    expected = torch.from_numpy(np.rint(bunch.images * 255 / 16)[:, None]).to(torch.uint8)
    pixels, labels = torch.cat([train_pixels, test_pixels]), torch.cat([train_labels, test_labels])
    assert rows(pixels, labels) == rows(expected, torch.from_numpy(bunch.target))
    assert pixels.max() == 255


def test_digits_are_split_alike_at_every_call():
    torch.manual_seed(0)
    first = digits()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    second = digits()
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    # Recorded runs were measured on this very split.
    assert hashlib.sha256(first[1][1].numpy().tobytes()).hexdigest()[:16] == "c8eb975c3c91cd1f"


def test_load_images_of_digits():
    for images, (pixels, labels) in zip(load_images("digits"), digits(), strict=True):
        assert torch.equal(images.pixels, pixels)
        assert torch.equal(images.labels, labels)
        assert images.num_classes == 10
        assert len(images) == len(labels)


def test_unknown_dataset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"^dataset must be one of cifar10, cifar100, digits, got 'mnist'$"):
        load_images("mnist")


def test_take_keeps_pixels_and_labels_together():
    images = Images(torch.arange(6).to(torch.uint8).view(6, 1, 1, 1), torch.arange(6) * 10, 60)
    taken = images.take(torch.tensor([4, 0, 4]))
    assert taken.pixels.flatten().tolist() == [4, 0, 4]
    assert taken.labels.tolist() == [40, 0, 40]
    assert taken.num_classes == 60


# Splits.


def numbered(per_class, seed=0):
    """Images whose two pixels are their own place, classes shuffled."""
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(per_class)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    place = torch.arange(len(labels))
    pixels = torch.stack([place // 256, place % 256], dim=1).to(torch.uint8).view(-1, 1, 1, 2)
    return Images(pixels, labels, len(per_class))


def places(images):
    high, low = images.pixels.flatten(1).int().unbind(dim=1)
    return (high * 256 + low).tolist()


def class_counts(images):
    return torch.bincount(images.labels, minlength=images.num_classes).tolist()


@pytest.mark.parametrize(
    ("train_size", "holdout", "kept_counts", "held_counts"),
    [
        (0, 0, [100, 120, 130], [0, 0, 0]),
        (0, 30, [90, 110, 120], [10, 10, 10]),
        (60, 0, [20, 20, 20], [0, 0, 0]),
        (60, 30, [20, 20, 20], [10, 10, 10]),
        (270, 30, [90, 90, 90], [10, 10, 10]),
        # Sizes that the classes do not divide: the first ones get one more.
        (61, 32, [21, 20, 20], [11, 11, 10]),
    ],
)
def test_split_is_balanced_disjoint_and_deterministic(train_size, holdout, kept_counts, held_counts):
    images = numbered([100, 120, 130])
    torch.manual_seed(0)
    kept, held = split_train(images, train_size, holdout)
    assert class_counts(kept) == kept_counts
    assert class_counts(held) == held_counts
    for part in (kept, held):
        assert len(set(places(part))) == len(part)
        assert torch.equal(part.labels, images.labels[places(part)])
        assert part.num_classes == 3
        assert places(part) == sorted(places(part))
    assert not set(places(kept)) & set(places(held))

    torch.manual_seed(1)
    before = torch.get_rng_state()
    again = split_train(images, train_size, holdout)
    assert torch.equal(torch.get_rng_state(), before)
    assert [places(part) for part in again] == [places(kept), places(held)]


def test_smaller_training_sets_lie_within_larger_ones():
    images = numbered([100, 120, 130])
    splits = [split_train(images, train_size, holdout=30) for train_size in (30, 90, 270, 0)]
    kept = [set(places(kept)) for kept, _ in splits]
    assert kept[0] < kept[1] < kept[2] < kept[3]
    # What is held out does not depend on how many of the others are used.
    assert len({tuple(places(held)) for _, held in splits}) == 1


def test_split_is_random():
    # Not the first ones of each class, whose files may be sorted by something.
    images = numbered([400, 400])
    for part in split_train(images, train_size=200, holdout=200):
        assert 350 < np.mean(places(part)) < 450
        assert max(places(part)) > 780


@pytest.mark.parametrize(("train_size", "holdout"), [(303, 0), (0, 300), (0, 303), (270, 33), (2, 0)])
def test_split_that_a_class_cannot_give(train_size, holdout):
    with pytest.raises(ValueError, match=rf"^train_size={train_size} and holdout={holdout} need .* images of class \d"):
        split_train(numbered([100, 120, 130]), train_size, holdout)


@pytest.mark.parametrize(("argument", "value"), [("train_size", -3), ("holdout", -1), ("holdout", -30)])
def test_split_of_a_negative_size(argument, value):
    with pytest.raises(ValueError, match=rf"{argument}.*{value}"):
        split_train(numbered([100, 120, 130]), **{argument: value})


# Statistics.


def random_images(n, channels):
    pixels = torch.randint(0, 256, (n, channels, 4, 5), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)
    # Channels that differ in mean and spread.
    return Images(pixels // torch.arange(1, channels + 1)[:, None, None], torch.zeros(n).long(), 2)


@pytest.mark.parametrize(("n", "channels"), [(2, 3), (500, 3), (50, 1)])
def test_channel_statistics_are_numpys(n, channels):
    images = random_images(n, channels)
    mean, std = channel_statistics(images)
    scaled = images.pixels.numpy().astype(np.float64) / 255
    for actual, expected in ((mean, scaled.mean(axis=(0, 2, 3))), (std, scaled.std(axis=(0, 2, 3)))):
        assert actual.dtype == torch.float32
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6, atol=0)


# CIFAR, as tiny files in the official layout.


@pytest.fixture
def fake_cifar(tmp_path, monkeypatch):
    """Writes a data set of four images a file, whose MD5 sums torchvision then expects."""

    def write(dataset):
        layout, generator = CIFAR[dataset], np.random.default_rng(0)
        folder = tmp_path / layout["folder"]
        folder.mkdir()

        def dump(name, content):
            data = pickle.dumps(content)
            (folder / name).write_bytes(data)
            return [name, hashlib.md5(data).hexdigest()]

        content = {
            name: {
                "data": generator.integers(0, 256, (4, 3072), dtype=np.uint8),
                layout["labels"]: generator.integers(0, layout["classes"], 4).tolist(),
                "coarse_labels": [0] * 4,
            }
            for name in layout["train"] + layout["test"]
        }
        sums = {part: [dump(name, content[name]) for name in layout[part]] for part in ("train", "test")}
        names = [f"class {i}" for i in range(layout["classes"])]
        meta, md5 = dump(layout["meta"], {"label_names": names, "fine_label_names": names})
        cls = layout["class"]
        monkeypatch.setattr(cls, "train_list", sums["train"])
        monkeypatch.setattr(cls, "test_list", sums["test"])
        monkeypatch.setattr(cls, "meta", {**cls.meta, "filename": meta, "md5": md5})
        return folder, content

    return write


@pytest.fixture
def downloads(monkeypatch):
    """Every download fails; returns the folders it was to go to."""
    roots = []

    def fail(url, root, **kwargs):
        roots.append(str(root))
        raise URLError("no network here")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    monkeypatch.delenv("MMEL_DATA", raising=False)
    return roots


@each_cifar
def test_cifar_is_read_as_planes(fake_cifar, downloads, dataset):
    folder, content = fake_cifar(dataset)
    layout = CIFAR[dataset]
    for images, part in zip(load_images(dataset, folder.parent), ("train", "test"), strict=True):
        # A row of a file is 1,024 red, then green, then blue values, row by row.
        data = np.concatenate([content[name]["data"] for name in layout[part]])
        labels = [label for name in layout[part] for label in content[name][layout["labels"]]]
        assert images.pixels.dtype == torch.uint8
        assert images.pixels.is_contiguous()
        assert torch.equal(images.pixels, torch.from_numpy(data).view(-1, 3, 32, 32))
        assert images.labels.dtype == torch.int64
        assert images.labels.tolist() == labels
        assert images.num_classes == layout["classes"]
    assert downloads == []


def test_the_argument_goes_before_the_environment_and_that_before_the_default(
    fake_cifar, downloads, tmp_path, monkeypatch
):
    folder, _ = fake_cifar("cifar10")
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("MMEL_DATA", str(elsewhere))
    assert len(load_images("cifar10", str(folder.parent))[0]) == 20
    with pytest.raises(DataError, match="elsewhere"):
        load_images("cifar10")
    monkeypatch.setenv("MMEL_DATA", str(folder.parent))
    assert len(load_images("cifar10")[1]) == 4
    monkeypatch.delenv("MMEL_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"\bdata/cifar-10-batches-py\b"):
        load_images("cifar10")
    assert downloads == [str(elsewhere), "data"]


def assert_helpful(error, dataset, folder):
    """The message names the data set, the folder, what is expected there and how to get it."""
    message = str(error.value)
    layout = CIFAR[dataset]
    assert message.startswith(f"{dataset}: ")
    assert str(folder) in message
    for name in (layout["train"][0], layout["train"][-1], *layout["test"], layout["meta"]):
        assert name in message
    for way in ("--data-root", "MMEL_DATA", "download", "docs/data.md"):
        assert way in message


@each_cifar
def test_missing_folder_without_network(downloads, dataset, tmp_path):
    with pytest.raises(DataError, match=r"the download failed .*no network here") as error:
        load_images(dataset, tmp_path)
    assert_helpful(error, dataset, tmp_path / CIFAR[dataset]["folder"])
    assert isinstance(error.value.__cause__, URLError)
    assert downloads == [str(tmp_path)]


@each_cifar
@pytest.mark.parametrize("damage", ["garbage", "empty", "one_byte", "short", "missing", "no_meta"])
def test_damaged_folder(fake_cifar, downloads, dataset, damage):
    folder, _ = fake_cifar(dataset)
    layout = CIFAR[dataset]
    last = folder / layout["train"][-1]
    if damage == "garbage":
        for path in folder.iterdir():
            path.write_bytes(b"not a pickle")
    elif damage == "empty":
        for path in folder.iterdir():
            path.unlink()
    elif damage == "one_byte":
        data = bytearray(last.read_bytes())
        data[-100] ^= 1
        last.write_bytes(data)
    elif damage == "short":
        last.write_bytes(last.read_bytes()[:-1])
    else:
        (last if damage == "missing" else folder / layout["meta"]).unlink()
    with pytest.raises(DataError, match="missing or fails its MD5") as error:
        load_images(dataset, folder.parent)
    assert_helpful(error, dataset, folder)
    # What is there is never overwritten.
    assert downloads == []


def test_damaged_download(monkeypatch, tmp_path):
    def fetch_garbage(url, root, **kwargs):
        (tmp_path / "cifar-10-batches-py").mkdir()
        (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"an error page")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch_garbage)
    with pytest.raises(DataError) as error:
        load_images("cifar10", tmp_path)
    assert_helpful(error, "cifar10", tmp_path / "cifar-10-batches-py")


# The real CIFAR, where it is.


@pytest.fixture(scope="module", params=CIFAR)
def real_cifar(request, cifar_root):
    folder = CIFAR[request.param]["folder"]
    if not (cifar_root / folder).is_dir():
        pytest.skip(f"needs {folder} in the folder that MMEL_DATA names")
    return request.param, load_images(request.param, cifar_root)


def test_real_cifar(real_cifar):
    dataset, sets = real_cifar
    classes = CIFAR[dataset]["classes"]
    for images, n in zip(sets, (50_000, 10_000), strict=True):
        assert len(images) == n
        assert images.num_classes == classes
        assert images.pixels.shape == (n, 3, 32, 32)
        assert images.pixels.dtype == torch.uint8
        assert class_counts(images) == [n // classes] * classes


def test_real_cifar_statistics(real_cifar):
    dataset, (train, _) = real_cifar
    # As published with many training recipes.
    expected = {
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    }[dataset]
    for actual, values in zip(channel_statistics(train), expected, strict=True):
        assert actual.tolist() == pytest.approx(values, abs=1e-4)
