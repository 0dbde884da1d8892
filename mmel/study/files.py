"""Writing files so that each is whole or not there. Standard library only."""

import glob
import os
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with torn.open("xb") as file:
            write_through(file, content.encode() if isinstance(content, str) else content, path)
        torn.replace(path)
    except BaseException:
        torn.unlink(missing_ok=True)
        raise


def write_through(file: BinaryIO, content: bytes, path: Path) -> None:
    """Write to the disk itself. An error gets the path of the file that is meant: a full disk names none."""
    try:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)
        raise


def delete_torn(path: Path) -> None:
    """Delete what killed processes left of their writing to `path`; nobody may be writing there."""
    for torn in path.parent.glob(f".{glob.escape(path.name)}.*"):
        torn.unlink()
