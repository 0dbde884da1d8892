"""Tensors on disk: weights, a teacher's outputs, and the state that a killed run resumes from."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmel.records import ResultsError, write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state so that a crash leaves the old one or the new one, never half of it."""
    buffer = io.BytesIO()
    torch.save({**state, "file": _place(path)}, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read, onto the CPU, what `save` wrote to this path.

    Raises:
        ResultsError: if the file is damaged or was written as another run's.
    """
    with _usable(path):
        state = torch.load(path, map_location="cpu", weights_only=True)
        place = state["file"]
    if place != _place(path):
        raise ResultsError(f"{path} was written as {place}; delete it to start anew")
    return state


def fill(model: nn.Module, state: dict[str, Any], path: Path) -> None:
    """Give a network the weights of a state that was read from a path.

    Raises:
        ResultsError: if they do not fit.
    """
    with _usable(path):
        model.load_state_dict(state["model"])


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    # Damaged bytes make torch raise exceptions of many types, with pages of advice.
    except Exception as error:
        what = f"is damaged, or does not fit this version or network ({type(error).__name__})"
        raise ResultsError(f"{path} {what}; delete it to start anew") from error


def _place(path: Path) -> str:
    """Kind, profile, data set and run of a file, which stay when a results folder is moved."""
    return "/".join(path.parts[-4:])
