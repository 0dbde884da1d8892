"""Where every file of a study lies, and how runs are written and read. Owns all paths below `results/`.

A run is one JSON-lines file: a header (`kind: run`: configuration, data set sizes, device, versions, commit), one
line for each evaluation (`kind: epoch`), and a last line (`kind: result`). While it trains, the file carries the
suffix `.partial`; it is renamed when the last line is in it, so a file without that suffix is whole.
"""

import contextlib
import dataclasses
import glob
import json
import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmel.study.config import Run, run_type

Line = dict[str, Any]

# The fields of a header that those who read a record rely on, with the types that they may have in JSON.
_TEXT, _NUMBER = (str,), (int, float)
_HEADER = {
    **dict.fromkeys(("run_id", "metric", "started"), _TEXT),
    **dict.fromkeys(("config", "device", "sizes"), (dict,)),
    "num_parameters": _NUMBER,
    "commit": (str, type(None)),
    "dirty": (bool, type(None)),
}


class ResultsError(Exception):
    """A results folder or a record that is missing or cannot be read."""


class LockedError(ResultsError):
    """A run that another process trains."""


@dataclass(frozen=True)
class Record:
    """One run as it was written.

    Attributes:
        header: configuration and provenance.
        epochs: one line an evaluation, in order.
        result: the last line; `status` is `finished` or `failed`.
    """

    header: Line
    epochs: list[Line] = field(default_factory=list)
    result: Line = field(default_factory=dict)

    @property
    def config(self) -> Run:
        """The run's configuration.

        Retired fields are left out: at their one value a name does not depend on them, and `read_record` compares the
        names.
        """
        kind = run_type(self.header["config"].get("dataset"))
        names = {field.name for field in dataclasses.fields(kind)}
        values = {name: value for name, value in self.header["config"].items() if name in names}
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
            raise ResultsError(
                f"no results folder at {self.root}: make one, or name one with --results or MMEL_RESULTS"
            )
        # Caches, which a scratch store shares with the store it came from.
        self._shared = self.root

    @classmethod
    def find(cls, root: str | Path | None = None) -> "Store":
        """The folder named by `root`, else by MMEL_RESULTS, else ./results, else (in notebooks/) ../results.

        Raises:
            ResultsError: if it does not exist.
        """
        named = root or os.environ.get("MMEL_RESULTS")
        if named:
            return cls(named)
        # A notebook's kernel starts in the notebook's folder; from any other, ../results may be another project's.
        beside = Path.cwd().name == "notebooks" and not Path("results").is_dir() and Path("../results").is_dir()
        return cls("../results" if beside else "results")

    def run_path(self, config: Run) -> Path:
        """The record of a run that ended."""
        return self.root / "runs" / config.profile / config.dataset / f"{config.run_id}.jsonl"

    def partial_path(self, config: Run) -> Path:
        """The record of a run under way."""
        return self.run_path(config).with_suffix(".jsonl.partial")

    def checkpoint_path(self, config: Run) -> Path:
        """State to resume from while a run is under way."""
        return self._working("checkpoints", config, ".pt")

    def weights_path(self, config: Run) -> Path:
        """The trained network of a run that finished; a sweep over text keeps that of teachers alone."""
        return self._working("weights", config, ".pt")

    def notebook_path(self, config: Run) -> Path:
        """The executed notebook of a run."""
        return self._working("executed", config, ".ipynb")

    def predictions_path(self, config: Run) -> Path:
        """The predictions of a finished run on test splits without public labels."""
        return self._working("predictions", config, ".json")

    def teacher_path(self, config: Run, digest: str) -> Path:
        """A teacher's outputs on the augmented texts that `digest` identifies."""
        return self._shared / "teacher" / config.profile / config.dataset / f"{digest}.pt"

    def augmentation_dir(self) -> Path:
        """The cache of augmented texts, by content."""
        return self._shared / "augmentation"

    def model_dir(self, name: str) -> Path:
        """A text encoder that the study makes itself."""
        return self._shared / "models" / name

    @contextlib.contextmanager
    def scratch(self, config: Run) -> Iterator["Store"]:
        """A store for a run that must leave no record here, with this one's caches; to be held under the run's claim.

        It is removed when the block ends. Where an error ends it, or the process dies, it stays, and the next one goes
        on with what is in it.
        """
        folder = self._working("checkpoints", config, ".scratch")
        folder.mkdir(parents=True, exist_ok=True)
        store = Store(folder)
        store._shared = self._shared
        yield store
        shutil.rmtree(folder)

    def report_dir(self, profile: str) -> Path:
        """The rendered report of a profile."""
        return self.root / "report" / profile

    def _working(self, folder: str, config: Run, suffix: str) -> Path:
        return self.root / folder / config.profile / config.dataset / f"{config.run_id}{suffix}"

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
        """Hold a run for this process, so that two sweeps never train it at once.

        What a killed process had half written of the run is deleted.

        Args:
            config: the run.
            wait: where another process holds it, wait until it is done.

        Raises:
            LockedError: if another process holds it, and `wait` is false.
        """
        with _locked(self._lock_path(config), config.run_id, wait):
            for path in (self.partial_path, self.checkpoint_path, self.weights_path, self.predictions_path):
                delete_torn(path(config))
            yield

    def holder(self, config: Run) -> str:
        """Machine and process that hold a run; empty where none does."""
        import fcntl

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

    def _lock_path(self, config: Run) -> Path:
        return self._working("checkpoints", config, ".lock")


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
        if not self._writes:
            return
        with _named(self._partial), self._partial.open("a", encoding="utf-8") as file:
            file.write(_dump(line))
            file.flush()
            os.fsync(file.fileno())

    def finish(self, result: Line, predictions: dict[str, Any] | None = None) -> None:
        """Write the predictions, if any, add the last line, give the file its final name, delete the checkpoint."""
        if not self._writes:
            return
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
            lines.append(json.loads(text, parse_constant=_refuse_constant))
        except (ValueError, RecursionError) as error:
            raise ResultsError(f"{path}:{number} is not JSON: {error}") from error
    kinds = [line.get("kind") if isinstance(line, dict) else line for line in lines]
    if len(kinds) < 2 or kinds[0] != "run" or kinds[-1] != "result" or any(kind != "epoch" for kind in kinds[1:-1]):
        raise ResultsError(f"{path} is not a record: want a run line, epoch lines and a result line, got {kinds}")
    record = Record(lines[0], lines[1:-1], lines[-1])
    _check_fields(record, path)
    try:
        config = record.config
    except ValueError as error:
        raise ResultsError(f"{path}:1: config: {error}") from error
    if config.is_text:
        _check(f"{path}:1", record.header, dict.fromkeys(("hidden_dropout", "attention_dropout"), _NUMBER))
    own = Path(config.profile, config.dataset, f"{config.run_id}.jsonl")
    if path.parts[-3:] != own.parts or record.header["run_id"] != config.run_id:
        raise ResultsError(
            f"{path} is the record of another run: by its config {own}, by its run_id {record.header['run_id']}"
        )
    return record


