"""Executes the plotting notebooks and joins them into one page; writes the tables as CSV, Markdown and LaTeX."""

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
from mmel.sweep.driver import NOTEBOOKS
from mmel.sweep.notebook import warm_kernel


def render(names: list[str], profile: str, store: Store) -> Path:
    """Render the report of a profile.

    Args:
        names: tables to show.
        profile: whose records.
        store: where the records are and the report goes.

    Returns:
        The page, `results/report/<profile>/index.html`; beside it lie `<table>.csv`, `.md` and `.tex` with the
        accuracies, and `<table>_contrasts.*` with the claims.

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
            table = tables.build(name, store, profile)
            _write(table.levels, folder, name, table.caption)
            _write(table.contrasts, folder, f"{name}_contrasts", f"Contrasts of {table.caption}")
    template = jinja2.Template(resources.files("mmel.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    page = folder / "index.html"
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_atomically(page, template.render(profile=profile, sections=sections, version=__version__, written=written))
    return page


def _body(notebook: Path) -> str:
    """The notebook's text and outputs as HTML, without code."""
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    return body


def _write(frame: pd.DataFrame, folder: Path, name: str, caption: str) -> None:
    write_atomically(folder / f"{name}.csv", frame.to_csv(index=False))
    write_atomically(folder / f"{name}.md", f"{caption}\n\n{frame.to_markdown(index=False)}\n")
    latex = frame.style.hide(axis="index").to_latex(hrules=True, caption=_latex(caption), label=f"tab:{name}")
    write_atomically(folder / f"{name}.tex", latex.replace("±", r"$\pm$").replace("%", r"\%"))


def _latex(text: str) -> str:
    return text.replace("|", r"$|$").replace("_", r"\_")
