"""Image augmentations that make V views of each image at once, uint8 in and out: (N, C, H, W) -> (N, V, C, H, W)."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

# A batch (N, C, H, W), or N images (C, H, W); uint8.
Images: TypeAlias = Tensor | Sequence[Tensor]

# Names of ours for two transforms of torchvision.
TRANSFORMS = {"randaugment": "RandAugment", "trivialaugment": "TrivialAugmentWide"}
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
        if not isinstance(num_augmented, int) or num_augmented < 1:
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
        """The original as it stands beside its views: (N, C, H, W) uint8, here the images untouched.

        Raises:
            ValueError: as `apply`.
        """
        return _one_batch(images)


class RandomCropFlip(ImageAugmentation):
    """Random crop of the zero-padded image, then a horizontal flip with probability one half.

    One gather makes all N * V views: no loop over images, no wait for the device, so it may be captured in a CUDA
    graph. A view depends on its code modulo `num_codes`, which is `(flip * side + top) * side + left` with
    `side = 2 * padding + 1`.

    Args:
        padding: pixels of zero padding on each side.
        flip: whether to flip; without, this is a plain random crop.

    Raises:
        ValueError: if `padding` is negative.
    """

    def __init__(self, padding: int = 4, flip: bool = True):
        if padding < 0:
            raise ValueError(f"padding must be 0 or more, got {padding}")
        self.padding = padding
        self.flip = flip
        self.side = 2 * padding + 1

    @property
    def num_codes(self) -> int:
        """How many different views an image has."""
        return self.side**2 * (2 if self.flip else 1)

    def apply(self, images: Images, codes: Tensor) -> Tensor:
        """As `ImageAugmentation.apply`."""
        images = _one_batch(images, codes)
        n, c, h, w = images.shape
        padded = F.pad(images, (self.padding,) * 4).contiguous()
        padded = torch.stack([padded, padded.flip(-1)]) if self.flip else padded[None]
        # All windows of all padded images as one view: no pixel is copied before the gather.
        side = self.side
        s_flip, s_image, s_channel, s_row, s_column = padded.stride()
        windows = padded.as_strided(
            (len(padded), n, side, side, c, h, w),
            (s_flip, s_image, s_row, s_column, s_channel, s_row, s_column),
        )
        codes = codes.remainder(self.num_codes)
        left = codes % side
        top = codes // side % side
        flipped = codes // side**2
        # A crop at `left`, flipped, is a crop of the flipped image at the mirrored column.
        left = torch.where(flipped > 0, side - 1 - left, left)
        number = torch.arange(n, device=images.device)[:, None]
        return windows[flipped, number, top, left]


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
        copies = _one_batch(images, codes)[:, None].expand(-1, codes.shape[1], -1, -1, -1)
        return self._change(copies, codes)

    def _change(self, views: Tensor, codes: Tensor) -> Tensor:
        raise NotImplementedError


class TransformEach(AfterAnother):
    """Any torchvision v2 transform (or any callable on a (C, H, W) uint8 tensor), applied to each view by itself.

    The transform draws from torch's global CPU generator, which is seeded with the view's code and put back
    afterwards. A loop over N * V images: far slower than `RandomCropFlip`, for augmentations that have no batched form.

    Args:
        transform: takes and returns a (C, H, W) uint8 tensor of the same shape.
        before: a batched augmentation that makes the views the transform then works on; None for copies.
    """

    capturable = False

    def __init__(self, transform: Callable[[Tensor], Tensor], before: ImageAugmentation | None = None):
        super().__init__(before)
        self.transform = transform

    def _change(self, views: Tensor, codes: Tensor) -> Tensor:
        device, views = views.device, views.cpu()
        out = torch.empty_like(views, memory_format=torch.contiguous_format)
        with torch.random.fork_rng(devices=[]):
            for i, row in enumerate(codes.tolist()):
                for j, code in enumerate(row):
                    # The crop took the code's low part; mixing again keeps the two draws apart.
                    torch.default_generator.manual_seed(code ^ 0x5DEECE66D)
                    view = self.transform(views[i, j])
                    got = (view.dtype, *view.shape) if isinstance(view, Tensor) else type(view).__name__
                    if got != (torch.uint8, *views.shape[2:]):
                        raise ValueError(
                            f"transform must return a tensor of {(torch.uint8, *views.shape[2:])}, got {got}"
                        )
                    out[i, j] = view
        return out.to(device)


class Cutout(AfterAnother):
    """Cutout (DeVries and Taylor 2017) after crop and flip: a square around a random pixel set to zero, batched.

    Args:
        length: side of the square in pixels; it is cut off at the image's border.
        before: the crop and flip that make the views it works on; `RandomCropFlip()` if None.

    Raises:
        ValueError: if `length` is not positive.
    """

    def __init__(self, length: int = 16, before: RandomCropFlip | None = None):
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        super().__init__(before or RandomCropFlip())
        self.length = length

    def _change(self, views: Tensor, codes: Tensor) -> Tensor:
        # A second draw from the same code, so that crop and hole are independent.
        bits = mix_bits(codes)
        inside = []
        for side, draw in zip(views.shape[-2:], (bits, mix_bits(bits)), strict=True):
            first = draw.remainder(side) - self.length // 2
            number = torch.arange(side, device=views.device) - first[..., None]
            inside.append((number >= 0) & (number < self.length))
        rows, columns = inside
        hole = rows[..., :, None] & columns[..., None, :]
        return views.masked_fill_(hole[:, :, None], 0)


def build_augmentation(augment: str | Callable[[Tensor], Tensor], image_size: int = 32) -> ImageAugmentation:
    """The augmentation that a name stands for, or any torchvision v2 transform after crop and flip.

    Args:
        augment: `crop_flip` (the paper's), `crop`, `cutout`, `randaugment`, `trivialaugment`; `v2.` and the name of a
            transform of torchvision.transforms.v2 that needs no arguments (`v2.AugMix`); or a callable on one
            (C, H, W) uint8 image. (`resized_crop_flip` is for images of any size: `mmel.augment.resized_crop`.)
        image_size: pixels of a side; padding (4 for 32) and hole (16 for 32) scale with it.

    Raises:
        ValueError: on another name, or a transform that needs arguments or makes something else than images of that
            size.
        ModuleNotFoundError: if torchvision is missing and the name needs it.
    """
    crop_flip = RandomCropFlip(padding=image_size // 8)
    if callable(augment):
        return TransformEach(augment, before=crop_flip)
    if augment == "crop_flip":
        return crop_flip
    if augment == "crop":
        return RandomCropFlip(padding=image_size // 8, flip=False)
    if augment == "cutout":
        return Cutout(length=image_size // 2, before=crop_flip)
    name = TRANSFORMS.get(augment, augment.removeprefix("v2."))
    if name != augment:
        return TransformEach(_transform(name, image_size), before=crop_flip)
    raise ValueError(
        "augment must be crop_flip, crop, cutout, randaugment, trivialaugment, v2.<Transform> or a callable, "
        f"got {augment!r}"
    )


def _transform(name: str, image_size: int) -> Callable[[Tensor], Tensor]:
    """A transform of torchvision.transforms.v2 with its default arguments, tried on images."""
    v2: Any = import_module("torchvision.transforms.v2")
    images = torch.zeros(16, 3, image_size, image_size, dtype=torch.uint8)
    try:
        transform: Callable[[Tensor], Tensor] = getattr(v2, name)()
        # Several images, as some transforms change the size by chance.
        TransformEach(transform)(images, 2, torch.Generator())
    # Transforms of boxes, labels or videos fail on an image in ways of their own.
    except Exception as error:
        raise ValueError(
            "augment must name a transform of torchvision.transforms.v2 that needs no arguments and makes a uint8 "
            f"image of the same size, got 'v2.{name}': {str(error).partition(chr(10))[0] or type(error).__name__}"
        ) from error
    return transform


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


def _one_batch(images: Images, codes: Tensor | None = None) -> Tensor:
    check_images(images, codes)
    if isinstance(images, Tensor):
        return images
    if len(shapes := {tuple(image.shape) for image in images}) != 1:
        raise ValueError(f"images must all have one shape (RandomResizedCropFlip takes any), got {sorted(shapes)}")
    return torch.stack(list(images))
