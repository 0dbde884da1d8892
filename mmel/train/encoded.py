"""ImageNet as the training loop sees it: images decoded step by step, their views made on the training device."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmel.augment.resized_crop import RandomResizedCropFlip
from mmel.config import RunConfig
from mmel.data import DataError
from mmel.data.encoded import DecodeAhead
from mmel.data.imagenet import load_encoded, sampled
from mmel.methods import ViewPlan
from mmel.train import machine, processes
from mmel.train.vision import VisionTask

# ImageNet's channels, as every recipe for it has them (torchvision's reference among them).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVAL_BATCH = 256
# A record names so many files that cannot be decoded, and counts them all.
NAMED = 20


class EncodedVisionTask(VisionTask):
    """As `VisionTask`, of images that stay encoded: each is read and decoded once a step, whatever K is.

    Decoding runs in threads, a batch ahead of the step; of several processes each decodes what it takes. An image that
    cannot be decoded is left out of its batch, named on stderr, and counted in the record; the batch's loss is still
    divided by the batch size.

    Args:
        config: the run, with nothing left to be chosen.
        data_root: folder of the data sets, see `mmel.data.imagenet.load_encoded`.
        device: where to train.
    """

    def __init__(self, config: RunConfig, data_root: str | Path | None, device: torch.device):
        with processes.main_first():
            full, test = load_encoded(config.dataset, data_root)
        self.train_images, self.eval_images = self._set_up(config, device, full, test, "val", in_channels=3)
        self.sizes["sampled"] = list(sampled(config.dataset, full, test))
        self._normalize_by(torch.tensor(MEAN), torch.tensor(STD))
        self.augmentation = RandomResizedCropFlip(config.pixels_a_side)
        share = -(-config.batch_size // processes.count())
        self._train = DecodeAhead(self.train_images, share, processes.cores())
        self._eval = DecodeAhead(self.eval_images, EVAL_BATCH, processes.cores())
        self._reported: set[str] = set()
        self.why_eager = "images are decoded step by step"

    def largest_batch(self) -> Tensor:
        """A whole batch: all views are of one size, whatever images they are of.

        The decoded images, which take far less than the network's activations, do differ from batch to batch.
        """
        return torch.arange(self.config.batch_size)

    def order(self, epoch: int) -> Tensor:
        """As `VisionTask.order`; decoding begins with the first batch of it that is asked for."""
        order = super().order(epoch)
        # Neither what other processes take nor the batch that is dropped.
        batches = order.split(self.config.batch_size)[: self.steps]
        self._train.announce(torch.cat([processes.share(batch) for batch in batches]))
        return order

    def test(self) -> tuple[dict[str, Any], dict[str, list]]:
        """What could not be decoded in the last epoch and the last evaluation: how many images, and some names."""
        names = sorted(set().union(*processes.gathered(self._train.unreadable | self._eval.unreadable)))
        return {"num_unreadable": len(names), "unreadable": names[:NAMED]}, {}

    def _places(self, index: Tensor) -> Tensor:
        # Decoding is the CPU's; so crops are worked out there too, the same on every device.
        return index

    def _batch(self, index: Tensor, plan: ViewPlan, epoch: int) -> tuple[Tensor, Tensor]:
        images, readable = self._decoded(self._train, index)
        index = index[readable]
        labels = machine.to_device(self.train_images.labels[index], self.device)
        return self._make_views(images, index, plan, epoch), labels

    def _eval_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Every batch goes to one of the processes.
        parts = torch.arange(len(self.eval_images)).split(EVAL_BATCH)[processes.rank() :: processes.count()]
        self._eval.announce(torch.cat(parts) if parts else torch.arange(0))
        for part in parts:
            images, readable = self._decoded(self._eval, part)
            yield self.augmentation.original(images), self.eval_images.labels[part[readable]].to(self.device)

    def _decoded(self, decoder: DecodeAhead, index: Tensor) -> tuple[list[Tensor], Tensor]:
        """The images at some places on the training device, and which of the places could be decoded."""
        images, readable = decoder.batch(index)
        for name in sorted(decoder.unreadable - self._reported):
            tqdm.write(f"{self.config.run_id}: cannot decode {name}; it is left out", file=sys.stderr)
        self._reported |= decoder.unreadable
        if not images:
            few = ", ".join(sorted(decoder.unreadable)[:3])
            raise DataError(f"{self.config.dataset}: none of {len(index)} images can be decoded ({few}, ...)")
        if self.device.type == "cpu":
            return images, readable
        # One copy of all, beside which the GPU works on.
        packed = machine.to_device(torch.cat([image.flatten() for image in images]), self.device)
        parts = packed.split([image.numel() for image in images])
        return [part.view(image.shape) for part, image in zip(parts, images, strict=True)], readable
