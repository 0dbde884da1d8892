"""The embedded image data: scikit-learn's 1,797 handwritten digits of 8x8 pixels (UCI, Alpaydin and Kaynak 1998)."""

from pathlib import Path

import torch

from mmel.study.data.images import Images
from mmel.study.datasets import ImageDataset

SPLIT_SEED = 0


def load(data: ImageDataset, data_root: str | Path | None = None) -> tuple[Images, Images]:
    """The digits, ink at 255, split at random but always alike into 1,437 training and 360 test images.

    Raises:
        ModuleNotFoundError: if scikit-learn is missing.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Ink is counted from 0 to 16.
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    images = Images(pixels, torch.from_numpy(bunch.target).long(), 10)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED))
    num_train = data.sizes["train"]
    return images.take(order[:num_train]), images.take(order[num_train:])
