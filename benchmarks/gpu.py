"""How fast does a GPU train, and how far is that from what it can do at all? All in bf16; K = 10 on images, 5 on text.

Each workload stands beside its floor: the least time that its counted operations and bytes take at the matmul rate and
copy bandwidth measured in the same run (`benchmarks/floor.py` says what is counted). Speeds are those that a run's
record shows (`images_per_second`, `sequences_per_second`: training alone, from the second epoch on); a whole run with
all that a user waits for has a table of its own. "Plain loop" and "padded" launch each operation by itself, over the
same task. Then the views of a batch are compared with slicing, and the training loss in bf16 with the plain loop's in
float32, with a seed never used before. Each line is printed once it is measured; what fails says so in its place.
`MMEL_DEVICE=cpu` tries all of it out in small.
"""

import os
import secrets
import traceback
from collections.abc import Callable, Iterator
from itertools import chain

import torch

from benchmarks import floor, gpu_checks, gpu_images, gpu_texts
from benchmarks.common import describe, table, table_line
from benchmarks.gpu_rows import FULL, HEAD, SMALL, Sizes
from mmel.train import machine


def measure() -> Iterator[str]:
    """All workloads, one after the other, a whole run, then the self-checks."""
    device = machine.pick_device()
    if device.type == "cpu" and os.environ.get("MMEL_DEVICE") != "cpu":
        yield "No GPU here, so nothing was measured. MMEL_DEVICE=cpu tries the benchmark out in small."
        return
    on_gpu = device.type == "cuda"
    sizes = FULL if on_gpu else SMALL
    rates = floor.measure_rates(device)
    if not on_gpu:
        yield "**These are not GPU figures**: small sizes on a CPU, to try it out.\n"
    yield (
        f"{machine.describe_device(device)['name']}: {rates.moved / 1e9:,.0f} GB/s copied (read and written), "
        f"{rates.operations / 1e12:,.1f} TFLOP/s of bf16 matrix products.\n"
    )
    yield table(HEAD)
    for name, workload in chain(gpu_images.workloads(device, sizes), gpu_texts.workloads(device, sizes)):
        lines = (row.line(rates, on_gpu) for row in workload())
        yield from _or_failure(lines, lambda why, name=name: table_line(name, "", why, *[""] * (len(HEAD) - 3)))
    for name, section in _sections(device, sizes).items():
        yield from _or_failure((f"\n{section()}" for _ in range(1)), lambda why, name=name: f"\n{name}: {why}")


def _sections(device: torch.device, sizes: Sizes) -> dict[str, Callable[[], str]]:
    """What stands below the table."""
    seed = secrets.randbelow(2**31)
    return {
        "a whole run": lambda: gpu_images.whole_run(device, sizes),
        "views": lambda: gpu_checks.views(device, seed),
        "bf16 noise": lambda: gpu_checks.noise(device, seed, sizes.noise_steps),
    }


def _or_failure(parts: Iterator[str], failed: Callable[[str], str]) -> Iterator[str]:
    """The parts, and in place of those that an exception takes away, what it was."""
    try:
        yield from parts
    except Exception as error:
        traceback.print_exc()
        yield failed(f"failed: {describe(error)}")
