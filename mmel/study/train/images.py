"""Image classification as the training loop sees it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR

from mmel.augment.images import ImageAugmentation
from mmel.losses import LossTerms, MMELHardLoss
from mmel.study.config import LR_DECAY, MOMENTUM, ImageRun
from mmel.study.models import build_model
from mmel.study.train import processes
from mmel.study.train.graph import Captured
from mmel.study.train.image_sources import DecodedFiles, InMemory

# Views of an image for a look at methods that train on one view.
SHOWN_VIEWS = 10


class ImageSource(Protocol):
    """The images of a run: in memory, or decoded step by step.

    Attributes:
        sizes: data set sizes, for the record.
        num_classes: how many classes there are.
        in_channels: channels of an image.
        mean: (C,) of the network's input, in units of a pixel value of 255.
        std: likewise its standard deviation.
        augmentation: makes the views.
        why_eager: why a step cannot be a CUDA graph; None if it can.
    """

    sizes: dict[str, Any]
    num_classes: int
    in_channels: int
    mean: Tensor
    std: Tensor
    augmentation: ImageAugmentation
    why_eager: str | None

    def __len__(self) -> int:
        """How many images there are to train on."""

    def announce(self, order: Tensor, batch_size: int, steps: int) -> Tensor:
        """Take note of an epoch's order; returns it where `batch` wants it."""

    def batch(self, index: Tensor) -> tuple[Tensor | list[Tensor], Tensor, Tensor]:
        """Images, indices and labels (N,) of some training images, without those that cannot be decoded."""

    def eval_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (M, C, H, W) uint8 and labels (M,) of this process' share of the images to evaluate on."""

    def unreadable(self) -> dict[str, Any]:
        """The images that could not be decoded, for the record."""


