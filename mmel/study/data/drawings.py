"""The embedded stand-in for ImageNet: drawn JPEGs of several sizes, the same in every process.

Each shows a disc before a ground. The class is the ground's pattern; colours, scale, angle, noise and the disc are
drawn at random and say nothing of it.
"""

import functools
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from mmel.study.data.images import EncodedImages
from mmel.study.datasets import ImageDataset

Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Where the ground has its second colour, from coordinates (H, W) in radians: positive values.
PATTERNS: dict[str, Pattern] = {
    "stripes": lambda u, v: np.sin(u),
    "checks": lambda u, v: np.sin(u) * np.sin(v),
    "dots": lambda u, v: np.sin(u) + np.sin(v) - 1,
    "zigzag": lambda u, v: np.sin(u + 2 * np.abs((v / np.pi) % 2 - 1) * np.pi),
    "rings": lambda u, v: np.sin(np.hypot(u, v)),
    "bricks": lambda u, v: np.where(
        np.sin(u) > 0.8, 1.0, np.sin(v / 2 + np.pi * np.floor((u / np.pi - 0.5) / 2)) - 0.9
    ),
}
SIDES = (80, 121)
PERIODS = (14, 22)
QUALITY = 85


def load(data: ImageDataset, data_root: str | Path | None = None) -> tuple[EncodedImages, EncodedImages]:
    """The drawings, to train on and to test on, classes balanced."""
    train, test = (_part(seed, name, size) for seed, (name, size) in enumerate(data.sizes.items()))
    return train, test


@functools.cache
def _part(seed: int, part: str, size: int) -> EncodedImages:
    names = list(PATTERNS)
    random = np.random.default_rng(seed)
    labels = [number % len(names) for number in range(size)]
    files = [(f"{part}/{names[c]}/{n:03d}.jpg", _draw(PATTERNS[names[c]], random)) for n, c in enumerate(labels)]
    return EncodedImages(files.__getitem__, torch.tensor(labels), len(names))


def _draw(pattern: Pattern, random: np.random.Generator) -> bytes:
    width, height = random.integers(*SIDES, size=2)
    ground, second, ink = random.integers(0, 256, size=(3, 3))
    # A second colour that can be told from the ground.
    while abs(int(second.sum()) - int(ground.sum())) < 240:
        ground, second = random.integers(0, 256, size=(2, 3))
    angle, period = random.uniform(-0.3, 0.3) + random.integers(2) * math.pi / 2, random.uniform(*PERIODS)
    x, y = np.meshgrid(np.arange(width) - random.uniform(0, width), np.arange(height) - random.uniform(0, height))
    turned = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    values = pattern(*(2 * math.pi / period * coordinate for coordinate in turned))
    pixels = np.where(values[..., None] > 0, second, ground) + random.normal(0, 12, size=(height, width, 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    radius = random.uniform(0.1, 0.25) * min(width, height)
    left, top = random.uniform(0, width - 2 * radius), random.uniform(0, height - 2 * radius)
    disc = (left, top, left + 2 * radius, top + 2 * radius)
    ImageDraw.Draw(image).ellipse(disc, fill=tuple(int(level) for level in ink))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
