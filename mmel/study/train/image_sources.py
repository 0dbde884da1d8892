"""Where the images of a run come from: memory of the training device, or files that are decoded step by step."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmel.augment.images import build_augmentation
from mmel.augment.resized_crop import RandomResizedCropFlip
from mmel.study.config import ImageRun
from mmel.study.data import DataError
from mmel.study.data.encoded import DecodeAhead
from mmel.study.data.images import channel_statistics, split_train
from mmel.study.train import machine, processes

# ImageNet's channels, as every recipe for it has them (torchvision's reference among them).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVAL_BATCH = 1000
EVAL_BATCH_OF_FILES = 256
# A record names so many files that cannot be decoded, and counts them all.
NAMED = 20


class InMemory:
    """Small images, all of them on the training device; see `mmel.study.train.images.ImageSource`."""

    def __init__(self, config: ImageRun, data_root: str | Path | None, device: torch.device):
        full, train, evaluated, self.sizes = _load(config, data_root, "test")
        # Statistics of the whole training set, so that subsets see the same network input.
        self.mean, self.std = channel_statistics(full)
        self.num_classes, self.in_channels = full.num_classes, full.pixels.shape[1]
        self.device, self._train, self._eval = device, train.to(device), evaluated.to(device)
        self.augmentation = build_augmentation(config.augment, config.side)
        self.why_eager = None if self.augmentation.capturable else f"augment={config.augment} makes views one by one"

    def __len__(self) -> int:
        return len(self._train)

    def announce(self, order: Tensor, batch_size: int, steps: int) -> Tensor:
        """As `ImageSource.announce`."""
        return order.to(self.device)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `ImageSource.batch`."""
        return self._train.pixels[index], index, self._train.labels[index]

    def eval_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As `ImageSource.eval_batches`."""
        own = slice(processes.rank(), None, processes.count())
        return zip(self._eval.pixels.split(EVAL_BATCH)[own], self._eval.labels.split(EVAL_BATCH)[own], strict=True)

    def unreadable(self) -> dict[str, Any]:
        """As `ImageSource.unreadable`."""
        return {}


class DecodedFiles:
    """Image files, each read and decoded once per step, whatever K is; see `mmel.study.train.images.ImageSource`.

    Decoding runs in threads, a batch ahead of the step; each of several processes decodes its own share. An image that
    cannot be decoded is left out of its batch, named on stderr, and counted in the record; the batch's loss is still
    divided by the batch size.
    """

    why_eager = "images are decoded step by step"
    in_channels = 3

    def __init__(self, config: ImageRun, data_root: str | Path | None, device: torch.device):
        full, self._train, self._eval, self.sizes = _load(config, data_root, "val")
        self.config, self.device, self.num_classes = config, device, full.num_classes
        self.mean, self.std = torch.tensor(MEAN), torch.tensor(STD)
        self.augmentation = RandomResizedCropFlip(config.side)
        share = -(-config.batch_size // processes.count())
        self._train_decoder = DecodeAhead(self._train, share, processes.cores())
        self._eval_decoder = DecodeAhead(self._eval, EVAL_BATCH_OF_FILES, processes.cores())
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self._train)

    def announce(self, order: Tensor, batch_size: int, steps: int) -> Tensor:
        """As `ImageSource.announce`."""
        # Neither the other processes' shares nor the batch that is dropped. Crops are worked out on the CPU, where
        # decoding happens, so that they are the same on every device.
        batches = order.split(batch_size)[:steps]
        self._train_decoder.announce(torch.cat([processes.share(batch) for batch in batches]))
        return order

    def batch(self, index: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """As `ImageSource.batch`."""
        images, readable = self._decoded(self._train_decoder, index)
        index = index[readable]
        return images, index, machine.to_device(self._train.labels[index], self.device)

    def eval_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As `ImageSource.eval_batches`."""
        parts = torch.arange(len(self._eval)).split(EVAL_BATCH_OF_FILES)[processes.rank() :: processes.count()]
        self._eval_decoder.announce(torch.cat(parts) if parts else torch.arange(0))
        for part in parts:
            images, readable = self._decoded(self._eval_decoder, part)
            yield self.augmentation.original(images), self._eval.labels[part[readable]].to(self.device)

    def unreadable(self) -> dict[str, Any]:
        """As `ImageSource.unreadable`."""
        names = sorted(set().union(*processes.gathered(self._train_decoder.unreadable | self._eval_decoder.unreadable)))
        return {"num_unreadable": len(names), "unreadable": names[:NAMED]}

    def _decoded(self, decoder: DecodeAhead, index: Tensor) -> tuple[list[Tensor], Tensor]:
        """The images at some indices on the training device, and which of the indices could be decoded."""
        images, readable = decoder.batch(index)
        for name in sorted(decoder.unreadable - self._reported):
            tqdm.write(f"{self.config.run_id}: cannot decode {name}; it is left out", file=sys.stderr)
        self._reported |= decoder.unreadable
        if not images:
            few = ", ".join(sorted(decoder.unreadable)[:3])
            raise DataError(f"{self.config.dataset}: none of {len(index)} images can be decoded ({few}, ...)")
        if self.device.type == "cpu":
            return images, readable
        # One copy of all, which the GPU need not wait for.
        packed = machine.to_device(torch.cat([image.flatten() for image in images]), self.device)
        parts = packed.split([image.numel() for image in images])
        return [part.view(image.shape) for part, image in zip(parts, images, strict=True)], readable


def _load(config: ImageRun, data_root: str | Path | None, test_name: str) -> tuple[Any, Any, Any, dict[str, Any]]:
    """The whole training set, the images to train and to evaluate on, and their sizes for the record."""
    with processes.main_first():
        full, test = config.data.load(data_root)
    train, held = split_train(full, config.train_size, config.holdout)
    evaluated = held if config.holdout else test
    sizes = {
        "train": len(train),
        "train_available": len(full),
        "eval": len(evaluated),
        "eval_split": "holdout" if config.holdout else test_name,
        "sampled": config.data.sampled({"train": len(full), test_name: len(test)}),
    }
    return full, train, evaluated, sizes
