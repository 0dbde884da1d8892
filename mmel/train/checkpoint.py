"""Tensors on disk: weights, and the state that a killed run goes on from."""

import io
from pathlib import Path
from typing import Any

import torch

from mmel.records import write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state so that a crash leaves the old one or the new one, never half of it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())
