"""Sets of labelled images in memory, and how a training set is split."""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor


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

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (n, C, H, W), `index` (n,) as it is, and labels (n,)."""
        return self.pixels[index], index, self.labels[index]

    def to(self, device: torch.device) -> "Images":
        """The same images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device), self.num_classes)


class Split(Protocol):
    """The part of a set of images that `split_train` needs: labels (N,), the number of classes, and `take`."""

    labels: Tensor
    num_classes: int

    def take(self, places: Tensor) -> Self:
        """The images at some places (int64)."""


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
