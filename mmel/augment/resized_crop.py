"""Random-resized crops of images of any size, all views of an image at once: uint8 in and out, on any device.

A crop, its antialiased resize and its flip are linear in the rows and in the columns of an image. So the V views of one
image are two batched matrix products, with one matrix a view for the columns and one for the rows; no view is a loop
of its own, and an image needs no padding to the size of another.
"""

import torch
from torch import Tensor

from mmel.augment.base import ImageAugmentation, Images, check_images, uniform_of

# torchvision draws this often before it falls back to a central crop.
ATTEMPTS = 10
# The paper's 224 pixels are cut from the centre of an image whose shorter side was resized to 256.
CENTER_SHARE = 224 / 256


class RandomResizedCropFlip(ImageAugmentation):
    """A random crop resized to a square, then a horizontal flip with probability one half: ImageNet's augmentation.

    Area, aspect ratio and place are drawn by torchvision's `RandomResizedCrop` rule (a uniform area, a log-uniform
    ratio, ten attempts, then the largest central crop), from the bits of the code. The resize is bilinear with
    antialiasing, as torchvision's, in float32 with one rounding at its end. The original is `center_crop`, as
    evaluation sees it. Made for a GPU: on a CPU `KViews` with torchvision's transform is faster for large images.

        views = RandomResizedCropFlip(224)(images, num_augmented=5)  # (N, 5, C, 224, 224)

    Args:
        size: pixels of a side of the views.
        scale: smallest and largest share of an image's area.
        ratio: smallest and largest width over height.

    Raises:
        ValueError: if `size` is not positive, or `scale` or `ratio` is no range of positive numbers.
    """

    def __init__(
        self, size: int = 224, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ):
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        for name, (low, high) in {"scale": scale, "ratio": ratio}.items():
            if not 0 < low <= high < float("inf"):
                raise ValueError(f"{name} must be two positive numbers, the smaller one first, got {(low, high)}")
        self.size, self.scale, self.ratio = size, scale, ratio
        self._log_ratio = torch.tensor(ratio, dtype=torch.float64).log().tolist()

    def apply(self, images: Images, codes: Tensor) -> Tensor:
        """Make the views that `codes` stand for.

        Args:
            images: N images (C, H, W) uint8 of any sizes, or (N, C, H, W), on one device.
            codes: (N, V) int64 from `draw`. Crops are worked out on their device; where that is the CPU the same
                crops are taken on every device, and what they need goes there as one copy.

        Returns:
            (N, V, C, size, size) uint8, on the images' device.

        Raises:
            ValueError: if a shape or dtype is not as above.
        """
        check_images(images, codes)
        top, left, height, width = self.boxes(*_sizes(images, codes.device), codes).unbind(dim=-1)
        rows, columns = (
            _span(start.double(), extent.double() / self.size, start, start + extent, self.size)
            for start, extent in ((top, height), (left, width))
        )
        flipped = uniform_of(codes, 2 * ATTEMPTS + 2, 1) >= 0.5
        return _resample(images, rows, columns, flipped)

    def original(self, images: Images) -> Tensor:
        """The originals as evaluation sees them: `center_crop`."""
        return center_crop(images, self.size)

    def boxes(self, heights: Tensor, widths: Tensor, codes: Tensor) -> Tensor:
        """The crops that codes stand for.

        Args:
            heights: (N,) pixels.
            widths: (N,) pixels.
            codes: (N, V) int64.

        Returns:
            (N, V, 4) int64: top, left, height, width.
        """
        heights, widths = heights[:, None], widths[:, None]
        uniform = uniform_of(codes, 0, 2 * ATTEMPTS + 2)
        shares, ratios = uniform[..., :ATTEMPTS], uniform[..., ATTEMPTS : 2 * ATTEMPTS]
        area = (heights * widths)[..., None] * (self.scale[0] + (self.scale[1] - self.scale[0]) * shares)
        low, high = self._log_ratio
        ratio = (low + (high - low) * ratios).exp()
        width = (area * ratio).sqrt().round().long()
        height = (area / ratio).sqrt().round().long()
        fits = (width > 0) & (width <= widths[..., None]) & (height > 0) & (height <= heights[..., None])
        number = torch.arange(ATTEMPTS, device=codes.device)
        first = torch.where(fits, number, ATTEMPTS).amin(dim=-1)
        found = first < ATTEMPTS
        chosen = first.clamp(max=ATTEMPTS - 1)[..., None]
        # The largest central crop whose aspect ratio is allowed.
        middle_width = torch.minimum(widths, (heights * self.ratio[1]).round().long()).clamp(min=1)
        middle_height = torch.minimum(heights, (widths / self.ratio[0]).round().long()).clamp(min=1)
        width = torch.where(found, width.gather(-1, chosen)[..., 0], middle_width)
        height = torch.where(found, height.gather(-1, chosen)[..., 0], middle_height)
        down, right = uniform[..., -2], uniform[..., -1]
        top = torch.where(found, (down * (heights - height + 1)).long(), (heights - height) // 2)
        left = torch.where(found, (right * (widths - width + 1)).long(), (widths - width) // 2)
        return torch.stack([top, left, height, width], dim=-1)


def center_crop(images: Images, size: int) -> Tensor:
    """The central square of each image after a resize, as evaluation has it and as x itself is seen.

    For 224 pixels the shorter side is resized to 256, for other sizes in proportion; antialiased, as
    `RandomResizedCropFlip`.

    Args:
        images: N images (C, H, W) uint8 of any sizes, or (N, C, H, W), on one device.
        size: pixels of a side.

    Returns:
        (N, C, size, size) uint8.

    Raises:
        ValueError: if an image is not as above.
    """
    check_images(images)
    heights, widths = (sides[:, None] for sides in _sizes(images, torch.device("cpu")))

    def span(sides: Tensor) -> Tensor:
        # torchvision's rounding: the longer side is cut off, the crop's corner rounded.
        resized = round(size / CENTER_SHARE) * sides // torch.minimum(heights, widths)
        step = sides / resized.double()
        return _span(step * ((resized - size) / 2).round(), step, torch.zeros_like(sides), sides, size)

    return _resample(images, span(heights), span(widths), torch.zeros(len(images), 1, 1, dtype=torch.bool))[:, 0]


def _span(origin: Tensor, step: Tensor, low: Tensor, high: Tensor, size: int) -> Tensor:
    """Where the `size` outputs of a resize lie along one side of N images, in pixels.

    From (N, V) each: the left edge of the first output, input pixels per output, the first pixel that may be read and
    the end of those. Returns (N, V, size + 3) float64: the outputs' centres, `low`, `high`, how far an output reaches.
    """
    centers = origin[..., None] + step[..., None] * (torch.arange(size, device=step.device) + 0.5)
    return torch.cat([centers, torch.stack([low, high, step.clamp(min=1)], dim=-1)], dim=-1)


def _resample(images: Images, rows: Tensor, columns: Tensor, flipped: Tensor) -> Tensor:
    """N images (C, H, W), spans of `_span` and `flipped` (N, V, 1) -> (N, V, C, size, size) uint8."""
    device, width = images[0].device, rows.shape[-1]
    # All that the images' matrices are made of, as one copy: a GPU would wait for each of many small ones.
    packed = torch.cat([rows, columns, flipped], dim=-1)
    if device.type == "cuda" and packed.device.type == "cpu":
        packed = packed.pin_memory()
    parts = packed.to(device, non_blocking=True).split([width, width, 1], dim=-1)
    views = []
    for image, row, column, flip in zip(images, *parts, strict=True):
        height, width = image.shape[-2:]
        down, across = _weights(row, height), _weights(column, width)
        across = torch.where(flip[..., None].bool(), across.flip(1), across)
        # Half precision would cost levels of brightness; autocast is for the network.
        with torch.autocast(device.type, enabled=False):
            # (1, C * H, W) times (V, W, size), then (V, 1, size, H) times (V, C, H, size).
            narrow = image.float().flatten(0, 1) @ across.mT
            resized = down[:, None] @ narrow.unflatten(1, (-1, height))
        views.append(resized.round_().clamp_(0, 255).to(torch.uint8))
    return torch.stack(views)


def _weights(packed: Tensor, length: int) -> Tensor:
    """(V, size, length) float32: how much of each pixel goes into each output; rows sum to 1.

    A triangle around the output's centre, as wide as the output where it is larger than a pixel (antialiasing), cut off
    at the pixels that may be read.
    """
    centers, (low, high, reach) = packed[:, :-3, None], packed[:, None, -3:, None].unbind(dim=2)
    pixels = torch.arange(length, device=packed.device)
    # The differences are small: float32 has them exactly enough once the origin is gone.
    distance = (pixels + 0.5 - centers).float()
    weights = (1 - distance.abs() / reach.float()).clamp_(min=0)
    weights *= (pixels >= low) & (pixels < high)
    return weights / weights.sum(dim=-1, keepdim=True)


def _sizes(images: Images, device: torch.device) -> tuple[Tensor, Tensor]:
    """(N,) heights and (N,) widths."""
    if not len(images):
        raise ValueError("images must be at least one, got none")
    if isinstance(images, Tensor):
        # No copy to a GPU, which a CUDA graph could not capture.
        height, width = (torch.full((len(images),), side, device=device) for side in images.shape[-2:])
        return height, width
    heights, widths = zip(*(image.shape[-2:] for image in images), strict=True)
    return torch.tensor(heights, device=device), torch.tensor(widths, device=device)
