"""Image classification as the training loop sees it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR

from mmel.augment.images import build_augmentation
from mmel.augment.resized_crop import RandomResizedCropFlip
from mmel.losses import LossTerms
from mmel.study.config import LR_DECAY, MOMENTUM, ImageRun
from mmel.study.data.images import Images, channel_statistics, split_train, with_wrong_labels
from mmel.study.models.resnet import build_model
from mmel.study.records import marks
from mmel.study.train import graph, processes
from mmel.study.train.backward import loss_terms, of_drawn
from mmel.study.train.image_files import DecodeAhead

# ImageNet's channels, as every recipe for it has them (torchvision's reference among them).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVAL_BATCH = 1000
EVAL_BATCH_OF_FILES = 256
# A record names so many files that cannot be decoded, and counts them all.
NAMED = 20


class ImageTask:
    """Data, network and loss of one run on images: a `mmel.study.train.task.Task`.

    Small images are all on the training device. Image files are decoded step by step: one that cannot be decoded is
    left out of its batch and counted in the record; the batch's loss is still divided by the batch size.
    """

    unit = "images"

    def __init__(self, config: ImageRun, data_root: str | Path | None, device: torch.device):
        self.config, self.device = config, device
        self.provenance: dict[str, Any] = {}
        with processes.main_first():
            full, test = config.data.load(data_root)
        clean, held = split_train(full, config.train_size, config.holdout, config.subset_seed)
        train = with_wrong_labels(clean, config.wrong_labels, config.subset_seed)
        self._is_wrong = (train.labels != clean.labels).to(device)
        evaluated = held if config.holdout else test
        _, test_name = config.data.sizes
        self.sizes = {
            "train": len(train),
            "train_available": len(full),
            "eval": len(evaluated),
            "eval_split": "holdout" if config.holdout else test_name,
            "sampled": config.data.sampled({"train": len(full), test_name: len(test)}),
        }
        self.steps = len(train) // config.batch_size
        if not self.steps:
            raise ValueError(f"batch_size must be at most the {len(train)} images, got {config.batch_size}")
        self._from_files = config.data.decoded_per_step
        if self._from_files:
            self.augmentation, self.why_eager = RandomResizedCropFlip(config.side), "images are decoded step by step"
            mean, std = torch.tensor(MEAN), torch.tensor(STD)
            # Where files are decoded: crops are worked out there too, so that they are the same on every device.
            self._index_device, self._eval_batch = torch.device("cpu"), EVAL_BATCH_OF_FILES
            share = -(-config.batch_size // processes.count())
            self._train = DecodeAhead(train, config.dataset, share, device, processes.cores())
            self._evaluated = DecodeAhead(evaluated, config.dataset, EVAL_BATCH_OF_FILES, device, processes.cores())
        else:
            self.augmentation = build_augmentation(config.augment, config.side)
            self.why_eager = (
                None if self.augmentation.capturable else f"augment={config.augment} makes views one by one"
            )
            # Statistics of the whole training set, so that subsets see the same network input.
            mean, std = channel_statistics(full)
            self._index_device, self._eval_batch = device, EVAL_BATCH
            self._train, self._evaluated = train.to(device), evaluated.to(device)
        self.criterion = config.plan.loss(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = build_model(config.model, full.num_classes, len(mean), config.shortcut)
        self.model.to(device, memory_format=torch.channels_last)
        self.parts = {"model": self.model}
        mean, std = (values.to(device).view(-1, 1, 1) for values in (mean, std))
        self._scale, self._shift = 1 / (255 * std), -mean / std
        # Of each evaluated image, by the last evaluation: 1, 0, or -1 if it was not looked at.
        self._right = torch.full((len(self._evaluated),), -1)
        # A shorter last batch stays eager.
        self._judge = graph.Captured(self._is_right, device, graph.reason_for_eager(device) or self.why_eager)

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
        order = torch.randperm(len(self._train), generator=generator)
        if self._from_files:
            # Neither the other processes' shares nor the batch that is dropped.
            batches = order.split(self.config.batch_size)[: self.steps]
            self._train.announce(torch.cat([processes.share(batch) for batch in batches]))
        return order.to(self._index_device)

    def views(self, index: Tensor, epoch: int | Tensor) -> tuple[Tensor, Tensor]:
        """B(x) of some training images.

        Args:
            index: (N,) indices, as `order` gives them.
            epoch: the epoch, on the device if a CUDA graph reads it.

        Returns:
            Views (N, V, C, H, W) uint8 and labels (N,), on the training device.
        """
        config = self.config
        images, index, labels = self._train.batch(index.to(self._index_device))
        has_original = config.plan.all_views and config.original == "clean"
        # Without `redraw` every epoch has the first one's views.
        codes = self.augmentation.draw(
            index, config.num_views - has_original, config.seed, epoch if config.redraw else 0
        )
        views = self.augmentation.apply(images, codes)
        if has_original:
            views = torch.cat([self.augmentation.original(images)[:, None], views], dim=1)
        return views, labels

    def terms(self, index: Tensor, epoch: int | Tensor) -> LossTerms:
        """One joint forward over all views of some training images, and the loss of it."""
        views, labels = self.views(index, epoch)

        def logits(drawn: Tensor | None) -> Tensor:
            seen = views if drawn is None else of_drawn(views, drawn)
            return self.model(self.normalize(seen.flatten(0, 1))).view(*seen.shape[:2], -1)

        return loss_terms(self.config, self.model, self.criterion, logits, labels)

    def batches(self, images: Images | DecodeAhead) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels (M, C, H, W) uint8, indices (M,) and labels (M,) of this process' share of some images, in order."""
        share = processes.share(torch.arange(len(images), device=self._index_device))
        if self._from_files:
            images.announce(share)
        for part in share.split(self._eval_batch):
            pixels, index, labels = images.batch(part)
            yield self.augmentation.original(pixels), index, labels

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Accuracy in percent on the test (or held-out) images."""
        self.model.eval()
        # Replays overwrite their outputs.
        parts = [
            (index, self._judge(pixels, labels).clone()) for pixels, index, labels in self.batches(self._evaluated)
        ]
        index, right = (torch.cat(processes.gathered(torch.cat(part).cpu())) for part in zip(*parts, strict=True))
        self._right = torch.full((len(self._evaluated),), -1).index_copy(0, index, right.long())
        return {self.config.data.metric: 100 * int(right.sum()) / len(right)}

    def test(self) -> tuple[dict[str, Any], dict[str, list]]:
        """Which images `evaluate` found classified right, the fit of the training images, files that are not decoded.

        `train_accuracy_pct` is of the untouched originals, against the labels that training saw: MMEL-S copies the
        outputs on them (appendix B). `wrong_followed_pct` is the share of the wrong labels that are predicted.
        """
        found: dict[str, Any] = {"correct": {self.sizes["eval_split"]: marks(self._right.tolist())}}
        if self.config.plan.soft_targets or self.config.wrong_labels:
            found |= self._fit()
        if self._from_files:
            names = sorted(set().union(*processes.gathered(self._train.unreadable | self._evaluated.unreadable)))
            found |= {"num_unreadable": len(names), "unreadable": names[:NAMED]}
        return found, {}

    @torch.no_grad()
    def _fit(self) -> dict[str, float]:
        self.model.eval()
        counts = torch.zeros(4, dtype=torch.int64, device=self.device)
        for pixels, index, labels in self.batches(self._train):
            right, wrong = self._predicted(pixels) == labels, self._is_wrong[index.to(self.device)]
            counts[0] += len(labels)
            counts[1:] += torch.stack([right.sum(), wrong.sum(), (right & wrong).sum()])
        processes.add_up([counts])
        seen, right, wrong, followed = counts.tolist()
        shares = {"train_accuracy_pct": (right, seen), "wrong_followed_pct": (followed, wrong)}
        return {name: 100 * part / whole for name, (part, whole) in shares.items() if whole}

    def example(self, index: Tensor, place: int) -> dict[str, Any]:
        """The `views` (K, H, W, C) uint8, an array, of one of some training images in the last epoch."""
        views, _ = self.views(index, self.config.total_epochs)
        return {"views": views[place].permute(0, 2, 3, 1).cpu().numpy()}

    def normalize(self, pixels: Tensor) -> Tensor:
        """(M, C, H, W) uint8 -> float32 with the training set's mean 0 and deviation 1, in channels_last."""
        values = pixels.to(torch.float32, memory_format=torch.channels_last)
        return values.mul_(self._scale).add_(self._shift)

    def _is_right(self, pixels: Tensor, labels: Tensor) -> Tensor:
        return self._predicted(pixels) == labels

    def _predicted(self, pixels: Tensor) -> Tensor:
        return self.model(self.normalize(pixels)).argmax(dim=1)
