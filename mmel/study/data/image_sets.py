"""The loaders of the image sets: CIFAR and ImageNet from disk or by download, and scikit-learn's digits."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmel.study.data import DataError, find_root
from mmel.study.data.images import EncodedImages, Images
from mmel.study.datasets import ImageDataset

IMAGENET_ON_HUB = "ILSVRC/imagenet-1k"
DIGITS_SEED = 0


def load_cifar(data: ImageDataset, data_root: str | Path | None = None) -> tuple[Images, Images]:
    """Load the training and the test images of CIFAR-10 or CIFAR-100, in the official Python format.

    If its folder is not in the data root, torchvision downloads it. Either way it checks the MD5 of every file.

    Raises:
        DataError: if a file is damaged, or missing and not to be downloaded.
    """
    from torchvision import datasets

    root = find_root(data_root)
    kind = datasets.CIFAR10 if data.name == "cifar10" else datasets.CIFAR100
    folder = root / kind.base_folder
    try:
        sets = [kind(root, train=train, download=not folder.exists()) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{data.name}: {folder} is missing or damaged ({error}): it must hold the official Python version; point "
            "--data-root or MMEL_DATA at a folder that has it, or remove it to download it again (docs/data.md)"
        ) from error
    num_classes = len(sets[0].classes)
    # Rows of (32, 32, 3) become planes, which the crops gather from.
    train, test = (
        Images(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets), num_classes)
        for part in sets
    )
    return train, test


def load_digits(data: ImageDataset, data_root: str | Path | None = None) -> tuple[Images, Images]:
    """Load scikit-learn's digits (UCI, Alpaydin and Kaynak 1998), ink at 255, in a fixed random split."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    # Ink is counted from 0 to 16.
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    images = Images(pixels, torch.from_numpy(bunch.target).long(), 10)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(DIGITS_SEED))
    num_train = data.sizes["train"]
    return images.take(order[:num_train]), images.take(order[num_train:])


def load_imagenet(data: ImageDataset, data_root: str | Path | None = None) -> tuple[EncodedImages, EncodedImages]:
    """List the training and the validation images of ImageNet, or of Imagenette; nothing is decoded yet.

    They are in `<name>/train/<class>/` and `<name>/val/<class>/` of the data root. Without a folder `<name>` ImageNet
    comes from the hub.

    Raises:
        DataError: if images are missing, or the two parts have not the same classes.
    """
    folder = find_root(data_root) / data.name
    wanted = f"{folder} must hold train/ and val/, each with a folder of images for each class (docs/data.md)"
    if data.name == "imagenet" and not folder.exists():
        return _imagenet_from_hub(wanted)
    from torchvision.datasets import ImageFolder

    try:
        parts = [ImageFolder(str(folder / part)) for part in data.sizes]
    except FileNotFoundError as error:
        raise DataError(f"{data.name}: {wanted}: {error}") from error
    if apart := sorted({*parts[0].classes} ^ {*parts[1].classes}):
        raise DataError(f"{data.name}: {wanted}; {len(apart)} classes are in one of the two alone, such as {apart[0]}")
    train, val = (
        EncodedImages(partial(_read_file, folder, part.samples), torch.tensor(part.targets), len(part.classes))
        for part in parts
    )
    return train, val


def _imagenet_from_hub(wanted: str) -> tuple[EncodedImages, EncodedImages]:
    import datasets

    try:
        splits = [datasets.load_dataset(IMAGENET_ON_HUB, split=split) for split in ("train", "validation")]
    # The library raises its own kinds, the network's and the hub's.
    except Exception as error:
        raise DataError(
            f"imagenet: {wanted}, or log in to the hub as a user who may read {IMAGENET_ON_HUB} ({error})"
        ) from error
    encoded = [split.cast_column("image", datasets.Image(decode=False)) for split in splits]
    train, val = (
        EncodedImages(partial(_read_row, rows), torch.tensor(rows["label"][:]), rows.features["label"].num_classes)
        for rows in encoded
    )
    return train, val


def _read_file(folder: Path, samples: list[tuple[str, int]], index: int) -> tuple[str, bytes]:
    path = Path(samples[index][0])
    return path.relative_to(folder).as_posix(), path.read_bytes()


def _read_row(rows: Any, index: int) -> tuple[str, bytes]:
    image = rows[index]["image"]
    return image["path"] or f"row {index}", image["bytes"]
