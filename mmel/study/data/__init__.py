"""Data sets, whole or read as they are wanted: the real ones from disk or the hub, the embedded ones from code."""

import os
from pathlib import Path


class DataError(Exception):
    """A data set that is missing or damaged."""


def find_root(data_root: str | Path | None = None) -> Path:
    """The folder that holds the data sets: the one that is named, else MMEL_DATA, else ./data."""
    return Path(data_root or os.environ.get("MMEL_DATA") or "data")
