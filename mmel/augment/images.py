"""Image augmentations that make V views of each image at once, uint8 in and out: (N, C, H, W) -> (N, V, C, H, W)."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmel.augment.base import AfterAnother, ImageAugmentation, Images, mix_bits, one_batch

# Names of ours for two transforms of torchvision.
TRANSFORMS = {"randaugment": "RandAugment", "trivialaugment": "TrivialAugmentWide"}


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
        images = one_batch(images, codes)
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
        wanted = (torch.uint8, *views.shape[2:])
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False):
            for i, row in enumerate(codes.tolist()):
                for j, code in enumerate(row):
                    # The crop took the code's low part; mixing again keeps the two draws apart.
                    torch.default_generator.manual_seed(code ^ 0x5DEECE66D)
                    view = self.transform(views[i, j])
                    got = (view.dtype, *view.shape) if isinstance(view, Tensor) else type(view).__name__
                    if got != wanted:
                        raise ValueError(f"transform must return a tensor of {wanted}, got {got}")
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
