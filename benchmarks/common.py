"""What the questions share: two sides that take turns, our side of image training, Markdown."""

import contextlib
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor

from mmel.config import RunConfig
from mmel.data import find_root
from mmel.data.vision import CIFAR_FOLDERS, Images, load_images
from mmel.losses import LossTerms
from mmel.records import Line, Store
from mmel.train import machine, train, vision

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
# The paper's batch: 128 originals, ten views of each. Ten images held out stand in for the test set, since the loop
# evaluates after each epoch and nothing here wants to wait for that.
PAPER_BATCH = RunConfig(model="resnet20", method="mmel_h", num_augmented=10, batch_size=128, holdout=10)

# Spawned, not forked: a setting of the allocator, or a warm cache, must not pass from one side to the other.
_SPAWN = multiprocessing.get_context("spawn")

T = TypeVar("T")


class SideError(RuntimeError):
    """What a generator raised in its own process (name and message), or how that process ended."""


class Side:
    """A generator in a fresh process of its own, which works only while it is called and then sleeps.

    Args:
        generator: a generator function at module level; each of its values answers one call.
        arguments: its arguments.

    Raises:
        SideError: when called, if the generator raises or its process dies.
    """

    def __init__(self, generator: Callable[..., Iterator[Any]], *arguments: Any):
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_serve, args=(theirs, multiprocessing.get_start_method(), generator, arguments)
        )
        self._process.start()
        theirs.close()

    def __call__(self) -> Any:
        try:
            self._pipe.send("next")
            value, failure = self._pipe.recv()
        except (EOFError, OSError):
            # Out of memory, most often: it was killed from outside.
            self._process.join()
            raise SideError(f"its process ended with exit code {self._process.exitcode}") from None
        if failure is not None:
            raise SideError(failure)
        return value

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
    with contextlib.closing(generator(*arguments)) as values, contextlib.suppress(EOFError):
        while pipe.recv():
            pipe.send(_next(values))


def _next(values: Iterator[T]) -> tuple[T | None, str | None]:
    """The next value, or why there is none."""
    try:
        return next(values), None
    except Exception as error:
        traceback.print_exc()
        return None, describe(error)


def describe(error: Exception) -> str:
    """An exception in one line."""
    if isinstance(error, SideError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]


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


def training_lines(config: RunConfig, device: str = "cpu", data_root: str | None = None) -> Iterator[Line]:
    """What `mmel.train` yields, from an empty results folder, then the record's result; random images for CIFAR-10."""
    with tempfile.TemporaryDirectory() as folder, patch.object(vision, "load_images", load_or_make):
        store = Store(folder)
        yield from train(config, store, data_root=data_root, device=device)
        yield store.read(config).result


def our_steps(steps: int, keep_memory: bool = True) -> Iterator[float]:
    """Seconds of one step of `mmel.train`, from epochs of `steps` steps each.

    Args:
        steps: how many steps make one value.
        keep_memory: False takes the allocator's setting away.
    """
    config = PAPER_BATCH.replace(train_size=steps * PAPER_BATCH.batch_size)
    keep = machine.keep_freed_memory if keep_memory else lambda: None
    with patch.object(machine, "keep_freed_memory", keep):
        for line in training_lines(config):
            yield line["train_seconds"] / steps


def eager_lines(task: Any, terms: Callable[[Tensor, int], LossTerms] | None = None) -> Iterator[Line]:
    """A run as one writes it first: each operation launched by itself, in a plain loop over the same task.

    Args:
        task: a `VisionTask` or `TextTask`.
        terms: what makes the loss of a batch and an epoch; the task's own by default.

    Yields:
        `train_loss` and `images_per_second` (or `sequences_per_second`) of each epoch, as `mmel.train` has them.
    """
    config, device = task.config, task.device
    if device.type == "cpu":
        machine.keep_freed_memory()
    optimizer = task.build_optimizer()
    task.model.train()
    for epoch in itertools.count(1):
        batches = task.order(epoch).split(config.batch_size)[: task.steps]
        losses = torch.zeros(len(batches), device=device)
        begin = time.perf_counter()
        with machine.ieee_fp32() if config.precision == "fp32" else contextlib.nullcontext():
            for step, index in enumerate(batches):
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                    loss = (terms or task.terms)(index, epoch).loss.mean()
                loss.backward()
                optimizer.step()
                losses[step] = loss.detach()
            mean = losses.mean().item()
        rate = sum(map(len, batches)) * config.num_views / (time.perf_counter() - begin)
        yield {"train_loss": mean, f"{task.unit}_per_second": rate}


def timed_sweep(start: Sequence[str], *options: str) -> tuple[float, list[float]]:
    """Run a sweep of Table 1 on the CPU into an empty results folder.

    Args:
        start: what Python is given to start `mmel`.
        options: of `mmel sweep`.

    Returns:
        Its wall seconds, from the start of the command to its end, and what each record counts of them
        (`wall_seconds`: loading, training, evaluation, checkpoints).
    """
    command = [sys.executable, *start, "sweep", "--table", "table1", "--device", "cpu", *options]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.run([*command, "--results", folder], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - begin
        records = [path.read_text().splitlines()[-1] for path in Path(folder).glob("runs/*/*/*.jsonl")]
    return wall, [json.loads(record)["wall_seconds"] for record in records]


def has_cifar10() -> bool:
    """Whether the folder in which `load_images` looks holds CIFAR-10."""
    return (find_root() / CIFAR_FOLDERS["cifar10"]).is_dir()


def load_or_make(dataset: str = "cifar10", data_root: str | None = None) -> tuple[Images, Images]:
    """As `load_images`, but random pixels where CIFAR-10 is missing: no benchmark downloads, and they cost the same."""
    if dataset != "cifar10" or has_cifar10():
        return load_images(dataset, data_root)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (50_000, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(len(pixels)) % 10, 10)
    return images, images.take(torch.arange(10_000))


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
    head, *body = [table_line(*row) for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def table_line(*cells: object) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def machine_line() -> str:
    """CPU, threads, GPU, torch, data and the load average, which a quiet machine has near 0."""
    device = machine.describe_device(CPU)
    gpu = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    images = "CIFAR-10" if has_cifar10() else "random images of CIFAR-10's shape"
    return (
        f"{device['name']}, {os.cpu_count()} CPUs, {device['threads']} threads{gpu}; torch {torch.__version__}; "
        f"{images}; load average before: {load}"
    )
