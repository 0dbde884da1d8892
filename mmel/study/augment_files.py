"""Augmentation of a text column of a table in a file: what `mmel augment` does."""

import csv
import io
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mmel.augment.text import MaskedLMAugmenter
from mmel.study.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet")
# The column that is added: 0 for the original, then 1 to K - 1.
VARIANT = "variant"


def augment_file(
    source: str | Path,
    target: str | Path,
    column: str,
    augmenter: MaskedLMAugmenter,
    pair_column: str | None = None,
    batch_rows: int = 512,
) -> int:
    """Write a table with K rows for each of another one: the row itself, then its variants.

    The added column `variant` counts them; all other columns are repeated as they are. The target appears when it is
    whole. What a call that was killed has filled is not filled again if the augmenter has a cache.

    Args:
        source: a CSV, TSV or Parquet file, with a head; by its suffix. A TSV knows no quotes, as GLUE's.
        target: where to write, in the format of its suffix.
        column: with the text.
        augmenter: makes the variants.
        pair_column: with the second sentences, or None.
        batch_rows: rows that are augmented at once, and a step of the progress bar.

    Returns:
        How many rows were written, the head not counted.

    Raises:
        ValueError: if `batch_rows` is not positive, or as `check_files`.
        OSError: as `check_files`.
    """
    from tqdm.auto import tqdm

    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {batch_rows}")
    table = check_files(source, target, column, pair_column)
    source, target = Path(source), Path(target)
    columns = [column] if pair_column is None else [column, pair_column]
    sides = [table[name].tolist() for name in columns]
    texts = []
    with tqdm(total=len(table), unit="row", desc=source.name) as bar:
        for begin in range(0, len(table), batch_rows):
            rows = [side[begin : begin + batch_rows] for side in sides]
            texts += [text for variants in augmenter(*rows) for text in variants]
            bar.update(len(rows[0]))

    k = augmenter.num_augmented
    augmented = table.loc[table.index.repeat(k)]
    for name, values in zip(columns, [texts] if pair_column is None else zip(*texts, strict=True), strict=False):
        augmented[name] = list(values)
    augmented[VARIANT] = list(range(k)) * len(table)
    _write(augmented, target)
    return len(augmented)


def check_files(source: str | Path, target: str | Path, column: str, pair_column: str | None = None) -> "pd.DataFrame":
    """Refuse what `augment_file` could not read or write, before a model is loaded or a row is augmented.

    Args:
        source: as `augment_file`.
        target: as `augment_file`; the folder that it goes to is made.
        column: as `augment_file`.
        pair_column: as `augment_file`.

    Returns:
        The source's table.

    Raises:
        ValueError: on another suffix, a source that cannot be read or has rows of several lengths (the error names the
            line), a column that is not there, that is there twice or that holds something else than text (the error
            names the row), one column for both sentences, or a source that has a column `variant` already.
        OSError: if there is no source (FileNotFoundError), or the target cannot be written.
    """
    source, target = Path(source), Path(target)
    for name, path in (("source", source), ("target", target)):
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{name} must end in {', '.join(SUFFIXES)}, got {path}")
    if not source.is_file():
        raise FileNotFoundError(f"source {source} is not there, or is no file")
    if target.is_dir():
        raise IsADirectoryError(f"target {target} must be a file, got a folder")
    table = _read(source)
    if pair_column == column:
        raise ValueError(f"pair_column must be another column than column, got {column!r} for both")
    if twice := sorted(set(map(str, table.columns[table.columns.duplicated()]))):
        raise ValueError(f"{source} has more than one column named {', '.join(map(repr, twice))}")
    _check_column(table, column, source)
    if pair_column is not None:
        _check_column(table, pair_column, source)
    if VARIANT in table.columns:
        raise ValueError(f"{source} has a column {VARIANT!r} already: rename it, or name the file it was made from")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise type(error)(f"target {target} cannot be written: {error}") from error
    return table


def _read(path: Path) -> "pd.DataFrame":
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
        # A named index was a column to whoever wrote it; another one only numbered the rows.
        return table.reset_index(drop=table.index.names == [None])
    head, *rows = _rows(path)
    # Everything is text: an empty field stays empty, "NA" stays a word and "007" keeps its zeros.
    return pd.DataFrame(rows, columns=head, dtype=object)


def _rows(path: Path) -> list[list[str]]:
    """The head and the rows of a CSV or TSV file, as many fields in each; blank lines are no rows."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line} is not UTF-8: {error.reason}") from error
    # pandas fills rows that are too short and makes an index of what is too much; quotes it closes as it sees fit.
    quoting = {} if path.suffix.lower() == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    # By default a field of 128 KiB is an error.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, **quoting)
    rows: list[list[str]] = []
    begin = 1
    try:
        for row in reader:
            if rows and row and len(row) != len(rows[0]):
                raise ValueError(f"{path}:{begin} has {len(row)} fields, want {len(rows[0])}: {', '.join(rows[0])}")
            rows += [row] if row else []
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{begin} is a row that cannot be read: {error}") from error
    if not rows:
        raise ValueError(f"{path} has no head: want the names of the columns in its first line")
    return rows


def _write(table: "pd.DataFrame", path: Path) -> None:
    if path.suffix.lower() == ".parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        write_atomically(path, buffer.getvalue())
    elif path.suffix.lower() == ".csv":
        write_atomically(path, table.to_csv(index=False))
    else:
        # Without quotes a field can hold neither a tab nor the end of a line.
        words = table.map(lambda value: re.sub(r"[\t\r\n]+", " ", value) if isinstance(value, str) else value)
        write_atomically(path, words.to_csv(index=False, sep="\t", quoting=csv.QUOTE_NONE))


def _check_column(table: "pd.DataFrame", name: str, source: Path) -> None:
    if name not in table.columns:
        raise ValueError(f"{source} has no column {name!r}; there are {', '.join(map(str, table.columns))}")
    for row, text in enumerate(table[name].tolist()):
        if not isinstance(text, str):
            raise ValueError(f"column {name!r} of {source} must hold text, got {text!r} in row {row}")
