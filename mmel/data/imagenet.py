"""ImageNet, from a folder of class folders or from the hub, and Imagenette, which is laid out alike."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from mmel.data import DataError, find_root
from mmel.data.drawings import drawings
from mmel.data.encoded import EncodedImages

HUB_NAME = "ILSVRC/imagenet-1k"
# Images of the official training and validation sets.
OFFICIAL_SIZES = {"imagenet": (1_281_167, 50_000), "imagenette": (9_469, 3_925), "drawings": (480, 240)}
SUFFIXES = (".jpeg", ".jpg", ".png")
HELP = {
    "imagenet": "unpack ILSVRC2012's training and validation archives so, the validation images sorted into class "
    f"folders too, or log in to the hub as a user who may read {HUB_NAME}",
    "imagenette": "unpack fast.ai's imagenette2 archive (any of its sizes) and name its folder `imagenette`",
}


def load_encoded(dataset: str, data_root: str | Path | None = None) -> tuple[EncodedImages, EncodedImages]:
    """List the training and the validation images of a data set; nothing is decoded yet.

    ImageNet is `imagenet/train` and `imagenet/val` in `data_root` (else MMEL_DATA, else ./data), a folder for each
    class in both; where there is no such folder it comes from the hub.

    Args:
        dataset: `imagenet`, `imagenette` or `drawings`.
        data_root: the folder that holds `imagenet` or `imagenette`.

    Returns:
        Training images, validation images.

    Raises:
        ValueError: on another name.
        DataError: if the data is missing, or the two parts have not the same classes.
    """
    if dataset == "drawings":
        return tuple(_whole(*part) for part in drawings())
    if dataset not in HELP:
        raise ValueError(f"dataset must be one of {', '.join(OFFICIAL_SIZES)}, got {dataset!r}")
    folder = find_root(data_root) / dataset
    if dataset == "imagenet" and not folder.exists():
        return _from_hub(folder)
    return _from_folder(dataset, folder)


def sampled(dataset: str, train: EncodedImages, test: EncodedImages) -> tuple[str, ...]:
    """The parts of a data set, `train` or `val`, that are not of the official size."""
    sizes = zip(("train", "val"), (train, test), OFFICIAL_SIZES[dataset], strict=True)
    return tuple(name for name, part, official in sizes if len(part) != official)


class _Folder(Sequence):
    """Files read when they are asked for, each named by its path below a folder."""

    def __init__(self, root: Path, names: list[str]):
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> tuple[str, bytes]:
        return self.names[place], (self.root / self.names[place]).read_bytes()


class _Hub(Sequence):
    """A split of the hub's data set with its images left encoded."""

    def __init__(self, split):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, place: int) -> tuple[str, bytes]:
        image = self.split[place]["image"]
        return image["path"] or f"row {place}", image["bytes"]


def _from_folder(dataset: str, folder: Path) -> tuple[EncodedImages, EncodedImages]:
    wanted = f"{folder} must hold train/ and val/, each with a folder of JPEGs for each class; {HELP[dataset]}"
    parts = {name: folder / name for name in ("train", "val")}
    for path in parts.values():
        if not path.is_dir():
            raise DataError(f"{dataset}: {path} is not there: {wanted} (docs/data.md)")
    classes = {name: _class_names(path) for name, path in parts.items()}
    if not classes["train"]:
        raise DataError(f"{dataset}: {parts['train']} has no class folders: {wanted}")
    if classes["train"] != classes["val"]:
        apart = sorted(set(classes["train"]) ^ set(classes["val"]))
        few = ", ".join(apart[:5]) + (", ..." if len(apart) > 5 else "")
        raise DataError(f"{dataset}: classes are in only one of train/ and val/ ({len(apart)}: {few}): {wanted}")
    listed = []
    for path in parts.values():
        names, labels = [], []
        for label, name in enumerate(classes["train"]):
            images = [entry for entry in os.scandir(path / name) if entry.name.lower().endswith(SUFFIXES)]
            if not images:
                raise DataError(f"{dataset}: {path / name} holds no image ({', '.join(SUFFIXES)}): {wanted}")
            if lost := [entry.path for entry in images if not entry.is_file()]:
                raise DataError(f"{dataset}: {min(lost)} must be a file, got a folder or a link that leads nowhere")
            files = sorted(entry.name for entry in images)
            names += [f"{path.name}/{name}/{file}" for file in files]
            labels += [label] * len(files)
        listed.append(_whole(_Folder(folder, names), labels, len(classes["train"])))
    return tuple(listed)


def _class_names(path: Path) -> list[str]:
    """Class folders in the order that gives classes their numbers, as torchvision's ImageFolder has it."""
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())


def _from_hub(folder: Path) -> tuple[EncodedImages, EncodedImages]:
    import datasets

    try:
        splits = [datasets.load_dataset(HUB_NAME, split=split) for split in ("train", "validation")]
    # The library raises its own kinds, the network's and the hub's.
    except Exception as error:
        raise DataError(
            f"imagenet: {folder} is not there, and {HUB_NAME} cannot be had from the hub ({error}): "
            f"{HELP['imagenet']} (docs/data.md)"
        ) from error
    listed = []
    for split in splits:
        labels = split["label"][:]
        encoded = split.cast_column("image", datasets.Image(decode=False))
        listed.append(_whole(_Hub(encoded), labels, split.features["label"].num_classes))
    return tuple(listed)


def _whole(files: Sequence[tuple[str, bytes]], labels: Sequence[int], num_classes: int) -> EncodedImages:
    return EncodedImages(files, torch.arange(len(labels)), torch.tensor(labels, dtype=torch.int64), num_classes)
