"""Image files of a run, read and decoded step by step."""

import sys
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor
from tqdm import tqdm

from mmel.study.data import DataError
from mmel.study.data.images import EncodedImages
from mmel.study.train import machine


class DecodeAhead:
    """Reads and decodes each image once per step, whatever K is, in threads ahead of the steps.

    PIL decodes without holding Python's lock. Neither the announced order nor the threads change the images that are
    returned. An image that cannot be decoded is left out, and named on stderr.

    Args:
        images: the set.
        name: of the data set, for messages.
        ahead: images to be decoded beyond those that were asked for last.
        device: where decoded images go.
        threads: how many decode; None for Python's default.

    Attributes:
        unreadable: names of the images that could not be decoded since an order was last announced.
    """

    def __init__(self, images: EncodedImages, name: str, ahead: int, device: torch.device, threads: int | None = None):
        self.unreadable: set[str] = set()
        self._images, self._name, self._ahead, self._device = images, name, ahead, device
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._order = torch.arange(0)
        self._running: dict[int, Future] = {}
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self._images)

    def announce(self, order: Tensor) -> None:
        """Say in which order (int64 indices) the images will be wanted; forgets what was unreadable before."""
        self.unreadable.clear()
        self._order = order

    def batch(self, index: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Decode some images.

        Args:
            index: (N,) int64 on the CPU, no two alike.

        Returns:
            Images (3, H, W) uint8 of their own sizes, their indices on the CPU and labels, without those that cannot be
            decoded.

        Raises:
            DataError: if none can be decoded.
        """
        running = self._started(index)
        # Nothing comes after an index that was not announced.
        (after,) = (self._order == index[-1]).nonzero().flatten().tolist() or [len(self._order)]
        self._running = self._started(self._order[after + 1 :][: self._ahead])
        found = [future.result() for future in running.values()]
        self.unreadable.update(name for name, image in found if image is None)
        for name in sorted(self.unreadable - self._reported):
            tqdm.write(f"{self._name}: cannot decode {name}; it is left out", file=sys.stderr)
        self._reported |= self.unreadable
        images = [image for _, image in found if image is not None]
        if not images:
            few = ", ".join(sorted(self.unreadable)[:3])
            raise DataError(f"{self._name}: none of {len(index)} images can be decoded ({few}, ...)")
        index = index[torch.tensor([image is not None for _, image in found])]
        # One copy of all, which a GPU need not wait for.
        packed = machine.to_device(torch.cat([image.flatten() for image in images]), self._device)
        parts = packed.split([image.numel() for image in images])
        moved = [part.view(image.shape) for part, image in zip(parts, images, strict=True)]
        return moved, index, machine.to_device(self._images.labels[index], self._device)

    def _started(self, index: Tensor) -> dict[int, Future]:
        """Images that are being decoded, each begun once."""
        return {n: self._running.get(n) or self._threads.submit(self._images.decode, n) for n in index.tolist()}
