import io
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from mmel.data import DataError
from mmel.data.drawings import PATTERNS, drawings
from mmel.data.encoded import DecodeAhead, EncodedImages, decode_image
from mmel.data.imagenet import HUB_NAME, load_encoded, sampled
from mmel.data.vision import split_train


def encoded(level, mode="RGB", kind="JPEG", size=(12, 8)):
    """One image file of one brightness."""
    buffer = io.BytesIO()
    Image.new("L", size, level).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def write_folder(root, dataset="imagenet", classes=("n01", "n02"), each=3):
    for part in ("train", "val"):
        for label, name in enumerate(classes):
            folder = root / dataset / part / name
            folder.mkdir(parents=True)
            for number in range(each):
                (folder / f"{name}_{number}.JPEG").write_bytes(encoded(100 * label + 10 * number))
    return root


# From a folder.


def test_classes_are_the_sorted_folders_and_files_are_read_on_access(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "imagenet" / "train" / "n02" / "notes.txt").write_text("no image")
    train, val = load_encoded("imagenet", tmp_path)
    assert train.labels.tolist() == val.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.num_classes == 2
    name, image = train.decode(4)
    assert name == "train/n02/n02_1.JPEG"
    assert image.shape == (3, 8, 12)
    assert (image.float().mean() - 110).abs() < 2
    assert sampled("imagenet", train, val) == ("train", "val")


def test_subsets_are_balanced_and_read_the_same_files(tmp_path):
    train, _ = load_encoded("imagenet", write_folder(tmp_path, each=5))
    kept, held = split_train(train, train_size=4, holdout=2)
    assert sorted(kept.labels.tolist()) == [0, 0, 1, 1]
    names = {part.decode(place)[0] for part in (kept, held) for place in range(len(part))}
    assert len(names) == 6
    for place in range(len(kept)):
        assert kept.decode(place)[0] == train.decode(int(kept.places[place]))[0]


def test_the_data_root_is_the_argument_or_a_variable(tmp_path, monkeypatch):
    write_folder(tmp_path, "imagenette")
    monkeypatch.setenv("MMEL_DATA", str(tmp_path))
    assert len(load_encoded("imagenette")[0]) == 6
    with pytest.raises(DataError, match="imagenette"):
        load_encoded("imagenette", tmp_path / "elsewhere")


def test_a_missing_folder_is_named_with_what_it_must_hold(tmp_path):
    with pytest.raises(DataError, match=r"imagenette.train is not there: .*imagenette must hold train/ and val/.*fast"):
        load_encoded("imagenette", tmp_path)


def test_a_flat_validation_folder_is_refused(tmp_path):
    # As the official archive unpacks.
    write_folder(tmp_path)
    val = tmp_path / "imagenet" / "val"
    for file in list(val.rglob("*.JPEG")):
        file.rename(val / file.name)
    for name in ("n01", "n02"):
        (val / name).rmdir()
    with pytest.raises(DataError, match=r"only one of train/ and val/ \(2: n01, n02\).*sorted into class folders"):
        load_encoded("imagenet", tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    write_folder(tmp_path)
    for file in (tmp_path / "imagenet" / "train" / "n02").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"train.n02 holds no image"):
        load_encoded("imagenet", tmp_path)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nowhere"), lambda path: path.mkdir()])
def test_an_image_that_is_no_file_is_named(tmp_path, make):
    path = write_folder(tmp_path) / "imagenet" / "val" / "n02" / "lost.jpeg"
    make(path)
    with pytest.raises(DataError, match=str(path)):
        load_encoded("imagenet", tmp_path)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"^dataset must be one of imagenet, imagenette, drawings, got 'cifar10'$"):
        load_encoded("cifar10")


# From the hub, behind a stub of `datasets`.


class HubSplit:
    """What is used of a split of the hub's data set."""

    def __init__(self, rows, decoded=True):
        self.rows, self.is_decoded = rows, decoded
        self.features = {"label": types.SimpleNamespace(num_classes=2)}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        if key == "label":
            return [label for _, label in self.rows]
        assert not self.is_decoded, "the images must be left encoded"
        data, label = self.rows[key]
        return {"image": {"bytes": data, "path": None}, "label": label}

    def cast_column(self, name, feature):
        assert (name, feature) == ("image", "encoded image")
        return HubSplit(self.rows, decoded=False)


@pytest.fixture
def hub(monkeypatch):
    stub = types.SimpleNamespace(asked=[])

    def load_dataset(name, split):
        stub.asked.append((name, split))
        return HubSplit([(encoded(50), 1), (encoded(150), 0)])

    stub.load_dataset = load_dataset
    stub.Image = lambda decode: "image" if decode else "encoded image"
    monkeypatch.setitem(sys.modules, "datasets", stub)
    return stub


