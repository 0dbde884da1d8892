"""Writes a table as CSV, Markdown and LaTeX."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from mmel.study.files import write_atomically
from mmel.study.records import Store
from mmel.study.report import answers, contrasts, figures, frames, lab, notes, tables
from mmel.study.report.hyperparameters import table7

_LATEX = str.maketrans(
    {char: f"\\{char}" for char in "{}_%&#"}
    | {"|": "$|$", "±": r"$\pm$", "†": r"$\dagger$", "−": "$-$", "<": "$<$", ">": "$>$"}
)


def write_claims(store: Store, profile: str) -> None:
    """Write the answer to each claim in three forms, and the picture of the primary ones, into the report's folder."""
    folder, found = store.report_dir(profile), contrasts.answers(store, profile)
    caption = (
        f"Every claim, on the paper's own numbers and on runs of profile {profile}; a star marks the primary ones."
    )
    _write(answers.every_claim(found, profile), folder, "claims", caption)
    write_atomically(folder / "claims.svg", figures.primary_forest(store, profile).svg)


def write_tables(name: str, store: Store, profile: str) -> None:
    """Write a table, or the numbers behind a figure, as CSV, Markdown and LaTeX into the report's folder."""
    folder = store.report_dir(profile)
    if name == "lab":
        runs = lab.load(store, profile)
        _write(lab.levels(runs), folder, name, "The lab: accuracy on small real data, mean ± std (seeds).")
        _write(lab.table(lab.contrasts(runs)), folder, "lab_contrasts", "The lab: contrasts, paired by seed.")
        return
    table = frames.load(name, store, profile)
    caption = notes.caption(table)
    shown = tables.curves(table) if name.startswith("figure") else tables.levels(table)
    _write(shown, folder, name, caption, notes.notes(table))
    pooled = answers.over_places(table).rename(columns={"p (two-sided)": "p"}).to_dict("records")
    tests = ["; ".join(f"{heading} {value}" for heading, value in row.items()) for row in pooled]
    _write(answers.every_contrast(table), folder, f"{name}_contrasts", f"Contrasts of {caption}", tests)
    if name == "table3":
        _write(table7(), folder, "table7", "Table 7 (hyperparameters), profile paper, beside the paper's.")


def _write(frame: pd.DataFrame, folder: Path, name: str, caption: str, below: Iterable[str] = ()) -> None:
    """Write a frame in three forms, two of them with the lines below it."""
    write_atomically(folder / f"{name}.csv", frame.to_csv(index=False))
    texts = frame.map(lambda value: f"{value:.2f}" if isinstance(value, float) else str(value))
    cells = _each_text(texts, lambda text: text.replace("|", "\\|").replace("*", "\\*"))
    # Read as a number, "+1.50" would lose its sign and its zero.
    markdown = cells.to_markdown(index=False, disable_numparse=True)
    listed = "".join(f"\n- {line}" for line in below)
    write_atomically(folder / f"{name}.md", f"{caption}\n\n{markdown}\n" + (f"{listed}\n" if listed else ""))
    cells = _each_text(texts, lambda text: text.translate(_LATEX))
    latex = cells.style.hide(axis="index").to_latex(hrules=True, caption=caption.translate(_LATEX), label=f"tab:{name}")
    lines = "".join(f"\\par\\footnotesize {line.translate(_LATEX)}\n" for line in below)
    write_atomically(folder / f"{name}.tex", latex.replace("\\end{table}", f"{lines}\\end{{table}}"))


def _each_text(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A frame of texts with its headings and cells changed."""
    return frame.rename(columns=change).map(change)