class ImageTask:
    """Data, network and loss of one run on images; see `mmel.study.train.task.Task`.

    Args:
        config: the run, with nothing left to be chosen.
        data_root: folder of the data sets.
        device: where to train.
    """

    unit = "images"

    def __init__(self, config: ImageRun, data_root: str | Path | None, device: torch.device):
        source = DecodedFiles if config.data.decoded_per_step else InMemory
        self.source: ImageSource = source(config, data_root, device)
        self.config, self.device = config, device
        self.metric, self.provenance = config.data.metric, {}
        self.sizes, self.why_eager = self.source.sizes, self.source.why_eager
        self.steps = len(self.source) // config.batch_size
        if not self.steps:
            raise ValueError(f"batch_size must be at most the {len(self.source)} images, got {config.batch_size}")
        self.criterion = config.plan.loss(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = build_model(config.model, self.source.num_classes, self.source.in_channels, config.shortcut)
        self.model.to(device, memory_format=torch.channels_last)
        mean, std = (values.to(device).view(-1, 1, 1) for values in (self.source.mean, self.source.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std
        graphs = device.type == "cuda" and processes.count() == 1 and self.why_eager is None
        # A shorter last batch stays eager.
        self._count = Captured(self._count_correct, device) if graphs else self._count_correct

    def build_optimizer(self) -> torch.optim.Optimizer:
        """SGD with momentum (section 4.1)."""
        config = self.config
        # On a GPU one fused kernel moves each parameter's bytes once per step.
        return torch.optim.SGD(
            self.model.parameters(),
            lr=config.lr,
            momentum=MOMENTUM,
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda",
        )

    def build_scheduler(self, optimizer: torch.optim.Optimizer, total_steps: int) -> MultiStepLR:
        """The learning rate falls after some epochs."""
        milestones = [epoch * self.steps for epoch in self.config.total_decay_epochs]
        return MultiStepLR(optimizer, milestones, LR_DECAY)

    def order(self, epoch: int) -> Tensor:
        """Indices of the training images in the order of an epoch."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.source), generator=generator)
        return self.source.announce(order, self.config.batch_size, self.steps)

    def views(self, index: Tensor, epoch: int | Tensor) -> tuple[Tensor, Tensor]:
        """B(x) of some training images.

        Args:
            index: (N,) indices, as `order` gives them.
            epoch: the epoch, on the device if a CUDA graph reads it.

        Returns:
            Views (N, V, C, H, W) uint8 and labels (N,), on the training device.
        """
        return self._views(index, epoch, self.config.num_views, self.config.plan.all_views)

    def terms(self, index: Tensor, epoch: int | Tensor) -> LossTerms:
        """One joint forward over all views of some training images, and the loss of it."""
        views, labels = self.views(index, epoch)
        return self.criterion.terms(self._logits(views), labels)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Accuracy in percent on the test (or held-out) images."""
        self.model.eval()
        correct = torch.zeros(2, dtype=torch.int64, device=self.device)
        for pixels, labels in self.source.eval_batches():
            correct[0] += self._count(pixels, labels)
            correct[1] += len(labels)
        # Every batch went to one of the processes.
        processes.add_up([correct])
        right, seen = correct.tolist()
        return {self.metric: 100 * right / seen}

    def test(self) -> tuple[dict[str, Any], dict[str, list]]:
        """The images that could not be decoded; `evaluate` has seen the test images already."""
        return self.source.unreadable(), {}

    @torch.no_grad()
    def most_uneven(self, num_images: int = 100) -> dict[str, Any]:
        """B(x) of the image on which the present network's weights P* are furthest from equal.

        The weights are those of the run: Eq. 9 for MMEL-S, which weighs the other views alone; for the other methods
        Eq. 6, as MMEL-H would weigh them.

        Args:
            num_images: how many training images to look through, from the first.

        Returns:
            Arrays: `views` (K, H, W, C) uint8, their `losses` (K,) and `weights` (K,), NaN for x in MMEL-S.
        """
        config = self.config
        k = config.num_augmented if config.num_augmented > 1 else SHOWN_VIEWS
        index = torch.arange(min(num_images, len(self.source)))
        views, labels = self._views(
            self.source.announce(index, len(index), 1), config.total_epochs, k, with_original=True
        )
        self.model.eval()
        logits = self._logits(views)
        criterion = self.criterion if config.plan.soft_targets else MMELHardLoss(config.lambda_p)
        terms = criterion.terms(logits, labels)
        # MMEL-S weighs the views other than x.
        losses, weights = (
            F.pad(part, (k - part.shape[1], 0), value=torch.nan) for part in (terms.sample_losses, terms.weights)
        )
        place = int(weights.nan_to_num().amax(dim=1).argmax())
        found = {"views": views[place].permute(0, 2, 3, 1), "losses": losses[place], "weights": weights[place]}
        return {name: values.cpu().numpy() for name, values in found.items()}

    def _views(self, index: Tensor, epoch: int | Tensor, num_views: int, with_original: bool) -> tuple[Tensor, Tensor]:
        images, index, labels = self.source.batch(index)
        has_original = with_original and self.config.original == "clean"
        augmentation = self.source.augmentation
        # Without `redraw` every epoch has the first one's views.
        drawn = epoch if self.config.redraw else 0
        codes = augmentation.draw(index, num_views - has_original, self.config.seed, drawn)
        views = augmentation.apply(images, codes)
        if has_original:
            views = torch.cat([augmentation.original(images)[:, None], views], dim=1)
        return views, labels

    def _logits(self, views: Tensor) -> Tensor:
        """(N, V, C, H, W) uint8 -> (N, V, classes)."""
        return self.model(self.normalize(views.flatten(0, 1))).view(*views.shape[:2], -1)

    def normalize(self, pixels: Tensor) -> Tensor:
        """(M, C, H, W) uint8 -> float32 with the training set's mean 0 and deviation 1, in channels_last."""
        values = pixels.to(torch.float32, memory_format=torch.channels_last)
        return values.mul_(self._scale).add_(self._shift)

    def _count_correct(self, pixels: Tensor, labels: Tensor) -> Tensor:
        return (self.model(self.normalize(pixels)).argmax(dim=1) == labels).sum()
