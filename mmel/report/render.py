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


def render(names: list[str], profile: str, store: Store, select: str = "last", include_split: bool = False) -> Path:
    """Render the report of a profile.

    Args:
        names: tables and figures to show, as in `grids.TABLES`.
        profile: whose records.
        store: where the records are and the report goes.
        select: the evaluation of a run that counts, as in `tables.build`.
        include_split: whether runs whose batches were split for memory count.

    Returns:
        The page, `results/report/<profile>/index.html`; beside it lie `<table>.csv`, `.md` and `.tex` with the scores,
        and `<table>_contrasts.*` with the claims; of Figure 2 its curves in numbers, and Table 7 beside Table 3.
        Another reading than the usual goes to a folder of its own, `<profile>-best` say.

    Raises:
        NotebookError: if a cell of a plotting notebook fails.
        ValueError: on another `select`.
    """
    folder = report_dir(store, profile, select, include_split)
    parameters = {"profile": profile, "select": select, "include_split": include_split}
    sections = []
    with warm_kernel(store) as kernel:
        for name in names:
            write_tables(name, store, profile, select, include_split)
            executed = store.root / "executed" / folder.name / f"plot_{name}.ipynb"
            kernel.execute(NOTEBOOKS / f"plot_{name}.ipynb", executed, parameters)
            sections.append((name, _body(executed)))
    template = jinja2.Template(resources.files("mmel.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    page = folder / "index.html"
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_atomically(page, template.render(**parameters, sections=sections, version=__version__, written=written))
    return page


def report_dir(store: Store, profile: str, select: str = "last", include_split: bool = False) -> Path:
    """The folder of a report."""
    kind = ("-best" if select == "best" else "") + ("-with-split" if include_split else "")
    return store.report_dir(profile + kind)


def write_tables(name: str, store: Store, profile: str, select: str = "last", include_split: bool = False) -> None:
    """Write a table, or the numbers behind a figure, as CSV, Markdown and LaTeX into the report's folder."""
    folder = report_dir(store, profile, select, include_split)
    table = tables.build(name, store, profile, select, include_split)
    _write(table.levels, folder, name, table.caption, table.best)
    if not table.contrasts.empty:
        _write(table.contrasts, folder, f"{name}_contrasts", f"Contrasts of {table.caption}")
    if name == "table3":
        _write(table7(profile), folder, "table7", f"Table 7 (hyperparameters), profile {profile}, beside the paper's.")


def _body(notebook: Path) -> str:
    """The notebook's text and outputs as HTML, without code."""
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    return body


def _write(frame: pd.DataFrame, folder: Path, name: str, caption: str, best: pd.DataFrame | None = None) -> None:
    """Write a frame in three forms; what is best is bold in two of them, a CSV is plain."""
    write_atomically(folder / f"{name}.csv", frame.to_csv(index=False))
    best = frame.map(lambda _: False) if best is None else best
    texts = frame.map(lambda value: f"{value:.2f}" if isinstance(value, float) else str(value))
    cells = tables.emphasized(_each_text(texts, lambda text: text.replace("|", "\\|")), best, "**{}**")
    # Read as a number, "+1.50" would lose its sign and its zero.
    write_atomically(folder / f"{name}.md", f"{caption}\n\n{cells.to_markdown(index=False, disable_numparse=True)}\n")
    cells = tables.emphasized(_each_text(texts, _latex), best, "\\textbf{{{}}}")
    style = cells.style.hide(axis="index")
    write_atomically(folder / f"{name}.tex", style.to_latex(hrules=True, caption=_latex(caption), label=f"tab:{name}"))


def _each_text(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A frame of texts with its headings and cells changed."""
    return frame.rename(columns=change).map(change)


def _latex(text: str) -> str:
    return text.translate(_LATEX)
