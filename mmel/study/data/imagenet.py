"""ImageNet, from a folder of class folders or from the hub, and Imagenette, which is laid out alike."""

import os
from collections.abc import Sequence
from pathlib import Path

from mmel.study.data import DataError, find_root
from mmel.study.data.encoded import EncodedImages, whole
from mmel.study.datasets import ImageDataset

HUB_NAME = "ILSVRC/imagenet-1k"
SUFFIXES = (".jpeg", ".jpg", ".png")
HELP = {
    "imagenet": "unpack ILSVRC2012's training and validation archives so, the validation images sorted into class "
    f"folders too, or log in to the hub as a user who may read {HUB_NAME}",
    "imagenette": "unpack fast.ai's imagenette2 archive (any of its sizes) and name its folder `imagenette`",
}


def load(data: ImageDataset, data_root: str | Path | None = None) -> tuple[EncodedImages, EncodedImages]:
    """List the training and the validation images; nothing is decoded yet.

    They are in `<name>/train` and `<name>/val` of the data root, each with a folder for each class. Without such a
    folder ImageNet comes from the hub.

    Args:
        data: `imagenet` or `imagenette`.
        data_root: the folder that holds `imagenet` or `imagenette`; None for MMEL_DATA, else ./data.

    Returns:
        Training images, validation images.

    Raises:
        DataError: if the data is missing, or the two parts have not the same classes.
    """
    folder = find_root(data_root) / data.name
    if data.name == "imagenet" and not folder.exists():
        return _from_hub(folder)
    return _from_folder(data.name, folder)


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
        listed.append(whole(_Folder(folder, names), labels, len(classes["train"])))
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
        listed.append(whole(_Hub(encoded), labels, split.features["label"].num_classes))
    return tuple(listed)
