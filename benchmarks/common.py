"""What the questions share: two sides that take turns, our side of image training, Markdown."""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch

from mmel.config import RunConfig
from mmel.data.vision import CIFAR_FOLDERS, DEFAULT_ROOT, Images, load_images
from mmel.records import Store
from mmel.train import machine, train, vision

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
# The paper's batch: 128 originals, ten views of each. Ten images held out stand in for the test set, since the loop
# evaluates after each epoch and nothing here wants to wait for that.
PAPER_BATCH = RunConfig(model="resnet20", method="mmel_h", num_augmented=10, batch_size=128, holdout=10)

# Spawned, not forked: a setting of the allocator, or a warm cache, must not pass from one side to the other.
_SPAWN = multiprocessing.get_context("spawn")

T = TypeVar("T")


class Side:
    """A generator in a fresh process of its own, which works only while it is called and then sleeps.

    Args:
        generator: a generator function at module level; each of its values answers one call.
        arguments: its arguments.
    """

    def __init__(self, generator: Callable[..., Iterator[Any]], *arguments: Any):
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_serve, args=(theirs, multiprocessing.get_start_method(), generator, arguments)
        )
        self._process.start()
        theirs.close()

    def __call__(self) -> Any:
        self._pipe.send("next")
        return self._pipe.recv()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Any, start_method: str, generator: Callable[..., Iterator[Any]], arguments: tuple) -> None:
    # A spawned process spawns its own children too. A DataLoader's workers would then import torch anew in each pass,
    # which a script that is simply run does not make them do: back to the platform's default.
    multiprocessing.set_start_method(start_method, force=True)
    # The other end hangs up when it has enough.
    with closing(generator(*arguments)) as values, suppress(EOFError):
        while pipe.recv():
            pipe.send(next(values))


def alternate(sides: dict[str, Callable[[], T]], rounds: int, warmup: int = 1) -> dict[str, list[T]]:
    """Call the sides in turn, A B A B ..., so that a slow minute of the machine falls on all of them.

    Returns:
        The values of each side, without those of the first `warmup` rounds.
    """
    values: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(warmup + rounds):
        for name, side in sides.items():
            value = side()
            if number >= warmup:
                values[name].append(value)
    return values


def our_steps(steps: int, keep_memory: bool = True) -> Iterator[float]:
    """Seconds of one step of `mmel.train`, from epochs of `steps` steps each.

    Args:
        steps: how many steps make one value.
        keep_memory: False takes the allocator's setting away.
    """
    config = PAPER_BATCH.replace(train_size=steps * PAPER_BATCH.batch_size)
    keep = machine.keep_freed_memory if keep_memory else lambda: None
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(machine, "keep_freed_memory", keep),
        patch.object(vision, "load_images", load_or_make),
    ):
        for line in train(config, Store(folder), device="cpu"):
            yield line["train_seconds"] / steps


def has_cifar10() -> bool:
    """Whether the folder in which `load_images` looks holds CIFAR-10."""
    return (Path(os.environ.get("MMEL_DATA") or DEFAULT_ROOT) / CIFAR_FOLDERS["cifar10"]).is_dir()


def load_or_make(dataset: str = "cifar10", data_root: str | None = None) -> tuple[Images, Images]:
    """As `load_images`, but random pixels where CIFAR-10 is missing: no benchmark downloads, and they cost the same."""
    if dataset != "cifar10" or has_cifar10():
        return load_images(dataset, data_root)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (10_000, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(len(pixels)) % 10, 10)
    return images, images


def seconds_of(function: Callable[[], Any], repeats: int = 1) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """Median and range of the ratio within each round."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(*rows: Sequence[object]) -> str:
    """Rows as a Markdown table, the first one its head."""
    head, *body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def machine_line() -> str:
    """CPU, threads, torch, data and the load average, which a quiet machine has near 0."""
    device = machine.describe_device(CPU)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    images = "CIFAR-10" if has_cifar10() else "random images of CIFAR-10's shape"
    return (
        f"{device['name']}, {os.cpu_count()} CPUs, {device['threads']} threads; torch {torch.__version__}; {images}; "
        f"load average before: {load}"
    )
