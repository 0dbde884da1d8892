"""GLUE's eight tasks as lists of sentences: from a folder of TSV files or from the hub, and the embedded miniatures.

No torch here. Hub and TSV files give the same columns in the same order with the same integer classes; the text is
kept as it stands in the file.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmel.data import DataError, find_root
from mmel.data.glue_tasks import FILES, OFFICIAL_SIZES, SPLITS, SPLITS_MNLI, TASKS, GlueTask

HUB_NAME = "nyu-mll/glue"
# The parquet version of the data; loading scripts are refused by `datasets` from 4.0 on.
HUB_REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
GRAMMAR = "grammar_"


@dataclass(frozen=True)
class Examples:
    """A split of a task.

    Attributes:
        sentences: N sentences, or the first ones of N pairs.
        pairs: the second sentences, or None.
        targets: N classes (int) or scores (float); None where labels are not public, as in GLUE's test splits.
    """

    sentences: list[str]
    pairs: list[str] | None
    targets: list[int] | list[float] | None

    def __post_init__(self):
        for name in ("pairs", "targets"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.sentences):
                raise ValueError(f"{name} must have one entry a sentence ({len(self.sentences)}), got {len(values)}")

    def __len__(self) -> int:
        return len(self.sentences)

    def take(self, places: Sequence[int]) -> "Examples":
        """The examples at some places, in that order."""
        parts = (self.sentences, self.pairs, self.targets)
        return Examples(*(None if part is None else [part[place] for place in places] for part in parts))


@dataclass(frozen=True)
class TextData:
    """A task and its examples.

    Attributes:
        task: what it asks.
        splits: `train`, `dev` and, where there is one, `test`; for MNLI also `dev_mm` and `test_mm` (mismatched).
    """

    task: GlueTask
    splits: dict[str, Examples]

    @property
    def sampled(self) -> tuple[str, ...]:
        """Splits that are not the official ones: their size differs. Results on them are not results on the task."""
        official = OFFICIAL_SIZES.get(self.task.name, {})
        return tuple(name for name, part in self.splits.items() if len(part) != official.get(name, len(part)))

    @property
    def is_sample(self) -> bool:
        """Whether any split is only a sample of the official one."""
        return bool(self.sampled)


def load_text(dataset: str, data_root: str | Path | None = None) -> TextData:
    """Load a task.

    A GLUE task comes from `glue/<Folder>/train.tsv` ... or `<Folder>/train.tsv` ... below the data root (`data_root`,
    else MMEL_DATA, else ./data), where that folder is there; else from the hub, at a pinned revision. `train` and
    `dev` must be there; a folder may lack the others. Test labels are never read, since only the server scores them.

    Args:
        dataset: a name in TASKS, or `grammar_` and that name for its embedded miniature.
        data_root: the folder that holds `glue/CoLA` or `CoLA`.

    Raises:
        ValueError: on another name.
        DataError: if the data is missing and the hub does not give it, or a file is damaged.
    """
    name = dataset.removeprefix(GRAMMAR)
    if name not in TASKS:
        raise ValueError(f"dataset must be one of {', '.join(TASKS)}, or {GRAMMAR} and one of them, got {dataset!r}")
    if dataset.startswith(GRAMMAR):
        from mmel.data.grammar import grammar

        return TextData(
            replace(TASKS[name], name=dataset), {split: Examples(*parts) for split, parts in grammar(dataset).items()}
        )
    root = find_root(data_root)
    for folder in (root / "glue" / FILES[name].folder, root / FILES[name].folder):
        if folder.is_dir():
            return TextData(TASKS[name], _from_folder(name, folder))
    return TextData(TASKS[name], _from_hub(name, root))


def subset(examples: Examples, size: int) -> Examples:
    """A fixed part of some examples: the same in every run, each class in its proportion, in the order they had.

    Of scores, and of examples without targets, it is a plain random part. A smaller part of them lies in a larger
    one, up to a place or so that rounding moves from class to class.

    Args:
        examples: what to choose from.
        size: how many; 0 for all.

    Raises:
        ValueError: if there are too few, or `size` is negative.
    """
    if not 0 <= size <= len(examples):
        raise ValueError(f"size must be from 0 (all) to the {len(examples)} examples there are, got {size}")
    if size == 0:
        return examples
    classes: dict[int, list[int]] = {}
    for place in range(len(examples)):
        target = examples.targets[place] if examples.targets else 0
        classes.setdefault(0 if isinstance(target, float) else target, []).append(place)
    # What rounding down leaves goes to the classes that lost most, the lowest first among equals.
    shares = {label: size * len(places) / len(examples) for label, places in sorted(classes.items())}
    left = size - sum(map(int, shares.values()))
    favoured = sorted(shares, key=lambda label: int(shares[label]) - shares[label])[:left]
    chosen = []
    for label, places in classes.items():
        chosen += sorted(places, key=_shuffled)[: int(shares[label]) + (label in favoured)]
    return examples.take(sorted(chosen))


def _shuffled(place: int) -> bytes:
    # Random generators may change with a library's version; a digest does not.
    return hashlib.sha256(str(place).encode()).digest()


def _splits(name: str) -> dict[str, tuple[str, str]]:
    return SPLITS_MNLI if name == "mnli" else SPLITS


def _from_folder(name: str, folder: Path) -> dict[str, Examples]:
    paths = {split: folder / file for split, (file, _) in _splits(name).items()}
    for split in ("train", "dev"):
        if not paths[split].is_file():
            raise DataError(f"{name}: {paths[split]} is missing; {_expected(name, folder.parent)}")
    return {split: _read(name, path, split) for split, path in paths.items() if path.is_file()}


def _read(name: str, path: Path, split: str) -> Examples:
    files, has_labels = FILES[name], not split.startswith("test")
    wanted = (*files.columns, files.label) if has_labels else files.columns
    rows = _rows(path, files.header if has_labels else (), wanted, files.skips_broken and has_labels)
    columns: list[list[str]] = [[] for _ in files.columns]
    targets = []
    for number, row in rows:
        for column, text in zip(columns, row, strict=False):
            column.append(text)
        if has_labels:
            targets.append(_target(files.words, row[-1], f"{path}:{number}"))
    if not columns[0]:
        raise DataError(f"{path} holds no examples")
    return Examples(columns[0], columns[1] if len(columns) == 2 else None, targets if has_labels else None)


def _rows(
    path: Path, header: tuple[str, ...], wanted: tuple[str, ...], skips_broken: bool
) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and wanted fields of a TSV file without quoting; blank lines are no rows."""
    try:
        # Only a line feed ends a row: str.splitlines would also break at characters that occur inside sentences.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}") from error
    numbered = ((number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1))
    rows = ((number, line.split("\t")) for number, line in numbered if line)
    if not header:
        _, header = next(rows, (0, ()))
        if not set(wanted) <= set(header):
            raise DataError(f"{path}: want the columns {', '.join(wanted)}, got {', '.join(header) or 'none'}")
    places = [header.index(column) for column in wanted]
    for number, row in rows:
        if skips_broken and (len(row) < len(header) or not row[places[-1]]):
            continue
        if len(row) != len(header):
            raise DataError(f"{path}:{number} has {len(row)} columns, want {len(header)}: {', '.join(header)}")
        yield number, [row[place] for place in places]


