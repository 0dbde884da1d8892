"""Small-image data sets, whole, as uint8 tensors: CIFAR-10 and -100 from disk, the embedded digits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from mmel.data import DataError, find_root
from mmel.data.digits import digits

# What lies in a data root, and how many MD5-checked files torchvision expects there.
CIFAR_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
CIFAR_FILES = {
    "cifar10": "data_batch_1 ... data_batch_5, test_batch and batches.meta",
    "cifar100": "train, test and meta",
}


@dataclass(frozen=True)
class Images:
    """A set of labelled images.

    Attributes:
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64 classes.
        num_classes: how many classes there are.
    """

    pixels: Tensor
    labels: Tensor
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Tensor) -> "Images":
        """The images at some places (int64)."""
        return Images(self.pixels[places], self.labels[places], self.num_classes)

    def to(self, device: torch.device) -> "Images":
        """The same images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device), self.num_classes)


class Split(Protocol):
    """What `split_train` asks of a set of images: labels (N,), the number of classes, and `take`."""

    labels: Tensor
    num_classes: int

    def take(self, places: Tensor) -> Self:
        """The images at some places (int64)."""


def load_images(dataset: str, data_root: str | Path | None = None) -> tuple[Images, Images]:
    """Load the training and the test images of a data set.

    CIFAR comes from `data_root` (else MMEL_DATA, else ./data), in the official Python format that torchvision reads;
    where that folder holds nothing of it, torchvision downloads it there. Either way every file's MD5 is checked.

    Args:
        dataset: `cifar10`, `cifar100` or `digits`.
        data_root: the folder that holds `cifar-10-batches-py` or `cifar-100-python`.

    Returns:
        Training images, test images.

    Raises:
        ValueError: on another name.
        DataError: if the data is missing and cannot be downloaded, or is damaged.
    """
    if dataset == "digits":
        (train, test), classes = digits(), 10
        return Images(*train, classes), Images(*test, classes)
    if dataset not in CIFAR_FOLDERS:
        raise ValueError(f"dataset must be one of {', '.join((*CIFAR_FOLDERS, 'digits'))}, got {dataset!r}")
    return _cifar(dataset, find_root(data_root))


def split_train(images: Split, train_size: int = 0, holdout: int = 0) -> tuple[Split, Split]:
    """Split training images into those trained on and those held out, class by class, the same in every run.

    Args:
        images: the training images.
        train_size: how many to train on, classes balanced; 0 for all that are not held out.
        holdout: how many to hold out, classes balanced.

    Returns:
        The images to train on and the held-out ones, which never overlap.

    Raises:
        ValueError: if a class has too few images for it.
    """
    for name, size in (("train_size", train_size), ("holdout", holdout)):
        if size < 0:
            raise ValueError(f"{name} must be 0 or more, got {size}")
    generator = torch.Generator().manual_seed(0)
    kept, held = [], []
    for label in range(images.num_classes):
        places = torch.nonzero(images.labels == label).flatten()
        places = places[torch.randperm(len(places), generator=generator)]
        # Sizes that the classes do not divide give the first classes one image more.
        num_held = _share(holdout, label, images.num_classes)
        num_kept = _share(train_size, label, images.num_classes) if train_size else len(places) - num_held
        if num_kept < 1 or num_held + num_kept > len(places):
            raise ValueError(
                f"train_size={train_size} and holdout={holdout} need {num_held + max(num_kept, 1)} images of class "
                f"{label}, which has {len(places)}"
            )
        held.append(places[:num_held])
        kept.append(places[num_held : num_held + num_kept])
    return images.take(torch.cat(kept).sort().values), images.take(torch.cat(held).sort().values)


def channel_statistics(images: Images) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (C,) float32, in units of a pixel value of 255."""
    levels = torch.arange(256, dtype=torch.float64)
    means, stds = [], []
    for channel in images.pixels.unbind(dim=1):
        share = torch.bincount(channel.flatten().int().cpu(), minlength=256) / channel.numel()
        mean = (share * levels).sum()
        means.append(mean)
        stds.append((share * (levels - mean) ** 2).sum().sqrt())
    return torch.stack(means).float() / 255, torch.stack(stds).float() / 255


def _share(total: int, label: int, num_classes: int) -> int:
    return total // num_classes + (label < total % num_classes)


def _cifar(dataset: str, root: Path) -> tuple[Images, Images]:
    from torchvision import datasets

    cls = datasets.CIFAR10 if dataset == "cifar10" else datasets.CIFAR100
    folder = root / CIFAR_FOLDERS[dataset]
    wanted = f"{folder} must hold {CIFAR_FILES[dataset]} of the official Python version"
    help_text = (
        "point --data-root or MMEL_DATA at a folder that has it, or remove it to download it again (docs/data.md)"
    )
    try:
        sets = [cls(root, train=train, download=not folder.exists()) for train in (True, False)]
    except RuntimeError as error:
        raise DataError(f"{dataset}: a file is missing or fails its MD5 check: {wanted}; {help_text}") from error
    except OSError as error:
        raise DataError(f"{dataset}: not found, and the download failed ({error}): {wanted}; {help_text}") from error
    num_classes = len(sets[0].classes)
    # (N, 32, 32, 3) in memory is what channels_last wants after one permutation, but the gather reads planes.
    train, test = (
        Images(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets), num_classes)
        for part in sets
    )
    return train, test
