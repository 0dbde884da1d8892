"""CIFAR-10 and CIFAR-100, whole, from disk."""

from pathlib import Path

import torch

from mmel.study.data import DataError, find_root
from mmel.study.data.images import Images
from mmel.study.datasets import ImageDataset

# What lies in a data root, and the MD5-checked files that torchvision expects there.
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
FILES = {
    "cifar10": "data_batch_1 ... data_batch_5, test_batch and batches.meta",
    "cifar100": "train, test and meta",
}


def load(data: ImageDataset, data_root: str | Path | None = None) -> tuple[Images, Images]:
    """Load the training and the test images, in the official Python format that torchvision reads.

    If the folder is not there, torchvision downloads it. Either way every file's MD5 is checked.

    Args:
        data: `cifar10` or `cifar100`.
        data_root: the folder that holds `cifar-10-batches-py` or `cifar-100-python`; None for MMEL_DATA, else ./data.

    Returns:
        Training images, test images.

    Raises:
        DataError: if the data is missing and cannot be downloaded, or is damaged.
    """
    from torchvision import datasets

    root, name = find_root(data_root), data.name
    cls = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    folder = root / FOLDERS[name]
    wanted = f"{folder} must hold {FILES[name]} of the official Python version"
    help_text = (
        "point --data-root or MMEL_DATA at a folder that has it, or remove it to download it again (docs/data.md)"
    )
    try:
        sets = [cls(root, train=train, download=not folder.exists()) for train in (True, False)]
    except RuntimeError as error:
        raise DataError(f"{name}: a file is missing or fails its MD5 check: {wanted}; {help_text}") from error
    except OSError as error:
        raise DataError(f"{name}: not found, and the download failed ({error}): {wanted}; {help_text}") from error
    num_classes = len(sets[0].classes)
    # (N, 32, 32, 3) in memory is what channels_last wants after one permutation, but the gather reads planes.
    train, test = (
        Images(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets), num_classes)
        for part in sets
    )
    return train, test