def _target(words: tuple[str, ...], text: str, where: str) -> int | float:
    if words:
        if text not in words:
            raise DataError(f"{where}: label must be one of {', '.join(words)}, got {text!r}")
        return words.index(text)
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 5:
        raise DataError(f"{where}: score must be a number from 0 to 5, got {text!r}")
    return score


def _from_hub(name: str, root: Path) -> dict[str, Examples]:
    task = TASKS[name]
    try:
        import datasets

        data = datasets.load_dataset(HUB_NAME, name, revision=HUB_REVISION)
    # Without a network the hub's client fails in many ways, not all of them OSError.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{name}: not found below {root}, and {HUB_NAME} cannot be loaded from the hub ({reason}); "
            f"{_expected(name, root)}"
        ) from error
    splits = {}
    for split, (_, hub_split) in _splits(name).items():
        part = data[hub_split]
        names = getattr(part.features["label"], "names", ())
        if tuple(names) != task.labels:
            raise DataError(f"{name}: want the classes {task.labels} of {HUB_NAME}, got {tuple(names)}")
        columns = [list(part[column]) for column in task.columns]
        # Scores are float32 there, and have three decimals at most.
        targets = [round(label, 3) if task.is_regression else label for label in part["label"]]
        splits[split] = Examples(
            columns[0], columns[1] if task.is_pair else None, None if split.startswith("test") else targets
        )
    return splits


def _expected(name: str, root: Path) -> str:
    train, dev = (_splits(name)[split][0] for split in ("train", "dev"))
    return (
        f"want {FILES[name].folder}/{train} and {dev} in GLUE's TSV layout in {root}: point --data-root or MMEL_DATA "
        f"at a folder that has them, there or in its folder glue, or load {HUB_NAME} from the hub once, which keeps it "
        "(docs/data.md)"
    )
