import io
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mmel.study.data import DataError
from mmel.study.data.drawings import PATTERNS
from mmel.study.data.images import EncodedImages, split_train
from mmel.study.datasets import DATASETS
from mmel.study.train.image_files import DecodeAhead

IMAGENET, CPU = DATASETS["imagenet"], torch.device("cpu")


def encoded(level, mode="RGB", kind="JPEG", size=(12, 8)):
    """One image file of one brightness."""
    buffer = io.BytesIO()
    Image.new("L", size, level).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """ImageNet of two classes, three images of each in each part."""
    for part in ("train", "val"):
        for label, name in enumerate(("n01", "n02")):
            (tmp_path / "imagenet" / part / name).mkdir(parents=True)
            for number in range(3):
                path = tmp_path / "imagenet" / part / name / f"{name}_{number}.JPEG"
                path.write_bytes(encoded(100 * label + 10 * number))
    return tmp_path / "imagenet"


# From a folder.


def test_classes_are_the_sorted_folders_and_files_are_read_on_access(folder):
    (folder / "train" / "n02" / "notes.txt").write_text("no image")
    train, val = IMAGENET.load(folder.parent)
    assert train.labels.tolist() == val.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.num_classes == 2
    name, image = train.decode(4)
    assert (name, image.shape) == ("train/n02/n02_1.JPEG", (3, 8, 12))
    assert (image.float().mean() - 110).abs() < 2
    (folder / "train" / "n02" / "n02_1.JPEG").write_bytes(encoded(250))
    assert train.decode(4)[1].float().mean() > 240
    assert IMAGENET.sampled({"train": len(train), "val": len(val)}) == ["train", "val"]


def test_parts_of_a_set_read_the_files_of_their_labels(folder):
    train, _ = IMAGENET.load(folder.parent)
    parts = split_train(train, train_size=2, holdout=2)
    named = [part.decode(index)[0] for part in parts for index in range(2)]
    assert len(set(named)) == 4
    assert [name.split("/")[1] for name in named] == ["n01", "n02"] * 2
    again = parts[0].take(torch.tensor([1]))
    assert (again.decode(0)[0], again.labels.tolist()) == (named[1], [1])


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("name", ["train", "val", "train/n02", "val/n02"])
def test_a_part_or_class_that_is_missing_or_empty_is_named(folder, name, empty):
    shutil.rmtree(folder / name)
    if empty:
        (folder / name).mkdir()
    with pytest.raises(DataError, match=rf"^imagenet: {folder} must hold .*docs.*\b{name.rpartition('/')[2]}\b"):
        IMAGENET.load(folder.parent)


def test_imagenette_never_comes_from_the_hub(tmp_path):
    with pytest.raises(DataError, match=f"^imagenette: {tmp_path}/imagenette must hold"):
        DATASETS["imagenette"].load(tmp_path)


# From the hub, behind a stub of `datasets`.


class HubSplit:
    """The used part of a split of the hub's data set."""

    def __init__(self, rows, decoded=True):
        self.rows, self.is_decoded, self.features = rows, decoded, {"label": SimpleNamespace(num_classes=2)}

    def __getitem__(self, key):
        assert not self.is_decoded, "the images must be left encoded"
        if key == "label":
            return [label for _, label in self.rows]
        data, label = self.rows[key]
        return {"image": {"bytes": data, "path": None}, "label": label}

    def cast_column(self, name, feature):
        assert (name, feature) == ("image", "encoded image")
        return HubSplit(self.rows, decoded=False)


def test_imagenet_comes_from_the_hub_only_without_a_folder(monkeypatch, tmp_path):
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        if len(asked) > 2:
            raise ConnectionError("gated repository")
        return HubSplit([(encoded(50), 1), (encoded(150), 0)])

    stub = SimpleNamespace(load_dataset=load_dataset, Image=lambda decode: "image" if decode else "encoded image")
    monkeypatch.setitem(sys.modules, "datasets", stub)
    train, val = IMAGENET.load(tmp_path)
    assert asked == [("ILSVRC/imagenet-1k", "train"), ("ILSVRC/imagenet-1k", "validation")]
    assert train.labels.tolist() == val.labels.tolist() == [1, 0]
    name, image = train.decode(1)
    assert name == "row 1"
    assert (image.float().mean() - 150).abs() < 2
    with pytest.raises(DataError, match=rf"{tmp_path}.*log in.*gated repository"):
        IMAGENET.load(tmp_path)
    (tmp_path / "imagenet" / "train").mkdir(parents=True)
    with pytest.raises(DataError):
        IMAGENET.load(tmp_path)
    assert len(asked) == 3


