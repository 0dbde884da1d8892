"""The base of the image augmentations: how codes are drawn and images checked."""

from collections.abc import Sequence
from typing import SupportsIndex, TypeAlias

import torch
from torch import Tensor

# A batch (N, C, H, W), or N images (C, H, W); uint8.
Images: TypeAlias = Tensor | Sequence[Tensor]

# Odd 64-bit constants of the splitmix64 generator (Steele, Lea and Flood 2014), as signed integers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX2 = 0x94D049BB133111EB - 2**64
# A picture has no more; a first dimension beyond it is one of rows, or of images.
MAX_CHANNELS = 4


class ImageAugmentation:
    """Base of the augmentations: draws a code for each view, then applies the codes.

    A code depends on (seed, epoch, index of the image, view) alone, so neither the split into batches, nor the device,
    nor an interruption changes a view.

    Attributes:
        capturable: whether `draw`, and `apply` on a batch (N, C, H, W), may be captured in a CUDA graph: they look at
            no value on the CPU.
    """

    capturable = True

    def draw(self, index: Tensor, num_views: int, seed: int, epoch: int | Tensor) -> Tensor:
        """Draw the codes of the views of some images.

        Args:
            index: (N,) int64 indices in the data set.
            num_views: V >= 1.
            seed: of the run.
            epoch: the epoch, or any other count of the draws; a 0-d int64 tensor on the device of `index` means the
                same.

        Returns:
            (N, V) int64 codes on the device of `index`; `draw(index, V)` begins with `draw(index, V - 1)`.

        Raises:
            ValueError: if `index` is not an int64 vector or `num_views` is not positive.
        """
        if index.dim() != 1 or index.dtype != torch.int64:
            raise ValueError(f"index must be an int64 vector, got {index.dtype} {tuple(index.shape)}")
        if num_views < 1:
            raise ValueError(f"num_views must be at least 1, got {num_views}")
        views = torch.arange(num_views, device=index.device)
        start = torch.full((1,), seed, dtype=torch.int64, device=index.device)
        state = mix_bits(mix_bits(start) + epoch)
        return mix_bits(mix_bits(state + index)[:, None] + views)

    def apply(self, images: Images, codes: Tensor) -> Tensor:
        """Make the views that `codes` stand for.

        Args:
            images: (N, C, H, W) uint8, or N images (C, H, W) of one size.
            codes: (N, V) int64 from `draw`, on the same device.

        Returns:
            (N, V, C, H, W) uint8.

        Raises:
            ValueError: if a shape or dtype is not as above.
        """
        raise NotImplementedError

    def __call__(
        self,
        images: Images,
        num_augmented: int,
        generator: torch.Generator | None = None,
        include_original: bool = True,
    ) -> Tensor:
        """Draw and apply at once, for one's own training loop.

        Args:
            images: as `apply`, or one image (C, H, W) of at most four channels.
            num_augmented: K = |B(x)|, the original included where `include_original`.
            generator: source of the draw, on the CPU; torch's global one if None.
            include_original: put the untouched image at index 0.

        Returns:
            (N, K, C, H, W) uint8, or (K, C, H, W) of one image.

        Raises:
            ValueError: as `apply`, or if `num_augmented` is not positive.
        """
        if not isinstance(num_augmented, SupportsIndex) or num_augmented < 1:
            raise ValueError(f"num_augmented must be a whole number from 1 on, got {num_augmented!r}")
        if isinstance(images, Tensor) and images.dim() == 3:
            if len(images) > MAX_CHANNELS:
                raise ValueError(
                    f"images must have at most {MAX_CHANNELS} channels, the first dimension, if they are one image, "
                    f"got {tuple(images.shape)}: (H, W, C) needs permute(2, 0, 1), a batch (N, H, W) images[:, None]"
                )
            return self(images[None], num_augmented, generator, include_original)[0]
        original = self.original(images)
        if include_original and num_augmented == 1:
            return original[:, None]
        index = torch.arange(len(images), device=original.device)
        seed = int(torch.randint(2**62, (1,), generator=generator))
        codes = self.draw(index, num_augmented - include_original, seed, epoch=0)
        views = self.apply(images, codes)
        return torch.cat([original[:, None], views], dim=1) if include_original else views

    def original(self, images: Images) -> Tensor:
        """The original as it stands beside its views: (N, C, H, W) uint8, here the images untouched."""
        return one_batch(images)


