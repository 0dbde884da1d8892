"""The precision of a run's forwards: the one asked for, or the faster one on the device at hand."""

import contextlib
import functools
import time
from collections.abc import Iterator
from timeit import timeit

import torch
import torch.nn.functional as F

from mmel.study.config import Run

ROUNDS = 8
# Images of 16 channels, and the side of a matrix: enough work for its time to be that of the products.
SIZES = {"cpu": (32, 256), "cuda": (512, 4096)}


def autocast(precision: str, device: torch.device, *, cache: bool = False) -> torch.autocast:
    """The context of forwards in `bf16` or `fp32`.

    With `cache` it keeps the cast weights; a CUDA graph must cast them at each replay.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=cache)


@contextlib.contextmanager
def math_of(precision: str) -> Iterator[None]:
    """The context of forwards and backwards: by itself PyTorch has cuDNN's fp32 convolutions round to TF32."""
    # One of PyTorch's two interfaces, and never the older one (`allow_tf32`) beside it: reading that one is an error
    # while the two disagree.
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings if precision == "fp32" else ():
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def resolve(config: Run, device: torch.device) -> str:
    """The precision, `bf16` or `fp32`, that a run of this configuration takes on a device."""
    if config.precision != "auto":
        return config.precision
    # A change of 1e-5, which SMART looks at, is lost in the rounding of bf16.
    if config.plan.smooth:
        return "fp32"
    seconds = probe(device)
    return "bf16" if seconds["bf16"] < seconds["fp32"] else "fp32"


@functools.cache
def probe(device: torch.device) -> dict[str, float]:
    """The least seconds of a small convolution and a matrix product, forward and backward, in `bf16` and in `fp32`.

    Without native bf16 (CPUs of AVX2, GPUs before Ampere) it is emulated and up to twenty times slower than fp32.
    """
    num_images, side = SIZES[device.type]
    with torch.device(device):
        images = torch.ones(num_images, 16, 32, 32).to(memory_format=torch.channels_last).requires_grad_()
        kernel = torch.ones(16, 16, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
        left, right = (torch.ones(side, side, requires_grad=True) for _ in range(2))

    def work() -> None:
        (F.conv2d(images, kernel, padding=1).float().sum() + (left @ right).float().sum()).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds, threads = {"bf16": float("inf"), "fp32": float("inf")}, torch.get_num_threads()
    # With more, a busy machine's barriers would be timed; of one thread the time on the CPU leaves its neighbours out.
    torch.set_num_threads(1)
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    for _ in range(ROUNDS):
        for name in seconds:
            with autocast(name, device), math_of(name):
                seconds[name] = min(seconds[name], timeit(work, number=1, timer=clock))
    torch.set_num_threads(threads)
    return {name: round(value, 6) for name, value in seconds.items()}
