"""Fills kept on disk by content, so that a call reads what an earlier one, killed or not, has filled."""

import contextlib
import hashlib
import json
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmel.augment.text_fill import Fills, Job

# Raised when the same settings would be filled otherwise than before.
_FORMAT = 1
# Parts of a model's configuration that change from place to place and do not change its outputs.
_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "_attn_implementation")
# How long to wait for another process that is writing.
PATIENCE_SECONDS = 60


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a model's parameters: names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class FillCache:
    """A folder, made if missing, with one SQLite file per masked LM, vocabulary and settings of the augmentation."""

    def __init__(self, folder: str | Path, model: Any, tokenizer: Any, settings: Mapping[str, Any]):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        config = {name: value for name, value in model.config.to_dict().items() if name not in _VOLATILE}
        content = {
            "format": _FORMAT,
            "weights": weights_digest(model),
            "model": type(model).__name__,
            "config": config,
            "vocabulary": sorted(tokenizer.get_vocab().items()),
            "special": tokenizer.special_tokens_map,
            "settings": dict(settings),
        }
        self._content = _digest(content)
        self._model = model

    @property
    def path(self) -> Path:
        """The file for the model's precision and the autocast around this call, which may change a fill."""
        parameter = next(self._model.parameters())
        device = parameter.device.type
        autocast = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
        return self.folder / f"{_digest([self._content, str(parameter.dtype), autocast])[:32]}.sqlite"

    def read(self, jobs: Sequence[Job]) -> dict[Job, Fills]:
        """Those of some jobs that have been filled."""
        known = {}
        with self._open() as database:
            for job in jobs:
                if found := database.execute("SELECT pieces FROM fills WHERE key = ?", [_key(job)]).fetchone():
                    flat, step = array("i", found[0]), len(job.positions)
                    known[job] = tuple(tuple(flat[place : place + step]) for place in range(0, len(flat), step))
        return known

    def write(self, batch: Iterable[tuple[Job, Fills]]) -> None:
        """Add the fills of some jobs, all of them or, if killed meanwhile, none."""
        rows = [(_key(job), array("i", [piece for row in fills for piece in row]).tobytes()) for job, fills in batch]
        with self._open() as database, database:
            # Another process may have filled one of them since it was looked for.
            database.executemany("INSERT OR IGNORE INTO fills VALUES (?, ?)", rows)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A connection for each use: none is shared with a forked process, and an augmenter can be pickled. The lock is
        # taken at the begin of a transaction, where another process is waited for, not in the middle of one.
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE_SECONDS, isolation_level="IMMEDIATE")) as database:
                database.execute("CREATE TABLE IF NOT EXISTS fills (key BLOB PRIMARY KEY, pieces BLOB) WITHOUT ROWID")
                yield database
        except sqlite3.OperationalError as error:
            raise ValueError(
                f"cache file {self.path} cannot be used ({error}): another process holds it, or the disk is full or "
                "read-only; what is in it stays"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(f"cache file {self.path} cannot be read ({error}); delete it to start anew") from error


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _key(job: Job) -> bytes:
    # The positions follow from the pieces and the settings.
    return hashlib.sha256(repr((job.ids, job.types)).encode()).digest()
