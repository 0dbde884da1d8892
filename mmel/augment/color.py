"""Colour jitter of a batch of views, with a draw for each: uint8 in and out, on any device."""

import torch
from torch import Tensor

from mmel.augment.base import AfterAnother, ImageAugmentation, uniform_of

# Of red, green and blue in grey, as ITU-R BT.601 and torchvision have them.
GREY = (0.2989, 0.587, 0.114)
# Beyond the numbered draws that `RandomResizedCropFlip` takes from a code.
FIRST_DRAW = 32


class ColorJitter(AfterAnother):
    """Random brightness, contrast, saturation and hue of each view: torchvision's `ColorJitter`, batched.

    In this order (torchvision draws the order too), in float32 with one rounding at the end. torchvision's version 2
    makes one draw for a whole batch.

        augment = ColorJitter(0.4, 0.4, 0.4, 0.1, before=RandomResizedCropFlip(224))

    Args:
        brightness: b >= 0; the factor is drawn from [max(0, 1 - b), 1 + b].
        contrast: as `brightness`.
        saturation: as `brightness`.
        hue: h in [0, 0.5]; the shift is drawn from [-h, h], in turns of the colour circle.
        before: the augmentation that makes the views it works on; None for copies.

    Raises:
        ValueError: if a strength is out of its range; in `apply`, also if the images do not have 3 channels.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        before: ImageAugmentation | None = None,
    ):
        self.strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        for name, strength in self.strengths.items():
            most = 0.5 if name == "hue" else float("inf")
            if not 0 <= strength <= most:
                raise ValueError(f"{name} must be between 0 and {most}, got {strength}")
        super().__init__(before)

    def _change(self, views: Tensor, codes: Tensor) -> Tensor:
        if views.shape[2] != 3:
            raise ValueError(f"images must have 3 channels for a colour jitter, got {views.shape[2]}")
        pixels = views.float()
        draws = uniform_of(codes, FIRST_DRAW, len(self.strengths)).float()[..., None, None, None].unbind(2)
        for draw, (name, strength) in zip(draws, self.strengths.items(), strict=True):
            if not strength:
                continue
            if name == "hue":
                pixels = _turn(pixels, strength * (2 * draw - 1))
                continue
            low = max(0.0, 1 - strength)
            factor = low + (1 + strength - low) * draw
            if name == "brightness":
                pixels = pixels * factor
            else:
                red, green, blue = (share * pixels[:, :, c : c + 1] for c, share in enumerate(GREY))
                other = red + green + blue
                if name == "contrast":
                    other = other.mean(dim=(-2, -1), keepdim=True)
                pixels = torch.lerp(other, pixels, factor)
            pixels = pixels.clamp_(0, 255)
        return pixels.round_().to(torch.uint8)


def _turn(pixels: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of pixels (N, V, 3, H, W) by (N, V, 1, 1, 1) turns, at the same saturation and value (HSV)."""
    red, green, blue = pixels.split(1, dim=2)
    value = pixels.amax(dim=2, keepdim=True)
    chroma = value - pixels.amin(dim=2, keepdim=True)
    # In sixths of a turn; a grey pixel keeps its colour whatever its hue.
    per_chroma = 1 / chroma.clamp(min=1e-3)
    hue = torch.where(
        value == red,
        (green - blue) * per_chroma,
        torch.where(value == green, (blue - red) * per_chroma + 2, (red - green) * per_chroma + 4),
    )
    # How far the hue is from where each channel is darkest.
    offsets = torch.arange(5, 0, -2, device=pixels.device).view(3, 1, 1)
    distance = (hue + 6 * shift + offsets) % 6
    return value - chroma * torch.minimum(distance, 4 - distance).clamp_(0, 1)
