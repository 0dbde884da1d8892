"""Image classification as the training loop sees it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from mmel.augment.image import build_augmentation
from mmel.config import RunConfig
from mmel.data.vision import Split, channel_statistics, load_images, split_train
from mmel.losses import LossTerms, MMELHardLoss
from mmel.methods import ViewPlan, build_criterion, view_plan
from mmel.models import build_model
from mmel.train import processes
from mmel.train.graph import Captured

EVAL_BATCH = 1000


class VisionTask:
    """Data, network and loss of one run on images; everything lives on the training device.

    Args:
        config: the run, with nothing left to be chosen.
        data_root: folder of the data sets, see `mmel.data.vision.load_images`.
        device: where to train.

    Attributes:
        model: the network, in channels_last.
        steps: steps of an epoch.
        sizes: data set sizes, for the record.
        metric: the score that the run is judged by.
        unit: what a step processes.
        provenance: nothing that the configuration does not say.
        why_eager: why a step cannot be a CUDA graph; None if it can.
    """

    metric = "accuracy_pct"
    unit = "images"
    provenance: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: RunConfig, data_root: str | Path | None, device: torch.device):
        with processes.main_first():
            full, test = load_images(config.dataset, data_root)
        train, evaluated = self._set_up(config, device, full, test, "test", full.pixels.shape[1])
        # Statistics of the whole training set, so that subsets see the same network input.
        self._normalize_by(*channel_statistics(full))
        self.train_images, self.eval_images = train.to(device), evaluated.to(device)
        self.augmentation = build_augmentation(config.augment, train.pixels.shape[-1])
        self.why_eager = None if self.augmentation.capturable else f"augment={config.augment} makes views one by one"

    def _set_up(
        self, config: RunConfig, device: torch.device, full: Split, test: Split, test_name: str, in_channels: int
    ) -> tuple[Split, Split]:
        """Set all that does not depend on where the pixels are; returns the images to train and to evaluate on."""
        train, held = split_train(full, config.train_size, config.holdout)
        evaluated = held if config.holdout else test
        self.sizes: dict[str, Any] = {
            "train": len(train),
            "train_available": len(full),
            "eval": len(evaluated),
            "eval_split": "holdout" if config.holdout else test_name,
        }
        if len(train) < config.batch_size:
            raise ValueError(f"batch_size must be at most the {len(train)} training images, got {config.batch_size}")
        self.config = config
        self.device = device
        self.plan = view_plan(config)
        self.criterion = build_criterion(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = build_model(config.model, full.num_classes, in_channels, config.shortcut)
        self.model.to(device, memory_format=torch.channels_last)
        if config.sync_batch_norm and processes.count() > 1:
            self.model = _synchronized(self.model, config, device)
        self._correct = self._count_correct
        whole, rest = divmod(len(train), config.batch_size)
        self.steps = whole if config.drop_last else whole + bool(rest)
        return train, evaluated

    def _normalize_by(self, mean: Tensor, std: Tensor) -> None:
        """Take (C,) statistics of the channels, in units of a pixel value of 255."""
        mean, std = (values.to(self.device).view(-1, 1, 1) for values in (mean, std))
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def build_optimizer(self) -> torch.optim.Optimizer:
        """SGD with momentum (section 4.1)."""
        config = self.config
        # Bytes are moved for every parameter once a step; on a GPU one fused kernel does it.
        return torch.optim.SGD(
            self.model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=self.device.type == "cuda",
        )

    def build_scheduler(self, optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
        """The learning rate's decay after some epochs; to be stepped after each of `total_steps` steps."""
        per_epoch = total_steps // self.config.total_epochs
        milestones = [epoch * per_epoch for epoch in self.config.total_decay_epochs]
        return MultiStepLR(optimizer, milestones, self.config.lr_decay)

    def largest_batch(self) -> Tensor | None:
        """None: all batches of images are alike."""

    def test(self) -> tuple[dict[str, Any], dict[str, list]]:
        """Nothing: the test images are what `evaluate` looks at."""
        return {}, {}

    def order(self, epoch: int) -> Tensor:
        """Places in the training set, in the order in which this epoch visits them."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        return self._places(torch.randperm(len(self.train_images), generator=generator))

    def _places(self, index: Tensor) -> Tensor:
        """Places in the training set where they are used: on the training device."""
        return index.to(self.device)

    def views(self, index: Tensor, epoch: int | Tensor) -> Tensor:
        """B(x) of some training images: places (N,) -> (N, V, C, H, W) uint8; the epoch may be on the device."""
        return self._batch(index, self.plan, epoch if self.config.redraw else 0)[0]

    def terms(self, index: Tensor, epoch: int | Tensor) -> LossTerms:
        """One joint forward over all views of some training images, and the loss of it."""
        views, labels = self._batch(index, self.plan, epoch if self.config.redraw else 0)
        return self.criterion.terms(self._logits(views), labels)

    def _batch(self, index: Tensor, plan: ViewPlan, epoch: int | Tensor) -> tuple[Tensor, Tensor]:
        """Views (N, V, C, H, W) uint8 and labels (N,) of some training images, on the training device."""
        return self._make_views(self.train_images.pixels[index], index, plan, epoch), self.train_images.labels[index]

    def _make_views(self, images: Tensor | list[Tensor], index: Tensor, plan: ViewPlan, epoch: int | Tensor) -> Tensor:
        codes = self.augmentation.draw(index, plan.num_random, self.config.seed, epoch)
        views = self.augmentation.apply(images, codes)
        return torch.cat([self.augmentation.original(images)[:, None], views], dim=1) if plan.original_first else views

    def _logits(self, views: Tensor) -> Tensor:
        """(N, V, C, H, W) uint8 -> (N, V, classes)."""
        return self.model(self.normalize(views.flatten(0, 1))).view(*views.shape[:2], -1)

    def normalize(self, pixels: Tensor) -> Tensor:
        """(M, C, H, W) uint8 -> float32 with the training set's mean 0 and deviation 1, in channels_last."""
        values = pixels.to(torch.float32, memory_format=torch.channels_last)
        return values.mul_(self._scale).add_(self._shift)

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Accuracy in percent on the test (or held-out) images."""
        self.model.eval()
        correct = torch.zeros(2, dtype=torch.int64, device=self.device)
        for pixels, labels in self._eval_batches():
            correct[0] += self._correct(pixels, labels)
            correct[1] += len(labels)
        self.model.train()
        # Every batch went to one of the processes, which add up what they counted.
        processes.add_up([correct])
        right, seen = correct.tolist()
        return {"accuracy_pct": 100 * right / seen}

    def _eval_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (M, C, H, W) uint8 and labels (M,) of this process' share of the images to evaluate on."""
        images, own = self.eval_images, slice(processes.rank(), None, processes.count())
        return zip(images.pixels.split(EVAL_BATCH)[own], images.labels.split(EVAL_BATCH)[own], strict=True)

    @property
    def eval_failure(self) -> str | None:
        """Why capturing the evaluation failed, see `capture_evaluation`; None where it did not."""
        return self._correct.failure if isinstance(self._correct, Captured) else None

    def capture_evaluation(self) -> None:
        """Evaluate whole batches by a CUDA graph from now on; a shorter last one stays eager."""
        self._correct = Captured(self._count_correct, self.device)

    def _count_correct(self, pixels: Tensor, labels: Tensor) -> Tensor:
        return (self.model(self.normalize(pixels)).argmax(dim=1) == labels).sum()

    @torch.no_grad()
    def most_uneven(self, num_images: int = 100, num_augmented: int | None = None) -> tuple[Tensor, Tensor]:
        """B(x) of the image on which the present network's weights P* are furthest from equal.

        The weights are those of the run: Eq. 9 for `mmel_s`, which weighs the other views alone; Eq. 6 for `mmel_h`
        and, as what it would have made of them, for the other methods.

        Args:
            num_images: how many training images to look through, from the first.
            num_augmented: K, the untouched image included; None for the run's own, or for 10 where that is one view.

        Returns:
            Its views (K, H, W, C) uint8 and their weights (K,), NaN for x in `mmel_s`, on the CPU.
        """
        config = self.config
        k = num_augmented or (config.num_augmented if config.num_augmented > 1 else 10)
        plan = ViewPlan(k, False) if config.original == "augmented" else ViewPlan(k - 1, True)
        index = self._places(torch.arange(min(num_images, len(self.train_images))))
        views, labels = self._batch(index, plan, config.total_epochs if config.redraw else 0)
        training = self.model.training
        self.model.eval()
        logits = self._logits(views)
        self.model.train(training)
        if config.method == "mmel_s":
            weights = self.criterion.terms(logits, labels).weights
            weights = torch.cat([torch.full_like(weights[:, :1], torch.nan), weights], dim=1)
        else:
            weights = MMELHardLoss(config.lambda_p).terms(logits, labels).weights
        place = int(weights.nan_to_num().amax(dim=1).argmax())
        return views[place].permute(0, 2, 3, 1).cpu(), weights[place].cpu()


def _synchronized(model: nn.Module, config: RunConfig, device: torch.device) -> nn.Module:
    """The network with BatchNorm over the shares of all processes."""
    if device.type != "cuda":
        raise ValueError("sync_batch_norm must be False where several processes train on CPUs: PyTorch has it on GPUs")
    if config.batch_size % processes.count() or not config.drop_last:
        raise ValueError(
            f"batch_size must be a multiple of the {processes.count()} processes, and drop_last True, for "
            f"sync_batch_norm, got {config.batch_size} and {config.drop_last}"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
