"""The study's tables, as notebooks ask for them: our cells beside the paper's, and the contrasts the claims rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mmel.records import Store
from mmel.report import image_tables, text_tables
from mmel.report.common import Table

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
_CLAIMS = ("table1", "table3", "table4")


def build(name: str, store: Store, profile: str) -> Table:
    """Build a table from what is recorded.

    Args:
        name: as in `grids.TABLES`; the levels of `figure2` are its curves in numbers, and it has no contrasts.
        store: where the records are.
        profile: whose runs.
    """
    return _BUILDERS[name].build(name, store, profile)


def training_time(store: Store, name: str, profile: str) -> pd.DataFrame:
    """A table's time column: the median over runs, and its ratio to the plain baseline on the same device.

    Returns:
        One row for each cell with a recorded run; beside it the time that the paper's Table 1 (K = 10) or 3 (all tasks
        together) prints for the method on one V100.
    """
    return _BUILDERS[name].training_time(store, name, profile)


def claim_tests(store: Store, profile: str, name: str = "table1") -> pd.DataFrame:
    """Each contrast of a table over all models or tasks at once: mean difference and one permutation test.

    Args:
        store: where the records are.
        profile: whose runs.
        name: `table1`, `table3` or `table4`.

    Returns:
        One row a claim; `-` where too few runs are recorded to test it, and which they are.

    Raises:
        ValueError: on another table, whose contrasts are not claims over several models or tasks.
    """
    if name not in _CLAIMS:
        raise ValueError(f"name must be one of {', '.join(_CLAIMS)}, got {name!r}")
    return _BUILDERS[name].claim_tests(store, name, profile)


def seeds(store: Store, name: str, profile: str) -> pd.DataFrame:
    """Every run that the table averages, by itself: what the figures draw."""
    return _BUILDERS[name].seeds(store, name, profile)


def show(frame: pd.DataFrame) -> HTML:
    """A table for a notebook: no index, the same bytes at every execution."""
    from IPython.display import HTML

    if frame.empty:
        return HTML("<p>Nothing recorded yet that this could be computed from.</p>")
    return HTML(frame.to_html(index=False, border=0, na_rep=""))
