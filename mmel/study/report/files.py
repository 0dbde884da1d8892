"""Writes a table as CSV, Markdown and LaTeX."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from mmel.study.files import write_atomically
from mmel.study.records import Store
from mmel.study.report import frames, notes, tables
from mmel.study.report.hyperparameters import table7

_LATEX = str.maketrans({char: f"\\{char}" for char in "{}_%&#"} | {"|": "$|$", "±": r"$\pm$", "−": "$-$", "<": "$<$"})


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
