"""The runs of a sweep: those of some tables that match a filter, and the runs that these need."""

from collections import defaultdict
from collections.abc import Iterable

from mmel.study.config import ImageRun, Run, TextRun
from mmel.study.fields import parse_field
from mmel.study.needs import needs
from mmel.study.tables import runs_of


def plan(
    tables: Iterable[str], profile: str, only: Iterable[str] = (), text_model: str | None = None
) -> dict[Run, str]:
    """The runs of some tables in the order of training, with the first table that has each; its notebook trains it.

    Args:
        tables: names of `mmel.study.tables.GRIDS`.
        profile: `mini`, `reduced` or `paper`.
        only: `field=value` entries, one of which a run must match for each field that is named; the runs that such a
            run needs come with it.
        text_model: name of the text encoder; None for the profile's.

    Raises:
        ValueError: on a table, profile, field or value that does not exist, or if no run matches.
    """
    grid = runs_of(tables, profile, text_model)
    chosen = found = _matching(grid, _parse(only))
    while found := {need for run in found for need in needs(run)} - chosen:
        chosen |= found
    return {run: table for run, table in grid.items() if run in chosen}


def _parse(only: Iterable[str]) -> dict[str, set]:
    """`["method=mmel_h", "seed=0", "seed=1"]` as fields and the values that each may have."""
    values = defaultdict(set)
    for entry in only:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ValueError(f"only must be given as field=value, got {entry!r}")
        values[name].add(parse_field(TextRun if name in TextRun.field_names() else ImageRun, name, text))
    return values


def _matching(grid: Iterable[Run], wanted: dict[str, set]) -> set[Run]:
    chosen = set(grid)
    for name, values in wanted.items():
        # A run without the field has none of the values.
        value_of = {run: getattr(run, name) for run in grid if name in run.field_names()}
        if unknown := values - set(value_of.values()):
            known, got = (", ".join(sorted(map(str, some))) for some in (set(value_of.values()), unknown))
            raise ValueError(f"only: {name} of these runs is one of {known}; got {got}")
        chosen &= {run for run, value in value_of.items() if value in values}
    if wanted and not chosen:
        raise ValueError(f"only: no run has these values of {', '.join(wanted)} together")
    return chosen
