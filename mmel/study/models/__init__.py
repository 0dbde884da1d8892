"""The networks of the study."""

import os
from pathlib import Path


class ModelError(Exception):
    """A text model that is missing, or lacks a part that is needed."""


def text_model_name(named: str | None = None) -> str | None:
    """The name that runs have for a text encoder: its hub name, or its folder's name without the path.

    Args:
        named: hub name or folder; None for MMEL_TEXT_MODEL.

    Returns:
        The name; None if neither is set, for the encoder of a profile.
    """
    named = named or os.environ.get("MMEL_TEXT_MODEL")
    return Path(named).resolve().name if named and Path(named).is_dir() else named or None
