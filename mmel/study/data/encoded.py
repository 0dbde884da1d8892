"""Images that stay encoded until a step wants them: ImageNet's JPEGs on disk, the hub's, the drawn ones."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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


class DecodeAhead:
    """Decodes images in threads, ahead of the steps that want them (PIL decodes without holding Python's lock).

    Only speed depends on the order that was announced and on how the threads run: what is returned never does.

    Args:
        images: the set.
        ahead: images to be decoded beyond those that were asked for last.
        threads: how many decode; None for as many as Python thinks fit.
    """

    def __init__(self, images: EncodedImages, ahead: int, threads: int | None = None):
        self.images = images
        self.unreadable: set[str] = set()
        self._ahead = ahead
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._order: list[int] = []
        self._position: dict[int, int] = {}
        self._running: dict[int, Future] = {}

    def announce(self, order: Tensor) -> None:
        """Say in which order (int64 places) the images will be wanted; forgets what was unreadable before."""
        self.unreadable.clear()
        self._order = order.tolist()
        self._position = {place: position for position, place in enumerate(self._order)}

    def batch(self, places: Tensor) -> tuple[list[Tensor], Tensor]:
        """Decode some images; those that cannot be are left out, and their names added to `unreadable`.

        Args:
            places: (N,) int64.

        Returns:
            The images, (3, H, W) uint8 of their own sizes, and which of `places` they are: (N,) bool.
        """
        wanted = places.tolist()
        running = [self._running.get(place) or self._start(place) for place in wanted]
        after = self._position.get(wanted[-1], len(self._order)) + 1
        upcoming = self._order[after : after + self._ahead]
        self._running = {place: self._running.get(place) or self._start(place) for place in upcoming}
        found = [future.result() for future in running]
        self.unreadable.update(name for name, image in found if image is None)
        readable = torch.tensor([image is not None for _, image in found])
        return [image for _, image in found if image is not None], readable

    def _start(self, place: int) -> Future:
        return self._threads.submit(self.images.decode, place)


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
