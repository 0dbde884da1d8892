"""Tensors on disk: weights, a teacher's outputs, and the state from which a killed run resumes."""

import io
from pathlib import Path
from typing import Any

import torch

from mmel.study.files import write_atomically
from mmel.study.records import ResultsError
from mmel.study.train import processes


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state so that a crash leaves the old one or the new one; off the main process this does nothing."""
    if not processes.is_main():
        return
    buffer = io.BytesIO()
    torch.save({**state, "file": _place(path)}, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, **owners: Any) -> dict[str, Any]:
    """Read, onto the CPU, a state that `save` wrote to this path; each owner takes over the part of its name.

    Raises:
        ResultsError: if the file is damaged, was written as another run's, or does not fit an owner.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["file"] != _place(path):
            raise ValueError(f"it was written as {state['file']}")
        for name, owner in owners.items():
            owner.load_state_dict(state[name])
    except OSError:
        raise
    # Damaged bytes make torch raise exceptions of many types.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")[:100]
        raise ResultsError(
            f"{path} cannot be used ({type(error).__name__}: {reason}); delete it to start anew"
        ) from error
    return state


def _place(path: Path) -> str:
    """Kind, profile, data set and run of a file, which stay when a results folder is moved."""
    return "/".join(path.parts[-4:])