def test_without_a_folder_imagenet_comes_from_the_hub(hub, tmp_path):
    train, val = load_encoded("imagenet", tmp_path)
    assert hub.asked == [(HUB_NAME, "train"), (HUB_NAME, "validation")]
    assert train.labels.tolist() == val.labels.tolist() == [1, 0]
    name, image = train.decode(1)
    assert name == "row 1"
    assert (image.float().mean() - 150).abs() < 2


def test_a_folder_is_never_mixed_with_the_hub(hub, tmp_path):
    (tmp_path / "imagenet" / "train").mkdir(parents=True)
    with pytest.raises(DataError):
        load_encoded("imagenet", tmp_path)
    assert hub.asked == []


def test_a_hub_that_refuses_is_told_of_with_both_ways_to_get_it(hub, tmp_path):
    def refuse(name, split):
        raise ConnectionError("gated repository")

    hub.load_dataset = refuse
    with pytest.raises(DataError, match=r"is not there, and .*gated repository.*archives.*log in"):
        load_encoded("imagenet", tmp_path)


# Decoding.


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "PNG")]
)
def test_every_kind_becomes_rgb(mode, kind):
    image = decode_image(encoded(120, mode, kind))
    assert image.shape == (3, 8, 12)
    assert image.dtype == torch.uint8
    assert (image.float() - 120).abs().max() < 4


@pytest.mark.parametrize("data", [b"", b"no image", encoded(9, size=(90, 90))[:-200], encoded(9)[:40]])
def test_what_cannot_be_decoded_is_none(data):
    assert decode_image(data) is None


@pytest.fixture
def four():
    files = [(f"{place}.jpg", b"broken" if place == 2 else encoded(40 * place)) for place in range(4)]
    return EncodedImages(files, torch.arange(4), torch.zeros(4, dtype=torch.int64), 1)


@pytest.mark.parametrize("ahead", [0, 1, 10])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], None])
def test_what_comes_back_depends_neither_on_threads_nor_on_what_was_announced(four, ahead, order):
    decoder = DecodeAhead(four, ahead)
    if order:
        decoder.announce(torch.tensor(order))
    for places in ([1, 3], [0, 2], [1, 3], [3]):
        images, readable = decoder.batch(torch.tensor(places))
        assert readable.tolist() == [place != 2 for place in places]
        levels = [round(image.float().mean().item() / 40) for image in images]
        assert levels == [place for place in places if place != 2]
    assert decoder.unreadable == {"2.jpg"}
    decoder.announce(torch.arange(4))
    assert decoder.unreadable == set()


def test_the_next_images_are_decoded_before_they_are_wanted(four, monkeypatch):
    decoder = DecodeAhead(four, ahead=2)
    decoder.announce(torch.tensor([3, 1, 0, 2]))
    decoder.batch(torch.tensor([3]))
    assert set(decoder._running) == {1, 0}
    for future in decoder._running.values():
        future.result()
    decoded = []
    monkeypatch.setattr(EncodedImages, "decode", lambda self, place: decoded.append(place) or ("", None))
    decoder.batch(torch.tensor([1]))
    decoder._threads.shutdown()
    # 0 waits already; only the one after it is new.
    assert decoded == [2]


# Drawings.


def test_drawings_are_balanced_jpegs_of_several_sizes():
    (train, labels, classes), (test, test_labels, _) = drawings()
    assert classes == len(PATTERNS)
    assert np.bincount(labels).tolist() == [80] * 6
    assert np.bincount(test_labels).tolist() == [40] * 6
    assert len({data for _, data in (*train, *test)}) == 720
    images = [decode_image(data) for _, data in train[:40]]
    assert len({tuple(image.shape) for image in images}) > 30
    assert all(data.startswith(b"\xff\xd8") for _, data in train)
    assert sampled("drawings", *load_encoded("drawings")) == ()


def test_colour_says_nothing_of_the_class():
    # Nearest class mean by the images' mean colour: near one in six.
    (train, labels, _), (test, test_labels, _) = drawings()
    means = [torch.stack([decode_image(d).float().mean(dim=(1, 2)) for _, d in part]) for part in (train, test)]
    centers = torch.stack([means[0][torch.tensor(labels) == c].mean(dim=0) for c in range(6)])
    right = torch.cdist(means[1], centers).argmin(dim=1) == torch.tensor(test_labels)
    assert right.float().mean() < 0.32
