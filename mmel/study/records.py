"""Where every file of a study lies, and how runs are written and read. Owns all paths below `results/`.

A run is one JSON-lines file: a header (`kind: run`: configuration, data set sizes, device, versions, commit), one
line for each evaluation (`kind: epoch`), and a last line (`kind: result`). While it trains, the file carries the
suffix `.partial`; it is renamed when the last line is in it, so a file without that suffix is whole.
"""

import contextlib
import fcntl
import json
import math
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partialmethod
from pathlib import Path
from typing import Any

from mmel.study.config import Run, run_type
from mmel.study.files import delete_torn, write_atomically, write_through

Line = dict[str, Any]

# The fields that readers of a record rely on, with their types; a whole number is a float too.
_HEADER = {
    **{"run_id": str, "config": {}, "metric": str, "num_parameters": float, "device": {"name": str}, "started": str},
    **{"sizes": {"train": float, "train_available": float, "eval": float}, "commit": object, "dirty": object},
}
_TEXT_HEADER = {"hidden_dropout": float, "attention_dropout": float}
_EPOCH = {"epoch": float, "eval_seconds": float}
_FINISHED = {"train_seconds": float, "wall_seconds": float}
_FAILED = {"status": str, "error": str}


class ResultsError(Exception):
    """A results folder or a record that is missing or cannot be read."""


class LockedError(ResultsError):
    """A run that another process trains."""


@dataclass(frozen=True)
class Record:
    """One run as it was written.

    Attributes:
        header: configuration and provenance.
        epochs: one line per evaluation, in order.
        result: the last line; `status` is `finished` or `failed`.
    """

    header: Line
    epochs: list[Line] = field(default_factory=list)
    result: Line = field(default_factory=dict)

    @cached_property
    def config(self) -> Run:
        """The run's configuration, without retired fields: at their one value no name depends on them."""
        kind = run_type(self.header["config"].get("dataset"))
        values = {name: value for name, value in self.header["config"].items() if name in kind.field_names()}
        # Records from before `auto` say bf16, then the default, and carry the name of a default.
        if self.precision is None and values.get("precision") == "bf16":
            values["precision"] = "auto"
        # Likewise 0 was an image size that is not given.
        return kind(**{name: value for name, value in values.items() if (name, value) != ("image_size", 0)})

    @property
    def precision(self) -> str | None:
        """The precision of the training, `bf16` or `fp32`; None in records from before `auto`."""
        return self.header["device"].get("precision")

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.result.get("status") == "finished"

    @property
    def metric(self) -> str:
        """Name of the score that the run is judged by, in percent; `accuracy_pct` for images."""
        return self.header.get("metric", "accuracy_pct")

    @property
    def score(self) -> float:
        """That score after the last epoch of a finished run."""
        return self.result[self.metric]


