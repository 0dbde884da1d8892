"""Image files of a run, read and decoded step by step."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from mmel.study.data.images import EncodedImages
from mmel.study.train import machine


class DecodeAhead:
    """Reads and decodes each image once per step, whatever K is, in threads ahead of the steps.

    It decodes so many images `ahead` of those that were asked for last, and moves them to the device. PIL decodes
    without holding Python's lock. Neither the announced order nor the threads change the images.
    """

    def __init__(self, images: EncodedImages, ahead: int, device: torch.device, threads: int | None = None):
        self._images, self._ahead, self._device = images, ahead, device
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._order = torch.arange(0)
        self._running: dict[int, Future[Tensor]] = {}

    def __len__(self) -> int:
        return len(self._images)

    def announce(self, order: Tensor) -> None:
        """Say in which order (int64 indices) the images will be wanted."""
        self._order = order

    def batch(self, index: Tensor) -> tuple[list[Tensor], Tensor]:
        """Images (3, H, W) uint8 of their own sizes, and labels (N,), at (N,) int64 indices on the CPU, no two alike.

        Raises:
            DataError: if one cannot be decoded.
        """
        running = self._started(index)
        # Nothing comes after an index that was not announced.
        (after,) = (self._order == index[-1]).nonzero().flatten().tolist() or [len(self._order)]
        self._running = self._started(self._order[after + 1 :][: self._ahead])
        images = [future.result() for future in running.values()]
        # One copy of all, which a GPU need not wait for.
        packed = machine.to_device(torch.cat([image.flatten() for image in images]), self._device)
        parts = packed.split([image.numel() for image in images])
        moved = [part.view(image.shape) for part, image in zip(parts, images, strict=True)]
        return moved, machine.to_device(self._images.labels[index], self._device)

    def _started(self, index: Tensor) -> dict[int, Future[Tensor]]:
        """Images that are being decoded, each begun once."""
        return {n: self._running.get(n) or self._threads.submit(self._images.decode, n) for n in index.tolist()}
