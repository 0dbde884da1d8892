"""The embedded image data: scikit-learn's 1,797 handwritten digits of 8x8 pixels (UCI, Alpaydin and Kaynak 1998)."""

import torch
from torch import Tensor

NUM_TRAIN = 1437
SPLIT_SEED = 0


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The digits, split at random but always alike into 1,437 training and 360 test images.

    Returns:
        (pixels, labels) for training and for testing: (N, 1, 8, 8) uint8 with ink at 255, and (N,) int64.

    Raises:
        ModuleNotFoundError: if scikit-learn is missing.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Ink is counted from 0 to 16.
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    train, test = order[:NUM_TRAIN], order[NUM_TRAIN:]
    return (pixels[train], labels[train]), (pixels[test], labels[test])
