"""Executes the plotting notebooks and joins them into one page; writes the tables as CSV, Markdown and LaTeX."""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from mmel import __version__
from mmel.records import Store, write_atomically
from mmel.report import tables
from mmel.report.hyperparameters import table7
from mmel.sweep.notebook import NOTEBOOKS, warm_kernel

_LATEX = str.maketrans({char: f"\\{char}" for char in "{}_%&#"} | {"|": "$|$", "±": r"$\pm$", "−": "$-$", "<": "$<$"})


def render(names: list[str], profile: str, store: Store) -> Path:
    """Render the report of a profile.

    Args:
        names: tables and figures to show, as in `grids.TABLES`.
        profile: whose records.
        store: where the records are and the report goes.

    Returns:
        The page, `results/report/<profile>/index.html`; beside it lie `<table>.csv`, `.md` and `.tex` with the scores,
        and `<table>_contrasts.*` with the claims; of Figure 2 its curves in numbers, and Table 7 beside Table 3.

    Raises:
        NotebookError: if a cell of a plotting notebook fails.
    """
    folder = store.report_dir(profile)
    sections = []
    with warm_kernel(store) as kernel:
        for name in names:
            executed = store.root / "executed" / profile / f"plot_{name}.ipynb"
            kernel.execute(NOTEBOOKS / f"plot_{name}.ipynb", executed, {"profile": profile})
            sections.append((name, _body(executed)))
            write_tables(name, store, profile)
    template = jinja2.Template(resources.files("mmel.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    page = folder / "index.html"
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_atomically(page, template.render(profile=profile, sections=sections, version=__version__, written=written))
    return page


def write_tables(name: str, store: Store, profile: str) -> None:
    """Write a table, or the numbers behind a figure, as CSV, Markdown and LaTeX into the report's folder."""
    folder = store.report_dir(profile)
    table = tables.build(name, store, profile)
    _write(table.levels, folder, name, table.caption)
    if not table.contrasts.empty:
        _write(table.contrasts, folder, f"{name}_contrasts", f"Contrasts of {table.caption}")
    if name == "table3":
        _write(table7(profile), folder, "table7", f"Table 7 (hyperparameters), profile {profile}, beside the paper's.")


def _body(notebook: Path) -> str:
    """The notebook's text and outputs as HTML, without code."""
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    return body


def _write(frame: pd.DataFrame, folder: Path, name: str, caption: str) -> None:
    write_atomically(folder / f"{name}.csv", frame.to_csv(index=False))
    cells = _each_text(frame, lambda text: text.replace("|", "\\|"))
    write_atomically(folder / f"{name}.md", f"{caption}\n\n{cells.to_markdown(index=False)}\n")
    style = _each_text(frame, _latex).style.hide(axis="index").format(precision=2)
    write_atomically(folder / f"{name}.tex", style.to_latex(hrules=True, caption=_latex(caption), label=f"tab:{name}"))


def _each_text(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A frame with its headings and those of its cells that are text changed."""
    return frame.rename(columns=change).map(lambda value: change(value) if isinstance(value, str) else value)


def _latex(text: str) -> str:
    return text.translate(_LATEX)
