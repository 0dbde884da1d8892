"""One run on several processes, as `torchrun` or `accelerate launch` starts them: each takes a share of every batch.

Without such a launch there is one process, and everything here does nothing.
"""

import atexit
import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from mmel.study.train import machine

T = TypeVar("T")

# A process waits this long for the others: one that prepares a data set or trains a teacher takes hours.
PATIENCE = timedelta(days=1)


def start(device: str | None = None) -> torch.device:
    """The device of this process; several processes find each other here, and each takes a GPU, or all the CPU.

    Raises:
        ValueError: if the device is not there, or is one GPU for several processes.
    """
    chosen = machine.pick_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return chosen
    if chosen.index is not None:
        raise ValueError(f"device must be cpu or cuda if several processes share a run, got '{chosen}'")
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    if count() == 1:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(distributed.destroy_process_group)
    return chosen


def count() -> int:
    """Number of processes that share the run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process; the main one, which writes, is 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def cores() -> int:
    """CPU cores for each of the processes on this machine."""
    # Launchers say how many are here; of several machines each has its own.
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", count())))


def share(index: Tensor) -> Tensor:
    """This process' part of a batch: consecutive originals, as many as the others have, or one more or less."""
    return index.tensor_split(count())[rank()]


def gathered(value: T) -> list[T]:
    """Each process' value, in all of them, which wait for each other here."""
    values = [value] * count()
    if count() > 1:
        distributed.all_gather_object(values, value)
    return values


def from_main(value: T) -> T:
    """The main process' value, in all of them: clocks and file systems of several machines can differ."""
    return gathered(value)[0]


@contextlib.contextmanager
def held_by_main(lock: contextlib.AbstractContextManager) -> Iterator[None]:
    """The main process alone takes the lock, before any of them runs the block."""
    with lock if is_main() else contextlib.nullcontext():
        gathered(None)
        yield


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the block before the others do, which then find its work in a cache."""
    if not is_main():
        gathered(None)
    try:
        yield
    finally:
        if is_main():
            gathered(None)


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype, of the same shapes in every process, by their sums over the processes."""
    if count() == 1 or not tensors:
        return
    # One message: most of a network's tensors are too small to be worth one each.
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))
