"""The study's tables, as notebooks ask for them: our cells beside the paper's, and the contrasts the claims rest on."""

from __future__ import annotations

import dataclasses
import re
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from mmel.grids import float32_checks, reported
from mmel.records import Store
from mmel.report import image_tables, text_claims, text_tables
from mmel.report.common import Table
from mmel.report.runs import load_runs

if TYPE_CHECKING:
    from IPython.display import HTML

_BUILDERS = {
    "table1": image_tables,
    "table2": image_tables,
    "table3": text_tables,
    "table4": text_tables,
    "table5": image_tables,
    "table6": text_tables,
    "figure2": text_tables,
}
_CLAIM_TESTS = {
    "table1": image_tables.claim_tests,
    "table2": image_tables.claim_tests,
    "table3": text_claims.claim_tests,
    "table4": text_claims.claim_tests,
}


def build(name: str, store: Store, profile: str, select: str = "last", include_split: bool = False) -> Table:
    """Build a table from what is recorded.

    Args:
        name: as in `grids.TABLES`; the levels of `figure2` are its curves in numbers, and it has no contrasts.
        store: where the records are.
        profile: whose runs.
        select: the evaluation of a run that counts, `last` or `best`, as `runs.load_runs` has it. The curves of
            `figure2` show all of them.
        include_split: whether runs whose batches were split for memory count.

    Raises:
        ValueError: on another `select`.
    """
    runs = load_runs(store, reported(name, profile), select, include_split)
    table = _BUILDERS[name].build(name, runs, profile)
    if checks := float32_checks(name, profile):
        found = load_runs(store, checks, select, include_split)
        table = dataclasses.replace(table, notes=[*table.notes, image_tables.float32_note(runs, found)])
    return table


def training_time(store: Store, name: str, profile: str, include_split: bool = False) -> pd.DataFrame:
    """A table's time column: the median over runs on each device by itself, and its ratio to the plain baseline there.

    Returns:
        One row for each cell and device with a recorded run; beside it the time that the paper's Table 1 (K = 10) or 3
        (all tasks together) prints for the method on one V100.
    """
    runs = load_runs(store, reported(name, profile), include_split=include_split)
    return _BUILDERS[name].training_time(name, runs)


def claim_tests(
    store: Store, profile: str, name: str = "table1", select: str = "last", include_split: bool = False
) -> pd.DataFrame:
    """Each contrast of a table over all models or tasks at once: mean difference and one permutation test.

    Args:
        store: where the records are.
        profile: whose runs.
        name: `table1`, `table2`, `table3` or `table4`.
        select: as in `build`.
        include_split: as in `build`.

    Returns:
        One row a claim; `-` where too few runs are recorded to test it, and which they are.

    Raises:
        ValueError: on another table, whose contrasts are not claims over several models or tasks.
    """
    if name not in _CLAIM_TESTS:
        raise ValueError(f"name must be one of {', '.join(_CLAIM_TESTS)}, got {name!r}")
    return _CLAIM_TESTS[name](name, load_runs(store, reported(name, profile), select, include_split))


def seeds(store: Store, name: str, profile: str, select: str = "last", include_split: bool = False) -> pd.DataFrame:
    """Every run that the table averages, by itself: what the figures draw."""
    return _BUILDERS[name].seeds(name, load_runs(store, reported(name, profile), select, include_split))


def show(frame: pd.DataFrame, best: pd.DataFrame | None = None) -> HTML:
    """A table for a notebook: no index, the same bytes at every execution.

    Args:
        frame: the table; its text is escaped, its fractions are shown with two decimals at most.
        best: of the same shape, whether a cell is set in bold; by default none is.
    """
    from IPython.display import HTML

    if frame.empty:
        return HTML("<p>Nothing recorded yet that this could be computed from.</p>")
    cells = frame.apply(_texts)
    if best is not None:
        cells = emphasized(cells, best, "<b>{}</b>")
    return HTML(cells.rename(columns=escape).to_html(index=False, border=0, escape=False))


def emphasized(cells: pd.DataFrame, best: pd.DataFrame, form: str) -> pd.DataFrame:
    """A table of texts whose best cells are put into a form, `**{}**` say."""
    return cells.mask(best.to_numpy(), cells.map(form.format))


# A space within a number and what belongs to it. `92.53 ± 0.10 (5)` may break before the sign alone.
_WITHIN_NUMBERS = re.compile(r"(?<=\d) (?=[(\[])|(?<=±) (?=\d)|(?<=\d,) (?=[+−])")


def _texts(column: pd.Series) -> list[str]:
    """A column as HTML: one number of decimals, minus signs as wide as plus signs, no line break within a number."""
    if pd.api.types.is_float_dtype(column):
        short = column.dropna().round(1).eq(column.dropna()).all()
        return ["" if pd.isna(value) else f"{value:g}" if short else f"{value:.2f}" for value in column]
    texts = [re.sub(r"(?<![^\s\[])-(?=\d)", "−", escape(str(value))) for value in column]
    return [_WITHIN_NUMBERS.sub("\N{NO-BREAK SPACE}", text) for text in texts]
