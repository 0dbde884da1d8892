"""The embedded stand-in for ImageNet: drawn JPEGs of several sizes, the same in every process.

Each shows one shape before a striped ground. The class is the shape; colours, place, size, angle, stripes and noise are
drawn at random and say nothing of it.
"""

import functools
import io
import math

import numpy as np
from PIL import Image, ImageDraw

# Corners as (angle in degrees, distance from the centre).
SHAPES = {
    "circle": [(angle, 1.0) for angle in range(0, 360, 6)],
    "triangle": [(angle, 1.0) for angle in range(90, 450, 120)],
    "square": [(angle, 1.0) for angle in range(45, 405, 90)],
    "star": [(18 + 36 * i, 1.0 if i % 2 == 0 else 0.42) for i in range(10)],
    "cross": [(angle + turn, 1.0 if turn else 0.42) for angle in range(45, 405, 90) for turn in (0, 27, 63)],
    "moon": [
        *((angle, 1.0) for angle in range(50, 311, 10)),
        *((angle, 0.62 + 0.2 * abs(180 - angle) / 130) for angle in range(300, 59, -20)),
    ],
}
NUM_TRAIN, NUM_TEST = 480, 240
SIDES = (80, 121)
QUALITY = 85


@functools.cache
def drawings() -> tuple[tuple[list[tuple[str, bytes]], list[int], int], ...]:
    """The drawings: 480 for training and 240 for testing, classes balanced.

    Returns:
        For training and for testing: names and JPEG bytes, classes, how many classes there are.
    """
    parts = []
    for seed, (part, size) in enumerate((("train", NUM_TRAIN), ("val", NUM_TEST))):
        random = np.random.default_rng(seed)
        labels = [place % len(SHAPES) for place in range(size)]
        names = list(SHAPES)
        files = [(f"{part}/{names[label]}/{n:03d}.jpg", _draw(names[label], random)) for n, label in enumerate(labels)]
        parts.append((files, labels, len(SHAPES)))
    return tuple(parts)


def _draw(shape: str, random: np.random.Generator) -> bytes:
    width, height = random.integers(*SIDES, size=2)
    ground, stripe, ink = random.integers(0, 256, size=(3, 3))
    # An ink that can be told from the ground.
    while min(np.abs(ink - ground).max(), np.abs(ink - stripe).max()) < 90:
        ink = random.integers(0, 256, size=3)
    rows, columns = np.mgrid[:height, :width]
    direction, period = random.uniform(0, math.pi), random.uniform(8, 30)
    waves = np.sin(2 * math.pi * (rows * math.sin(direction) + columns * math.cos(direction)) / period)
    pixels = np.where(waves[..., None] > 0, ground, 0.6 * ground + 0.4 * stripe)
    pixels = np.clip(pixels + random.normal(0, 12, size=pixels.shape), 0, 255)
    image = Image.fromarray(pixels.astype(np.uint8))
    radius = random.uniform(0.28, 0.42) * min(width, height)
    x, y = random.uniform(radius, width - radius), random.uniform(radius, height - radius)
    turn = random.uniform(0, 360)
    corners = [
        (x + radius * far * math.cos(math.radians(angle + turn)), y - radius * far * math.sin(math.radians(angle + turn)))
        for angle, far in SHAPES[shape]
    ]
    ImageDraw.Draw(image).polygon(corners, fill=tuple(int(level) for level in ink))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
