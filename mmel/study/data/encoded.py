"""Images that stay encoded until a step wants them: ImageNet's JPEGs on disk, the hub's, the drawn ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class EncodedImages:
    """A set of labelled images, each read and decoded when it is asked for.

    Attributes:
        files: the name and the bytes of each image, read on access; of all images, whatever `places` are taken.
        places: (N,) int64 of the images in `files` that belong to the set.
        labels: (N,) int64 classes.
        num_classes: how many classes there are.
    """

    files: Sequence[tuple[str, bytes]]
    places: Tensor
    labels: Tensor
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Tensor) -> "EncodedImages":
        """The images at some places (int64)."""
        return EncodedImages(self.files, self.places[places], self.labels[places], self.num_classes)

    def decode(self, place: int) -> tuple[str, Tensor | None]:
        """Name and pixels of one image: (3, H, W) uint8, None if it cannot be decoded."""
        name, data = self.files[int(self.places[place])]
        return name, decode_image(data)


def whole(files: Sequence[tuple[str, bytes]], labels: Sequence[int], num_classes: int) -> EncodedImages:
    """All of some files as a set; arguments as `EncodedImages`."""
    return EncodedImages(files, torch.arange(len(labels)), torch.tensor(labels, dtype=torch.int64), num_classes)


def decode_image(data: bytes) -> Tensor | None:
    """Decode one image file; greyscale, palette, CMYK and transparent ones become RGB.

    Returns:
        (3, H, W) uint8, or None if this is no image or a damaged one.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            pixels = np.array(image.convert("RGB"))
    # PIL raises whatever its formats' parsers raise.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, Image.DecompressionBombError):
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
