"""GLUE's eight tasks as lists of sentences, from a folder of TSV files or from the hub.

No torch here. Hub and TSV files give the same columns in the same order with the same integer classes; the text is
kept as it stands in the file.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmel.study.data import DataError, find_root
from mmel.study.datasets import TextDataset

HUB_NAME = "nyu-mll/glue"
# The parquet version of the data; loading scripts are refused by `datasets` from 4.0 on.
HUB_REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"


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


def load(data: TextDataset, data_root: str | Path | None = None) -> dict[str, Examples]:
    """Load a GLUE task.

    It comes from `glue/<Folder>/train.tsv` ... or `<Folder>/train.tsv` ... below the data root, if that folder is
    there; else from the hub, at a pinned revision. `train` and `dev` must be there; a folder may lack the others. Test
    labels are never read, since only the server scores them.

    Args:
        data: the task.
        data_root: the folder that holds `glue/CoLA` or `CoLA`; None for MMEL_DATA, else ./data.

    Returns:
        `train`, `dev`, maybe `test`; for MNLI also `dev_mm` and `test_mm` (mismatched).

    Raises:
        DataError: if the data is missing and the hub does not give it, or a file is damaged.
    """
    root = find_root(data_root)
    for folder in (root / "glue" / data.folder, root / data.folder):
        if folder.is_dir():
            return _from_folder(data, folder)
    return _from_hub(data, root)


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


def _from_folder(data: TextDataset, folder: Path) -> dict[str, Examples]:
    paths = {split: folder / file for split, (file, _) in data.files.items()}
    for split in ("train", "dev"):
        if not paths[split].is_file():
            raise DataError(f"{data.name}: {paths[split]} is missing; {_expected(data, folder.parent)}")
    return {split: _read(data, path, split) for split, path in paths.items() if path.is_file()}


def _read(data: TextDataset, path: Path, split: str) -> Examples:
    has_labels = not split.startswith("test")
    wanted = (*data.file_columns, data.file_label) if has_labels else data.file_columns
    rows = _rows(path, data.file_header if has_labels else (), wanted, data.skips_broken and has_labels)
    columns: list[list[str]] = [[] for _ in data.file_columns]
    targets = []
    for number, row in rows:
        for column, text in zip(columns, row, strict=False):
            column.append(text)
        if has_labels:
            targets.append(_target(data.file_words, row[-1], f"{path}:{number}"))
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


def _from_hub(data: TextDataset, root: Path) -> dict[str, Examples]:
    try:
        import datasets

        found = datasets.load_dataset(HUB_NAME, data.name, revision=HUB_REVISION)
    # Without a network the hub's client fails in many ways, not all of them OSError.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{data.name}: not found below {root}, and {HUB_NAME} cannot be loaded from the hub ({reason}); "
            f"{_expected(data, root)}"
        ) from error
    splits = {}
    for split, (_, hub_split) in data.files.items():
        part = found[hub_split]
        names = getattr(part.features["label"], "names", ())
        if tuple(names) != data.labels:
            raise DataError(f"{data.name}: want the classes {data.labels} of {HUB_NAME}, got {tuple(names)}")
        columns = [list(part[column]) for column in data.columns]
        # Scores are float32 there, and have three decimals at most.
        targets = [round(label, 3) if data.is_regression else label for label in part["label"]]
        splits[split] = Examples(
            columns[0], columns[1] if data.is_pair else None, None if split.startswith("test") else targets
        )
    return splits


def _expected(data: TextDataset, root: Path) -> str:
    train, dev = (data.files[split][0] for split in ("train", "dev"))
    return (
        f"want {data.folder}/{train} and {dev} in GLUE's TSV layout in {root}: point --data-root or MMEL_DATA "
        f"at a folder that has them, there or in its folder glue, or load {HUB_NAME} from the hub once, which keeps it "
        "(docs/data.md)"
    )
