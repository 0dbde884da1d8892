"""Labelled images, in memory or left encoded until a step wants them, and how a training set is split."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Labelled images in memory.

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

    def take(self, index: Tensor) -> "Images":
        """The images at some indices (int64)."""
        return Images(self.pixels[index], self.labels[index], self.num_classes)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (n, C, H, W), `index` (n,) as it is, and labels (n,)."""
        return self.pixels[index], index, self.labels[index]

    def to(self, device: torch.device) -> "Images":
        """The same images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device), self.num_classes)


@dataclass(frozen=True)
class EncodedImages:
    """Labelled image files, each read and decoded when it is asked for.

    Attributes:
        read: gives name and bytes of the file at an index.
        labels: (N,) int64 classes.
        num_classes: how many classes there are.
    """

    read: Callable[[int], tuple[str, bytes]]
    labels: Tensor
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> "EncodedImages":
        """The images at some indices (int64)."""
        return EncodedImages(lambda place: self.read(int(index[place])), self.labels[index], self.num_classes)

    def decode(self, index: int) -> tuple[str, Tensor | None]:
        """Name and pixels of one image: (3, H, W) uint8 RGB, None if it cannot be decoded."""
        name, data = self.read(index)
        try:
            with Image.open(BytesIO(data)) as image:
                pixels = np.array(image.convert("RGB"))
        # PIL raises whatever its formats' parsers raise.
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, Image.DecompressionBombError):
            return name, None
        return name, torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


AnyImages = TypeVar("AnyImages", Images, EncodedImages)


def split_train(images: AnyImages, train_size: int = 0, holdout: int = 0, seed: int = 0) -> tuple[AnyImages, AnyImages]:
    """Split training images into those trained on and those held out, class by class.

    Args:
        images: the training images.
        train_size: how many to train on, classes balanced; 0 for all that are not held out.
        holdout: how many to hold out, classes balanced.
        seed: of the draw.

    Returns:
        The images to train on and the held-out ones, which never overlap.

    Raises:
        ValueError: if a class has too few images.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, held = [], []
    for label in range(images.num_classes):
        index = torch.nonzero(images.labels == label).flatten()
        index = index[torch.randperm(len(index), generator=generator)]
        # Sizes that the classes do not divide give the first classes one image more.
        num_kept, num_held = (
            size // images.num_classes + (label < size % images.num_classes) for size in (train_size, holdout)
        )
        num_kept = num_kept if train_size else len(index) - num_held
        if num_kept < 1 or num_held + num_kept > len(index):
            raise ValueError(
                f"train_size={train_size} and holdout={holdout} need {num_held + max(num_kept, 1)} images of class "
                f"{label}, which has {len(index)}"
            )
        held.append(index[:num_held])
        kept.append(index[num_held : num_held + num_kept])
    return images.take(torch.cat(kept).sort().values), images.take(torch.cat(held).sort().values)


def with_wrong_labels(images: AnyImages, share: float, seed: int) -> AnyImages:
    """The images with a share of their labels, rounded to whole images, replaced by other classes at random.

    Args:
        images: of at least two classes.
        share: from 0 to 1.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    spoiled = torch.randperm(len(images), generator=generator)[: round(share * len(images))]
    labels = images.labels.clone()
    labels[spoiled] += torch.randint(1, images.num_classes, spoiled.shape, generator=generator)
    return replace(images, labels=labels % images.num_classes)


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
