"""Whether what `benchmarks/gpu.py` times computes what it should, on inputs that no run has seen before."""

from itertools import product
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import bf16_noise
from benchmarks.common import PAPER_BATCH
from mmel.augment.image import RandomCropFlip
from mmel.data.vision import Images
from mmel.train import step, vision
from mmel.train.graph import Captured

# No pixel has it.
POISON = 255


def views(device: torch.device, seed: int) -> str:
    """Compare the views of a batch with slicing: one that was never written would differ, too.

    Where a run's steps are a CUDA graph, the views of a task are made by one as well: captured on a first batch,
    poisoned, and replayed on a second one in another epoch.
    """
    size = PAPER_BATCH.batch_size
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(POISON, (2 * size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(len(pixels)) % 10, 10)
    config = PAPER_BATCH.replace(seed=seed, holdout=0)
    with patch.object(vision, "load_images", lambda *_: (images, images)):
        task = vision.VisionTask(config, None, device)
    why_eager = step.why_eager(task, config, device)
    first, second = torch.randperm(len(pixels), generator=generator).split(size)
    make = task.views
    if why_eager is None:
        make = Captured(task.views, device)
        make(first.to(device), 1).fill_(POISON)
        why_eager = make.failure
    found = make(second.to(device), 2).cpu()
    codes = task.augmentation.draw(second, config.num_augmented - 1, seed, epoch=2)
    expected = torch.cat([pixels[second][:, None], sliced(pixels[second], codes, task.augmentation)], dim=1)
    wrong = (found != expected).flatten(2).any(dim=2).sum()
    how = "replayed from a CUDA graph" if why_eager is None else f"made eagerly ({why_eager})"
    return f"Views that differ from slicing, {how}, seed {seed}: {wrong} of {found.shape[0] * found.shape[1]}."


def sliced(images: Tensor, codes: Tensor, augment: RandomCropFlip) -> Tensor:
    """The views (N, V, C, H, W) that codes (N, V) stand for, cut out one by one."""
    padded = F.pad(images, (augment.padding,) * 4)
    cut = torch.empty(*codes.shape, *images.shape[1:], dtype=images.dtype)
    for n, v in product(*map(range, codes.shape)):
        flipped, place = divmod(int(codes[n, v]), augment.side**2)
        top, left = divmod(place, augment.side)
        view = padded[n, :, top : top + images.shape[2], left : left + images.shape[3]]
        cut[n, v] = view.flip(-1) if flipped else view
    return cut


def noise(device: torch.device, seed: int, steps: int) -> str:
    """The training loss in bf16 beside the plain loop's in float32."""
    return f"bf16 of `mmel.train` beside float32 of the plain loop, seed {seed}:\n\n" + bf16_noise.measure(
        steps, str(device), seed
    )