def _refuse_constant(token: str) -> None:
    raise ValueError(f"{token} is no number of JSON")


def _check_fields(record: Record, path: Path) -> None:
    header, metric, last = record.header, record.metric, len(record.epochs) + 2
    _check(f"{path}:1", {"metric": metric, **header}, _HEADER)
    _check(f"{path}:1: device", header["device"], {"name": _TEXT})
    _check(f"{path}:1: sizes", header["sizes"], dict.fromkeys(("train", "train_available", "eval"), _NUMBER))
    for number, line in enumerate(record.epochs, start=2):
        _check(f"{path}:{number}", line, dict.fromkeys(("epoch", metric, "eval_seconds"), _NUMBER))
    _check(f"{path}:{last}", record.result, {"status": _TEXT})
    if not record.finished:
        _check(f"{path}:{last}", record.result, {"error": _TEXT})
        return
    if not record.epochs:
        raise ResultsError(f"{path} is the record of a finished run and has no evaluation")
    measured = dict.fromkeys((metric, f"best_{metric}", "train_seconds", "wall_seconds"), _NUMBER)
    _check(f"{path}:{last}", record.result, measured)


def _check(where: str, line: Line, needed: dict[str, tuple[type, ...]]) -> None:
    """Refuse a line that lacks a field or has another type in it; all scores are finite numbers, needed or not."""
    scores = dict.fromkeys((name for name in line if name.endswith("_pct")), _NUMBER)
    for name, kinds in (scores | needed).items():
        if name not in line:
            raise ResultsError(f"{where} has no {name}")
        # As JSON has them: a bool is no number.
        if type(line[name]) not in kinds or line[name] in (math.inf, -math.inf):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise ResultsError(f"{where}: {name} must be {wanted}, and finite, got {line[name]!r}")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with _named(path), os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes a file only its owner reads; give it the mode that open() would have.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give an error the path of the file that was being written: a full disk names none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def delete_torn(path: Path) -> None:
    """Delete what killed processes left of their writing to `path`; nobody may be writing there."""
    for torn in path.parent.glob(f".{glob.escape(path.name)}.*"):
        torn.unlink()


def _dump(line: Line) -> str:
    # NaN is not JSON; a run that diverged says so in words (`status`, `error`).
    return json.dumps(line, allow_nan=False) + "\n"


@contextlib.contextmanager
def _locked(path: Path, name: str, wait: bool) -> Iterator[None]:
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise LockedError(f"run {name} is being trained by another process") from None
            print(f"{name}: another process trains it; waiting", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{platform.node()}, process {os.getpid()}")
        file.flush()
        # The kernel drops the lock with the process, however it dies; the file may stay.
        yield