class Store:
    """A results folder.

    Args:
        root: the folder; it must exist.

    Raises:
        ResultsError: if it does not.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise ResultsError(f"no results folder at {self.root}: make it, or name one (--results, MMEL_RESULTS)")
        # Caches, which a scratch store shares with the store it came from.
        self._shared = self.root

    @classmethod
    def find(cls, root: str | Path | None = None) -> "Store":
        """The folder named by `root`, else by MMEL_RESULTS, else ./results, else (in notebooks/) ../results.

        Raises:
            ResultsError: if it does not exist.
        """
        if named := root or os.environ.get("MMEL_RESULTS"):
            return cls(named)
        # A notebook's kernel starts in the notebook's folder; from any other, ../results may be another project's.
        beside = Path.cwd().name == "notebooks" and not Path("results").is_dir() and Path("../results").is_dir()
        return cls("../results" if beside else "results")

    def _path(self, folder: str, suffix: str, config: Run) -> Path:
        return self.root / folder / config.profile / config.dataset / f"{config.run_id}{suffix}"

    # The record of a run that ended, and of one under way, which also has a checkpoint to resume from.
    run_path = partialmethod(_path, "runs", ".jsonl")
    partial_path = partialmethod(_path, "runs", ".jsonl.partial")
    checkpoint_path = partialmethod(_path, "checkpoints", ".pt")
    # The trained network of a run that finished; a sweep over text keeps those of teachers alone.
    weights_path = partialmethod(_path, "weights", ".pt")
    # Predictions on test splits without public labels.
    predictions_path = partialmethod(_path, "predictions", ".json")
    # The executed notebook.
    notebook_path = partialmethod(_path, "executed", ".ipynb")
    _lock_path = partialmethod(_path, "checkpoints", ".lock")
    _scratch_path = partialmethod(_path, "checkpoints", ".scratch")

    def teacher_path(self, config: Run, digest: str) -> Path:
        """A teacher's outputs on the augmented texts that `digest` identifies."""
        return self._shared / "teacher" / config.profile / config.dataset / f"{digest}.pt"

    def augmentation_dir(self) -> Path:
        """The cache of augmented texts, by content."""
        return self._shared / "augmentation"

    def model_dir(self, name: str) -> Path:
        """A text encoder that the study makes itself."""
        return self._shared / "models" / name

    def report_dir(self, profile: str) -> Path:
        """The rendered report of a profile."""
        return self.root / "report" / profile

    def glue_scores_path(self, profile: str) -> Path:
        """The scores that GLUE's server gave the runs of a profile."""
        return self.root / "runs" / profile / "glue_scores.csv"

    @contextlib.contextmanager
    def scratch(self, config: Run) -> Iterator["Store"]:
        """A store with this one's caches, for a run that must leave no record here; to be used under the run's lock.

        It is removed at the end of the block. If an error ends the block, or the process dies, the next one resumes.
        """
        folder = self._scratch_path(config)
        folder.mkdir(parents=True, exist_ok=True)
        store = Store(folder)
        store._shared = self._shared
        yield store
        shutil.rmtree(folder)

    def read(self, config: Run) -> Record | None:
        """The record of a run that ended, or None."""
        path = self.run_path(config)
        return read_record(path) if path.exists() else None

    def records(self, profile: str) -> Iterator[Record]:
        """All records of a profile, by path."""
        for path in sorted((self.root / "runs" / profile).glob("*/*.jsonl")):
            yield read_record(path)

    @contextlib.contextmanager
    def lock(self, config: Run, wait: bool = False) -> Iterator[None]:
        """Hold a run for this process, so that two sweeps never train it at once; delete what a killed one left torn.

        Raises:
            LockedError: if another process holds it, unless `wait`.
        """
        path = self._lock_path(config)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise LockedError(f"run {config.run_id} is being trained by another process") from None
                print(f"{config.run_id}: another process trains it; waiting", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(f"{platform.node()}, process {os.getpid()}")
            file.flush()
            for written in (self.partial_path, self.checkpoint_path, self.weights_path, self.predictions_path):
                delete_torn(written(config))
            # The kernel drops the lock with the process, however it dies; the file stays.
            yield

    def holder(self, config: Run) -> str:
        """Machine and process that hold a run; empty if none does."""
        path = self._lock_path(config)
        if not path.exists():
            return ""
        with path.open(encoding="utf-8") as file:
            try:
                # The file still names the last holder when that is gone; only the lock tells.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read()
        return ""


class RunWriter:
    """Appends the lines of one run and renames the file once it is whole.

    Args:
        store: where it goes.
        config: the run.
        lines: the lines of an interrupted process that this one resumes.
        writes: whether this process is the one that writes; in others nothing happens.
    """

    def __init__(self, store: Store, config: Run, lines: Iterable[Line] = (), *, writes: bool = True):
        self._store, self._config, self._writes = store, config, writes
        self._partial = store.partial_path(config)
        if writes:
            write_atomically(self._partial, "".join(map(_dump, lines)))

    def append(self, line: Line) -> None:
        """Add a line; it is on disk when this returns."""
        if self._writes:
            with self._partial.open("ab") as file:
                write_through(file, _dump(line).encode(), self._partial)

    def finish(self, result: Line, predictions: dict[str, Any] | None = None) -> None:
        """Write the predictions, if any, add the last line, give the file its final name, delete the checkpoint."""
        if self._writes:
            if predictions:
                write_atomically(self._store.predictions_path(self._config), json.dumps(predictions))
            self.append({"kind": "result", **result})
            self._partial.replace(self._store.run_path(self._config))
            self._store.checkpoint_path(self._config).unlink(missing_ok=True)


def read_record(path: Path) -> Record:
    """Read one run and check what its readers rely on.

    Raises:
        ResultsError: if the file is not a whole record, or not that of the run that its name and folders say, naming
            the file and the line.
    """
    lines = []
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            lines.append(json.loads(text, parse_constant=_finite, parse_float=_finite))
        except (ValueError, RecursionError) as error:
            raise ResultsError(f"{path}:{number} is not JSON: {error}") from error
    kinds = [line.get("kind") if isinstance(line, dict) else line for line in lines]
    if len(kinds) < 2 or kinds[0] != "run" or kinds[-1] != "result" or any(kind != "epoch" for kind in kinds[1:-1]):
        raise ResultsError(f"{path} is not a record: want a run line, epoch lines and a result line, got {kinds}")
    record = Record(lines[0], lines[1:-1], lines[-1])
    _check(f"{path}:1", {"metric": record.metric} | record.header, _HEADER)
    try:
        config = record.config
    except ValueError as error:
        raise ResultsError(f"{path}:1: config: {error}") from error
    own = Path(config.profile, config.dataset, f"{config.run_id}.jsonl")
    if path.parts[-3:] != own.parts or record.header["run_id"] != config.run_id:
        raise ResultsError(
            f"{path} is another run's record: by its config {own}, by its run_id {record.header['run_id']}"
        )
    _check(f"{path}:1", record.header, _TEXT_HEADER if config.is_text else {})
    score = {record.metric: float}
    for number, line in enumerate(record.epochs, start=2):
        _check(f"{path}:{number}", line, _EPOCH | score)
    outcome = _FINISHED | score | {f"best_{record.metric}": float} if record.finished else _FAILED
    _check(f"{path}:{len(lines)}", record.result, outcome)
    if record.finished and not record.epochs:
        raise ResultsError(f"{path} is the record of a finished run and has no evaluation")
    return record


def marks(right: Iterable[int]) -> str:
    """`11-0`: for each example of a set, in order, whether it was classified right; -1, not looked at, is `-`."""
    return "".join("01-"[each] for each in right)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number of JSON")
    return value


def _check(where: str, line: Any, types: dict[str, Any]) -> None:
    """Refuse a line without some fields, or with other types in them or in a score."""
    if not isinstance(line, dict):
        raise ResultsError(f"{where} must hold fields, got {line!r}")
    scores = dict.fromkeys((name for name in line if name.endswith("_pct")), float)
    for name, wanted in (scores | types).items():
        if name not in line:
            raise ResultsError(f"{where} has no {name}")
        found = float if type(line[name]) is int else type(line[name])
        if isinstance(wanted, dict):
            _check(f"{where}: {name}", line[name], wanted)
        elif wanted not in (found, object):
            raise ResultsError(f"{where}: {name} must be of type {wanted.__name__}, got {line[name]!r}")


def _dump(line: Line) -> str:
    # NaN is not JSON; a run that diverged says so in words (`status`, `error`).
    return json.dumps(line, allow_nan=False) + "\n"
