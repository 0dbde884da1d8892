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
from mmel.study.records import Store, write_atomically
from mmel.study.report import frames, notes, tables
from mmel.study.report.hyperparameters import table7
from mmel.study.sweep.notebook import NOTEBOOKS, warm_kernel
from mmel.study.tables import TABLES

_LATEX = str.maketrans({char: f"\\{char}" for char in "{}_%&#"} | {"|": "$|$", "±": r"$\pm$", "−": "$-$", "<": "$<$"})


def render(names: list[str], profile: str, store: Store, text_model: str | None = None) -> Path:
    """Render the report of a profile.

    Args:
        names: tables and figures to show, as in `mmel.study.tables.TABLES`.
        profile: whose records.
        store: where the records are and the report goes.
        text_model: name of the text encoder; None for the profile's.

    Returns:
        The page, `results/report/<profile>/index.html`; beside it lie `<table>.csv`, `.md` and `.tex` with the scores,
        and `<table>_contrasts.*` with the claims; of Figure 2 its curves in numbers, and Table 7 beside Table 3.

    Raises:
        NotebookError: if a cell of a plotting notebook fails.
        ResultsError: if a record cannot be read, naming its file.
    """
    sections = []
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    with warm_kernel(store) as kernel:
        for name in names:
            write_tables(name, store, profile, text_model)
            executed = store.root / "executed" / profile / f"plot_{name}.ipynb"
            encoder = {"text_model": text_model} if TABLES[name].kind == "text" else {}
            kernel.execute(NOTEBOOKS / f"plot_{name}.ipynb", executed, {"profile": profile, **encoder})
            sections.append((TABLES[name], exporter.from_notebook_node(nbformat.read(executed, as_version=4))[0]))
    template = jinja2.Template(
        resources.files("mmel.study.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    page = store.report_dir(profile) / "index.html"
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_atomically(page, template.render(profile=profile, sections=sections, version=__version__, written=written))
    return page


def write_tables(name: str, store: Store, profile: str, text_model: str | None = None) -> None:
    """Write a table, or the numbers behind a figure, as CSV, Markdown and LaTeX into the report's folder."""
    folder, table = store.report_dir(profile), frames.load(name, store, profile, text_model)
    caption = notes.caption(table)
    if table.spec.claims:
        levels, best = tables.levels(table)
        _write(levels, folder, name, caption, best)
        _write(tables.contrasts(table), folder, f"{name}_contrasts", f"Contrasts of {caption}")
    else:
        _write(tables.curves(table), folder, name, caption)
    if name == "table3":
        _write(table7(profile), folder, "table7", f"Table 7 (hyperparameters), profile {profile}, beside the paper's.")


def _write(frame: pd.DataFrame, folder: Path, name: str, caption: str, best: pd.DataFrame | None = None) -> None:
    """Write a frame in three forms; what is best is bold in two of them, a CSV is plain."""
    write_atomically(folder / f"{name}.csv", frame.to_csv(index=False))
    best = frame.map(lambda _: False) if best is None else best
    texts = frame.map(lambda value: f"{value:.2f}" if isinstance(value, float) else str(value))
    cells = tables.emphasized(_each_text(texts, lambda text: text.replace("|", "\\|")), best, "**{}**")
    # Read as a number, "+1.50" would lose its sign and its zero.
    write_atomically(folder / f"{name}.md", f"{caption}\n\n{cells.to_markdown(index=False, disable_numparse=True)}\n")
    cells = tables.emphasized(_each_text(texts, lambda text: text.translate(_LATEX)), best, "\\textbf{{{}}}")
    latex = cells.style.hide(axis="index").to_latex(hrules=True, caption=caption.translate(_LATEX), label=f"tab:{name}")
    write_atomically(folder / f"{name}.tex", latex)


def _each_text(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A frame of texts with its headings and cells changed."""
    return frame.rename(columns=change).map(change)
