"""K views of each example in any training loop: as one item of a data set or one batch, and from rows of logits.

An example's K views come from one item of the data set, so each sampler keeps them together: torch's
`DistributedSampler` sends all K to one process. A sampler that repeats an index K times, such as timm's
`RepeatAugSampler`, sends them to several, where no loss can compare them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, SupportsIndex

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate

from mmel.augment.base import ImageAugmentation


def group_views(logits: Tensor, num_views: int, order: Literal["sample", "view"] = "sample") -> Tensor:
    """Group the rows of one forward over all views by example.

    Args:
        logits: (N * K, ...), any outputs of a network.
        num_views: K >= 1.
        order: `"sample"` if view k of example n is row n * K + k, as in `views.flatten(0, 1)`; `"view"` if it is row
            k * N + n, as in `torch.cat([first_views, second_views])` and timm's `num_aug_splits`.

    Returns:
        (N, K, ...), without a copy.

    Raises:
        ValueError: if `num_views` is not positive or does not divide the rows, or `order` is unknown.
    """
    _check_num_views(num_views)
    if not logits.dim() or len(logits) % num_views:
        raise ValueError(f"logits must have a multiple of num_views = {num_views} rows, got {tuple(logits.shape)}")
    num_examples = len(logits) // num_views
    if order == "sample":
        return logits.view(num_examples, num_views, *logits.shape[1:])
    if order == "view":
        return logits.view(num_views, num_examples, *logits.shape[1:]).transpose(0, 1)
    raise ValueError(f'order must be "sample" or "view", got {order!r}')


class KViews(Dataset[tuple[Any, ...]]):
    """A data set whose items are K views of an example, the original first, and its target.

        plain = [ToTensor(), Normalize(mean, std)]
        augment = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip(), *plain])
        dataset = KViews(CIFAR10(root), augment, num_views=10, original=Compose(plain))

    Works with any sampler and torch's default collate; a batch of views is (N, K, ...). Views are drawn anew whenever
    an item is read, from the generators that `augment` uses (a `DataLoader` seeds torch's and Python's in its workers).

    Args:
        dataset: map-style, without random transforms of its own; its items are (sample, target, ...).
        augment: takes a sample, which it leaves unchanged, and returns one random view as a tensor.
        num_views: K >= 1, the original included.
        original: takes a sample and returns view 0, in the form of the other views; None if the sample is a tensor of
            that form already.

    Raises:
        ValueError: if `dataset` is iterable-style, `augment` makes all views at once, or `num_views` is not positive.
    """

    def __init__(
        self,
        dataset: Dataset[Any] | Sequence[Any],
        augment: Callable[[Any], Tensor],
        num_views: int,
        original: Callable[[Any], Tensor] | None = None,
    ):
        if isinstance(dataset, IterableDataset):
            raise ValueError(f"dataset must be map-style, got the iterable-style {type(dataset).__name__}")
        if isinstance(augment, ImageAugmentation):
            raise ValueError(f"augment must make one view of a sample, got {type(augment).__name__}: see ViewsCollator")
        _check_num_views(num_views)
        self.dataset, self.augment, self.num_views, self.original = dataset, augment, num_views, original

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch's Dataset declares no length

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Views (K, ...) of an example, then the rest of its item.

        Raises:
            ValueError: if the item is not (sample, target, ...), or the views are not tensors of one shape and dtype.
        """
        sample, *rest = _parts(self.dataset[index])
        views = [sample if self.original is None else self.original(sample)]
        views += [self.augment(sample) for _ in range(self.num_views - 1)]
        first, *others = [(v.dtype, *v.shape) if isinstance(v, Tensor) else type(v).__name__ for v in views]
        if not isinstance(views[0], Tensor):
            raise ValueError(f"original must make a tensor, got {first}")
        for form in others:
            if form != first:
                raise ValueError(f"augment must make tensors like the original's {first}, got {form}")
        return torch.stack(views), *rest


class ViewsCollator:
    """Makes all views of a batch at once, as the `collate_fn` of a `DataLoader`.

        dataset = CIFAR10(root, transform=PILToTensor())
        loader = DataLoader(dataset, batch_size=128, collate_fn=ViewsCollator(RandomCropFlip(), num_views=10))

    Views are drawn from torch's global generator, which a `DataLoader` seeds in each worker.

    Args:
        augment: a batched augmentation, such as `RandomCropFlip`; `RandomResizedCropFlip` takes images of any size.
        num_views: K >= 1, the original included.

    Raises:
        ValueError: if `num_views` is not positive, or `augment` makes one view of one image.
    """

    def __init__(self, augment: ImageAugmentation, num_views: int):
        _check_num_views(num_views)
        if not isinstance(augment, ImageAugmentation):
            raise ValueError(f"augment must make all views of a batch, got {type(augment).__name__}: see KViews")
        self.augment, self.num_views = augment, num_views

    def __call__(self, batch: Sequence[Any]) -> tuple[Any, ...]:
        """One batch.

        Args:
            batch: N items (image, target, ...), the image (C, H, W) uint8.

        Returns:
            Views (N, K, C, H, W) uint8, the original first; then the rest, as torch's default collate has it.

        Raises:
            ValueError: if an item or an image is not as above.
        """
        images, *rest = zip(*map(_parts, batch), strict=True)
        return self.augment(images, self.num_views), *(default_collate(list(values)) for values in rest)


def _parts(item: Any) -> Sequence[Any]:
    if not isinstance(item, (tuple, list)) or not item:
        raise ValueError(f"dataset must have items (sample, target, ...), got {type(item).__name__}")
    return item


def _check_num_views(num_views: int) -> None:
    if not isinstance(num_views, SupportsIndex) or num_views < 1:
        raise ValueError(f"num_views must be a whole number from 1 on, got {num_views!r}")
