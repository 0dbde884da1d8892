"""Augmentation of a text column of a table in a file: the work of `mmel augment`."""

import csv
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmel.augment.text import MaskedLMAugmenter
from mmel.study.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet")
# The column that is added.
VARIANT = "variant"


def augment_file(
    source: Path, target: Path, columns: Sequence[str], build: Callable[[], MaskedLMAugmenter], batch_rows: int = 512
) -> int:
    """Write a table with K rows for each of another one: the row itself, then its variants, numbered by `variant`.

    The target appears when it is whole.

    Args:
        source: a CSV, TSV or Parquet file, by its suffix, with a head. A TSV knows no quotes, as GLUE's.
        target: where to write, in the format of its suffix; its folder is made.
        columns: the column of the sentences or, for pairs, the two columns of their first and second sentences.
        build: makes the augmenter, after both files were checked.
        batch_rows: rows that are augmented at once, and a step of the progress bar.

    Returns:
        Number of rows written.

    Raises:
        ValueError: on another suffix, a source that cannot be read, naming the line, or a column that is missing, there
            twice, or holds something else than text, naming the row.
        OSError: if there is no source, or the target cannot be written.
    """
    from tqdm.auto import tqdm

    for name, path in (("source", source), ("target", target)):
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{name} must end in {', '.join(SUFFIXES)}, got {path}")
    table = _read(source)
    if len({*table.columns, VARIANT}) <= len(table.columns):
        raise ValueError(f"{source} must have each column once and none named {VARIANT!r}, got {[*table.columns]}")
    for name in columns:
        if name not in table.columns:
            raise ValueError(f"{source} has no column {name!r}; it has {', '.join(map(str, table.columns))}")
        for row, text in enumerate(table[name]):
            if not isinstance(text, str):
                raise ValueError(f"column {name!r} of {source} must hold text, got {text!r} in row {row}")
    if target.is_dir():
        raise IsADirectoryError(f"target {target} must be a file, got a folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=target.parent).close()

    augmenter, texts = build(), []
    with tqdm(total=len(table), unit="row", desc=source.name) as bar:
        for begin in range(0, len(table), batch_rows):
            sides = [table[name].iloc[begin : begin + batch_rows].tolist() for name in columns]
            texts += [text for variants in augmenter(*sides) for text in variants]
            bar.update(len(sides[0]))
    augmented = table.loc[table.index.repeat(augmenter.num_augmented)]
    for index, name in enumerate(columns):
        augmented[name] = texts if len(columns) == 1 else [pair[index] for pair in texts]
    augmented[VARIANT] = list(range(augmenter.num_augmented)) * len(table)
    _write(augmented, target)
    return len(augmented)


def _read(path: Path) -> "pd.DataFrame":
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
        # A named index was a column to whoever wrote it; another one only numbered the rows.
        return table.reset_index(drop=table.index.names == [None])
    # By the csv module: pandas would fill rows that are too short and close quotes as it sees fit.
    quoting = {} if path.suffix.lower() == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    # By default a field of 128 KiB is an error.
    csv.field_size_limit(2**31 - 1)
    rows: list[list[str]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, **quoting)
        try:
            for row in filter(None, reader):
                if rows and len(row) != len(rows[0]):
                    raise csv.Error(f"{len(row)} fields, want {len(rows[0])}: {', '.join(rows[0])}")
                rows.append(row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read up to line {reader.line_num}: {error}") from error
    head, *rows = rows or [[]]
    # Everything is text: an empty field stays empty, "NA" stays a word and "007" keeps its zeros.
    return pd.DataFrame(rows, columns=head, dtype=object)


def _write(table: "pd.DataFrame", path: Path) -> None:
    if path.suffix.lower() == ".parquet":
        content = table.to_parquet(index=False)
    elif path.suffix.lower() == ".csv":
        content = table.to_csv(index=False)
    else:
        # Without quotes a field can hold neither a tab nor the end of a line.
        words = table.map(lambda value: re.sub(r"[\t\r\n]+", " ", value) if isinstance(value, str) else value)
        content = words.to_csv(index=False, sep="\t", quoting=csv.QUOTE_NONE)
    write_atomically(path, content)
