"""The precision of a run's forwards: what is asked for, or what is faster on the device at hand."""

import contextlib
import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from mmel.study.train.machine import ieee_fp32

# The probe ends after so many rounds or seconds, whichever comes first; its first round warms up.
ROUNDS, SECONDS = 8, 0.4
# Images of 16 channels, and the side of a matrix: enough work for its time to be that of the products.
SIZES = {"cpu": (32, 256), "cuda": (512, 4096)}


def autocast(precision: str, device: torch.device, *, cache: bool = False) -> torch.autocast:
    """The context of a forward, an evaluation or a prediction.

    Args:
        precision: `bf16` or `fp32`, as `resolve` returns it.
        device: where the forward runs.
        cache: keep the casted weights for the rest of the forward. A CUDA graph must cast them at each replay, and a
            network of images uses each weight once.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=cache)


def math_of(precision: str) -> contextlib.AbstractContextManager[None]:
    """The context of forwards and backwards: fp32 means IEEE float32 on a GPU too."""
    return ieee_fp32() if precision == "fp32" else contextlib.nullcontext()


def resolve(precision: str, device: torch.device) -> str:
    """The precision, `bf16` or `fp32`, that a run of this configuration takes on a device."""
    if precision != "auto":
        return precision
    seconds = probe(device)
    return "bf16" if seconds["bf16"] < seconds["fp32"] else "fp32"


@functools.cache
def probe(device: torch.device) -> dict[str, float]:
    """Time a small convolution and a matrix product, forward and backward, in both precisions; once per process.

    Without native bf16 (CPUs of AVX2, GPUs before Ampere) it is emulated and up to twenty times slower than fp32.

    Args:
        device: a CPU or a CUDA device.

    Returns:
        The least seconds of a round, for `bf16` and for `fp32`.
    """
    step = _step(device)
    seconds = {"bf16": float("inf"), "fp32": float("inf")}
    threads = torch.get_num_threads()
    # With more, a busy machine's barriers would be timed; of one thread the time on the CPU leaves its neighbours out.
    torch.set_num_threads(1)
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    begin = time.perf_counter()
    for number in range(ROUNDS):
        for precision in seconds:
            start = clock()
            with autocast(precision, device), math_of(precision):
                step()
            taken = clock() - start
            if number > 0:
                seconds[precision] = min(seconds[precision], taken)
        if number > 0 and time.perf_counter() - begin > SECONDS:
            break
    torch.set_num_threads(threads)
    return {name: round(value, 6) for name, value in seconds.items()}


def _step(device: torch.device) -> Callable[[], None]:
    """A function that does the probe's work once, and waits for it."""
    num_images, side = SIZES[device.type]
    with torch.device(device):
        images = torch.ones(num_images, 16, 32, 32).to(memory_format=torch.channels_last).requires_grad_()
        kernel = torch.ones(16, 16, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
        left, right = (torch.ones(side, side, requires_grad=True) for _ in range(2))

    def step() -> None:
        (F.conv2d(images, kernel, padding=1).float().sum() + (left @ right).float().sum()).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