class AfterAnother(ImageAugmentation):
    """An augmentation that changes the views of another one, or copies of the image if `before` is None."""

    def __init__(self, before: ImageAugmentation | None):
        self.before = before
        self.capturable = self.capturable and (before is None or before.capturable)

    def original(self, images: Images) -> Tensor:
        """As `before` has it."""
        return super().original(images) if self.before is None else self.before.original(images)

    def apply(self, images: Images, codes: Tensor) -> Tensor:
        """As `ImageAugmentation.apply`, for images that `before` takes."""
        if self.before is not None:
            return self._change(self.before.apply(images, codes), codes)
        copies = one_batch(images, codes)[:, None].expand(-1, codes.shape[1], -1, -1, -1)
        return self._change(copies, codes)

    def _change(self, views: Tensor, codes: Tensor) -> Tensor:
        raise NotImplementedError


def mix_bits(state: Tensor) -> Tensor:
    """The splitmix64 step: 64 well-mixed bits for each int64, equal on every device."""
    z = state + _GOLDEN
    z = (z ^ _shift_right(z, 30)) * _MIX1
    z = (z ^ _shift_right(z, 27)) * _MIX2
    return z ^ _shift_right(z, 31)


def uniform_of(codes: Tensor, first: int, count: int) -> Tensor:
    """(N, V) codes -> (N, V, count) float64 in [0, 1): a code's numbered draws, from number `first`."""
    words = mix_bits(mix_bits(codes)[..., None] + torch.arange(first, first + count, device=codes.device))
    # A double has 53 bits.
    return _shift_right(words, 11).double() * 2.0**-53


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own carries the sign."""
    return (values >> bits) & (2 ** (64 - bits) - 1)


def check_images(images: Images, codes: Tensor | None = None) -> None:
    """Raise `ValueError` if images or codes are not of the shape and dtype that `ImageAugmentation.apply` takes."""
    for given in [images] if isinstance(images, Tensor) else images:
        form, hint = type(given).__name__, ""
        if isinstance(given, Tensor):
            form = f"{given.dtype} {tuple(given.shape)}"
            channels_last = given.dim() >= 3 and given.shape[-1] <= MAX_CHANNELS < given.shape[-3]
            if given.dtype == torch.uint8 and given.dim() == (4 if given is images else 3) and not channels_last:
                continue
            if channels_last:
                hint = "; channels come before rows and columns: images.permute(0, 3, 1, 2)"
            elif given.is_floating_point():
                hint = "; augment before scaling to floats (PILToTensor in place of ToTensor)"
        raise ValueError(f"images must be uint8 of shape (N, C, H, W), or N images (C, H, W), got {form}{hint}")
    if codes is not None and (codes.dim() != 2 or len(codes) != len(images) or codes.dtype != torch.int64):
        raise ValueError(
            f"codes must be int64 of shape (N, V) with N = {len(images)}, got {codes.dtype} {tuple(codes.shape)}"
        )


def one_batch(images: Images, codes: Tensor | None = None) -> Tensor:
    """Check images and codes, and stack a list of images: (N, C, H, W)."""
    check_images(images, codes)
    if isinstance(images, Tensor):
        return images
    if len(shapes := {tuple(image.shape) for image in images}) != 1:
        raise ValueError(f"images must all have one shape (RandomResizedCropFlip takes any), got {sorted(shapes)}")
    return torch.stack(list(images))
