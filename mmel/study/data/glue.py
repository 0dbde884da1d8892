"""GLUE's eight tasks as lists of sentences, from a folder of TSV files or from the hub, which give the same examples.

No torch here. The text is kept as it stands in the file.
"""

import hashlib
from collections.abc import Sequence
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
        targets: N classes (int) or scores (float); None if labels are not public, as in GLUE's test splits.
    """

    sentences: list[str]
    pairs: list[str] | None
    targets: list[int] | list[float] | None

    def __len__(self) -> int:
        return len(self.sentences)

    def take(self, index: Sequence[int]) -> "Examples":
        """The examples at some indices, in that order."""
        parts = (self.sentences, self.pairs, self.targets)
        return Examples(*(None if part is None else [part[i] for i in index] for part in parts))


def load(data: TextDataset, data_root: str | Path | None = None) -> dict[str, Examples]:
    """Load the splits of a GLUE task: `train`, `dev` and `test`, for MNLI also the mismatched `dev_mm` and `test_mm`.

    It comes from `glue/<Folder>/train.tsv` ... or `<Folder>/train.tsv` ... below the data root, if that folder is
    there; else from the hub, at a pinned revision. A folder may lack all splits but `train` and `dev`. Test labels are
    never read, since only the server scores them.

    Raises:
        DataError: if the data is missing and the hub does not give it, or a file is damaged.
    """
    root = find_root(data_root)
    for folder in (root / "glue" / data.label, root / data.label):
        if folder.is_dir():
            paths = {split: folder / f"{_official(data, split)}.tsv" for split in data.sizes}
            there = [split for split, path in paths.items() if split in ("train", "dev") or path.exists()]
            return {split: _read(data, paths[split], split) for split in there}
    return _from_hub(data, root)


def subset(examples: Examples, size: int) -> Examples:
    """A fixed part of some examples: the same in every run, each class in its proportion, in the order they had.

    Of scores, and of examples without targets, it is a plain random part. A smaller part lies in a larger one, but for
    an example or so that rounding moves from class to class. A `size` of 0 means all.

    Raises:
        ValueError: if there are too few examples.
    """
    if size > len(examples):
        raise ValueError(f"size must be from 0 (all) to the {len(examples)} examples there are, got {size}")
    if size == 0:
        return examples
    classes: dict[int, list[int]] = {}
    for index in range(len(examples)):
        target = examples.targets[index] if examples.targets else 0
        classes.setdefault(0 if isinstance(target, float) else target, []).append(index)
    # What rounding down leaves goes to the classes that lost most, the lowest first among equals.
    shares = {label: size * len(indices) / len(examples) for label, indices in sorted(classes.items())}
    left = size - sum(map(int, shares.values()))
    favoured = sorted(shares, key=lambda label: int(shares[label]) - shares[label])[:left]
    chosen = []
    for label, indices in classes.items():
        chosen += sorted(indices, key=_digest)[: int(shares[label]) + (label in favoured)]
    return examples.take(sorted(chosen))


def _digest(index: int) -> bytes:
    # Random generators may change with a library's version; a digest does not.
    return hashlib.sha256(str(index).encode()).digest()


def _official(data: TextDataset, split: str) -> str:
    """GLUE's name of a split: MNLI's `dev` is `dev_matched`, since it has `dev_mismatched` too."""
    part, _, mismatched = split.partition("_")
    if part == "train" or "dev_mm" not in data.sizes:
        return part
    return f"{part}_mismatched" if mismatched else f"{part}_matched"


def _read(data: TextDataset, path: Path, split: str) -> Examples:
    try:
        # Only a line feed ends a row: str.splitlines would also break at characters that occur inside sentences.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{data.name}: {path} cannot be read ({error}); see docs/data.md") from error
    numbered = ((number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1))
    # There is no quoting, and blank lines are no rows.
    rows = ((number, line.split("\t")) for number, line in numbered if line)
    has_labels = not split.startswith("test")
    header = data.header if has_labels and data.header else next(rows, (0, ()))[1]
    wanted = (*data.columns, data.label_column) if has_labels else data.columns
    if not set(wanted) <= set(header):
        raise DataError(f"{path}: want the columns {', '.join(wanted)}, got {', '.join(header) or 'none'}")
    places = [header.index(column) for column in wanted]
    columns: list[list] = [[] for _ in wanted]
    for number, row in rows:
        # QQP has a few rows that are short or lack their label. The hub leaves out such rows of every task.
        if has_labels and (len(row) < len(header) or not row[places[-1]]):
            continue
        if len(row) != len(header):
            raise DataError(f"{path}:{number} has {len(row)} columns, want {len(header)}: {', '.join(header)}")
        for column, place in zip(columns, places, strict=True):
            column.append(row[place])
        if has_labels:
            columns[-1][-1] = _target(data, row[places[-1]], f"{path}:{number}")
    if not columns[0]:
        raise DataError(f"{path} holds no examples")
    return Examples(columns[0], columns[1] if data.is_pair else None, columns[-1] if has_labels else None)


def _target(data: TextDataset, text: str, where: str) -> int | float:
    try:
        target = data.labels.index(text) if data.labels else float(text)
    except ValueError:
        target = -1
    if not 0 <= target <= 5:
        raise DataError(
            f"{where}: {data.label_column} must be {' or '.join(data.labels) or 'from 0 to 5'}, got {text!r}"
        )
    return target


def _from_hub(data: TextDataset, root: Path) -> dict[str, Examples]:
    try:
        import datasets

        found = datasets.load_dataset(HUB_NAME, data.name, revision=HUB_REVISION)
    # Without a network the hub's client fails in many ways, not all of them OSError.
    except Exception as error:
        raise DataError(
            f"{data.name}: not found below {root}, and {HUB_NAME} cannot be loaded from the hub ({error}): point "
            f"--data-root or MMEL_DATA at a folder with {data.label}/train.tsv and so on, or load {HUB_NAME} once, "
            "which the hub's client keeps (docs/data.md)"
        ) from error
    splits = {}
    for split in data.sizes:
        part = found[_official(data, split).replace("dev", "validation")]
        # Beside the sentences, in their order, there are the label and a number.
        columns = [list(part[name]) for name in part.column_names if name not in ("label", "idx")]
        # Scores are float32 there, and have three decimals at most.
        targets = [round(label, 3) if data.is_regression else label for label in part["label"]]
        pairs = columns[1] if data.is_pair else None
        splits[split] = Examples(columns[0], pairs, None if split.startswith("test") else targets)
    return splits