# Decoding.


def decoded(data):
    return EncodedImages(lambda index: ("name", data), torch.zeros(1), 1).decode(0)[1]


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "PNG")]
)
def test_every_kind_becomes_rgb(mode, kind):
    image = decoded(encoded(120, mode, kind))
    assert (image.shape, image.dtype) == ((3, 8, 12), torch.uint8)
    assert (image.float() - 120).abs().max() < 4


@pytest.mark.parametrize("data", [b"", b"no image", encoded(9, size=(90, 90))[:-200], encoded(9)[:40]])
def test_a_damaged_file_is_none(data):
    assert decoded(data) is None


@pytest.fixture
def four():
    files = [(f"{index}.jpg", b"broken" if index == 2 else encoded(40 * index)) for index in range(4)]
    return EncodedImages(files.__getitem__, torch.zeros(4, dtype=torch.int64), 1)


@pytest.mark.parametrize("ahead", [0, 1, 10])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], None])
def test_batches_depend_neither_on_threads_nor_on_the_announced_order(four, ahead, order):
    decoder = DecodeAhead(four, "four", ahead, CPU)
    if order:
        decoder.announce(torch.tensor(order))
    for wanted in ([1, 3], [0, 2], [1, 3], [3]):
        images, readable, _ = decoder.batch(torch.tensor(wanted))
        assert readable.tolist() == [index for index in wanted if index != 2]
        assert [round(image.float().mean().item() / 40) for image in images] == readable.tolist()
    assert decoder.unreadable == {"2.jpg"}
    decoder.announce(torch.arange(4))
    assert decoder.unreadable == set()


def test_the_next_images_are_decoded_before_they_are_wanted_and_once(four):
    read = []
    noted = EncodedImages(lambda index: read.append(index) or four.read(index), four.labels, 1)
    # With one thread images are read in the order in which they were begun.
    decoder = DecodeAhead(noted, "four", ahead=2, device=CPU, threads=1)
    decoder.announce(torch.tensor([3, 1, 0, 2]))
    for index in (3, 1, 0):
        decoder.batch(torch.tensor([index]))
    with pytest.raises(DataError, match=r"four: .*2\.jpg"):
        decoder.batch(torch.tensor([2]))
    assert read == [3, 1, 0, 2]
    decoder.announce(torch.tensor([0, 3]))
    decoder.batch(torch.tensor([0]))
    decoder.batch(torch.tensor([1]))
    # 3 was begun ahead, though another was wanted.
    assert read[4:] == [0, 3, 1]


# Drawings.


def test_drawings_are_balanced_jpegs_whose_colour_says_nothing_of_the_class():
    parts, sizes = DATASETS["drawings"].load(), DATASETS["drawings"].sizes
    assert {name: len(part) for name, part in zip(sizes, parts, strict=True)} == sizes
    assert [torch.bincount(part.labels).tolist() for part in parts] == [[80] * 6, [40] * 6]
    assert {part.num_classes for part in parts} == {len(PATTERNS)} == {6}
    files = {part.read(index)[1] for part in parts for index in range(len(part))}
    assert len(files) == 720
    assert all(data.startswith(b"\xff\xd8") for data in files)
    images = [[part.decode(index)[1] for index in range(len(part))] for part in parts]
    assert len({tuple(image.shape) for image in images[0][:40]}) > 30
    # Nearest class mean by the images' mean colour: near one in six.
    train, test = (torch.stack([image.float().mean(dim=(1, 2)) for image in part]) for part in images)
    centers = torch.stack([train[parts[0].labels == label].mean(dim=0) for label in range(6)])
    right = torch.cdist(test, centers).argmin(dim=1) == parts[1].labels
    assert right.float().mean() < 0.32
