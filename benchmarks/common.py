"""The common part of the questions: sides that take turns, our side of training and the plain loop, Markdown."""

import contextlib
import itertools
import multiprocessing
import os
import statistics
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.benchmark import Timer, timer

from mmel.losses import LossTerms
from mmel.study.config import ImageRun, Run
from mmel.study.data import find_root, image_sets
from mmel.study.data.images import Images
from mmel.study.datasets import DATASETS, ImageDataset
from mmel.study.records import Line, Store
from mmel.study.train import machine, train
from mmel.study.train.precision import math_of, resolve

CPU = torch.device("cpu")
# The paper's batch: 128 originals, ten views of each. Ten images held out stand in for the test set, since the loop
# evaluates after each epoch and nothing here wants to wait for that.
PAPER_BATCH = ImageRun(holdout=10)
_load_cifar = image_sets.load_cifar
# Spawned, not forked: a setting of the allocator, or a warm cache, must not pass from one side to the other.
SPAWN = multiprocessing.get_context("spawn")
# In the process of a side, its generator.
_running: list[Iterator[Any]] = []


@contextlib.contextmanager
def side(generator: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Callable[[], Future]]:
    """A generator function at module level in a fresh process of its own, which works while it is asked, then sleeps.

    Each call asks for its next value. The result raises what the generator raises, or that its process died.
    """
    begin = (multiprocessing.get_start_method(), generator, arguments)
    with ProcessPoolExecutor(1, mp_context=SPAWN, initializer=_begin, initargs=begin) as pool:
        try:
            yield lambda: pool.submit(_next)
        finally:
            with contextlib.suppress(BrokenProcessPool):
                pool.submit(_end).result()


def _begin(start_method: str, generator: Callable[..., Iterator[Any]], arguments: tuple) -> None:
    # A spawned process spawns its own children too. A DataLoader's workers would then import torch anew in each pass,
    # which a script that is simply run does not make them do: back to the platform's default.
    multiprocessing.set_start_method(start_method, force=True)
    _running.append(generator(*arguments))


def _next() -> Any:
    return next(_running[0])


def _end() -> None:
    _running[0].close()


def alternate(sides: dict[str, Callable[[], Any]], rounds: int, warmup: int = 1) -> dict[str, list[Any]]:
    """Call the sides in turn, A B A B ..., so that a slow minute of the machine falls on all; without the warm-up."""
    values = [{name: ask() for name, ask in sides.items()} for _ in range(warmup + rounds)]
    return {name: [each[name] for each in values[warmup:]] for name in sides}


def compare(sides: dict[str, tuple], rounds: int) -> dict[str, list[Any]]:
    """As `alternate`, each side a generator function and its arguments, in a process of its own."""
    with contextlib.ExitStack() as stack:
        asked = {name: stack.enter_context(side(*given)) for name, given in sides.items()}
        return alternate({name: lambda ask=ask: ask().result() for name, ask in asked.items()}, rounds)


def or_failure(parts: Callable[[], Iterable[str] | str], failed: Callable[[str], str]) -> Iterator[str]:
    """The parts, and in place of those that an exception takes away, what `failed` makes of it."""
    try:
        found = parts()
        yield from [found] if isinstance(found, str) else found
    except Exception as error:
        traceback.print_exc()
        yield failed(f"failed: {type(error).__name__}: {error}".splitlines()[0])


def training_lines(config: Run, device: str = "cpu", data_root: str | None = None) -> Iterator[Line]:
    """The lines of a run, from an empty results folder, then the record's result; random images for CIFAR-10."""
    with tempfile.TemporaryDirectory() as folder, patch.object(image_sets, "load_cifar", load_or_make):
        store = Store(folder)
        yield from train(config, store, data_root=data_root, device=device)
        yield store.read(config).result


def our_steps(steps: int, precision: str = "auto", keep_memory: bool = True) -> Iterator[float]:
    """Seconds of a step of `mmel.study.train`, from epochs of `steps` steps; perhaps with the default allocator."""
    config = PAPER_BATCH.replace(train_size=steps * PAPER_BATCH.batch_size, precision=precision)
    keep = machine.keep_freed_memory if keep_memory else lambda: None
    with patch.object(machine, "keep_freed_memory", keep):
        for line in training_lines(config):
            yield line["train_seconds"] / steps


def eager_lines(task: Any, terms: Callable[[Tensor, int], LossTerms] | None = None) -> Iterator[Line]:
    """A run as one writes it first: each operation launched by itself, in a plain loop over the same task.

    `terms` makes the loss of a batch and an epoch, by default as the task does. Yields some of a run's figures.
    """
    config, device = task.config, task.device
    precision = resolve(config, device)
    if device.type == "cpu":
        machine.keep_freed_memory()
    optimizer = task.build_optimizer()
    task.model.train()
    for epoch in itertools.count(1):
        batches = task.order(epoch).split(config.batch_size)[: task.steps]
        losses = torch.zeros(len(batches), device=device)
        begin = timer()
        with math_of(precision):
            for step, index in enumerate(batches):
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    loss = (terms or task.terms)(index, epoch).loss.mean()
                loss.backward()
                optimizer.step()
                losses[step] = loss.detach()
        rate = sum(map(len, batches)) * config.num_views / (timer() - begin)
        yield {"train_loss": losses.mean().item(), f"{task.unit}_per_second": rate}


def has_cifar10() -> bool:
    """Whether the data root holds CIFAR-10."""
    return (find_root() / "cifar-10-batches-py").is_dir()


def load_or_make(data: ImageDataset = DATASETS["cifar10"], data_root: str | None = None) -> tuple[Images, Images]:
    """As `load_cifar`, but random pixels where CIFAR-10 is missing: no benchmark downloads, and they cost the same."""
    if data.name != "cifar10" or has_cifar10():
        return _load_cifar(data, data_root)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (50_000, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(len(pixels)) % 10, 10)
    return images, images.take(torch.arange(10_000))


def paper_hours() -> Any:
    """Hours of each run of the paper's Table 1 on its V100, by data set, model and method."""
    from mmel.study.report.frames import paper_table

    return paper_table("table1").set_index(["dataset", "model", "method"])["train_hours_v100"]


def seconds_of(function: Callable[[], Any], calls: int = 1) -> float:
    """Seconds of one call, the mean over several, with all threads; a GPU has done its work by then."""
    return Timer("f()", globals={"f": function}, num_threads=torch.get_num_threads()).timeit(calls).mean


def medians(values: dict[str, list[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: statistics.median(found) for name, found in values.items()}


def speeds(seconds: dict[str, list[float]], count: int, unit: str) -> str:
    """A table of the sides' medians, and of how many of a step's `count` units these are a second."""
    rows = [(name, f"{median:.2f}", f"{count / median:,.1f}") for name, median in medians(seconds).items()]
    return table(("side", "seconds a step", f"{unit}/s"), *rows)


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
    threads = f"{os.cpu_count()} CPUs, {device['threads']} threads; torch {torch.__version__}"
    images = "CIFAR-10" if has_cifar10() else "random images of CIFAR-10's shape"
    return f"{device['name']}{gpu}, {threads}; {images}; load average before: {os.getloadavg()[0]:.1f}"
