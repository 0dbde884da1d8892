"""Executes the plot notebooks and builds the book: they, the other notebooks and the documents as a folder of HTML."""

import os
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from sphinx.application import Sphinx

from mmel import __version__
from mmel.study import code_version
from mmel.study.models import text_model_name
from mmel.study.records import Store
from mmel.study.report.files import write_claims, write_tables
from mmel.study.sweep.notebook import NOTEBOOKS, WarmKernel
from mmel.study.tables import GRIDS

OTHER_NOTEBOOKS = ("explore_*.ipynb", "use_*.ipynb")
DOCUMENTS = (
    "docs/*.md",
    "mmel/study/paper/NOTES.md",
    "results/README.md",
    "results/lab/PLAN.md",
    "benchmarks/README.md",
)
# papermill leaves the parameters as they were, and adds those that it executed with.
PARAMETERS = {"parameters", "injected-parameters"}
# Where a long table opens, which its notebook folds by the tag `hide-output`.
FOLDED_OUTPUT = "Table"


def report(names: list[str], profile: str, store: Store) -> Path:
    """Write the tables of a profile and build its book.

    Args:
        names: tables and figures to show, as in `mmel.study.tables.GRIDS`.
        profile: whose records.
        store: where the records are and the report goes.

    Returns:
        The book's first file, `results/report/<profile>/book/index.html`. The tables lie beside the book.

    Raises:
        NotebookError: if a cell of a plot notebook fails.
        ResultsError: if a record cannot be read, naming its file.
    """
    executed, plots = store.root / "executed" / profile, []
    # The name of its folder, which the notebooks' kernel may not find from its own.
    os.environ["MMEL_TEXT_MODEL"] = text_model_name() or ""
    write_claims(store, profile)
    for name in names:
        write_tables(name, store, profile)
    with WarmKernel(store) as kernel:
        for name in ("claims", *names):
            plots.append(executed / f"plot_{name}.ipynb")
            kernel.execute(NOTEBOOKS / plots[-1].name, plots[-1], {"profile": profile})
    work, book = executed / "book", store.report_dir(profile) / "book"
    shutil.rmtree(work, ignore_errors=True)
    root = _gather(plots, work / "pages")
    _build(work / "pages", root, work / "html", profile)
    shutil.rmtree(book, ignore_errors=True)
    shutil.move(work / "html", book)
    return book / "index.html"


def _gather(plots: list[Path], folder: Path) -> str:
    """Lay the pages into a folder as they lie in the checkout, so that links hold; return the first one's name."""
    others = [path for pattern in OTHER_NOTEBOOKS for path in sorted(NOTEBOOKS.glob(pattern))]
    documents = [path for pattern in DOCUMENTS for path in sorted(Path().glob(pattern))]
    for path in documents:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path)
    (folder / "notebooks").mkdir()
    pages = {path.stem: _for_book(path) for path in (*plots, *others)}
    first, *rest = (path.stem for path in plots)
    titles = {f"plot_{name}": table.title for name, table in GRIDS.items()}
    # Where links to a table lead that was not asked for.
    for stem in titles.keys() - set(rest):
        text = f"# {titles[stem]}\n\nNot in this report, which was asked for other tables."
        pages[stem] = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)], metadata={"orphan": True})
    contents = {
        "Tables and figures": [f"{titles[stem]} </notebooks/{stem}>" for stem in rest],
        "Explore and use": [f"/notebooks/{path.stem}" for path in others],
        "Documents": [f"/{path.with_suffix('').as_posix()}" for path in documents],
    }
    for caption, entries in contents.items():
        text = "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"])
        pages[first].cells.append(nbformat.v4.new_markdown_cell(text))
    for stem, notebook in pages.items():
        nbformat.write(notebook, folder / "notebooks" / f"{stem}.ipynb")
    return f"notebooks/{first}"


def _for_book(path: Path) -> nbformat.NotebookNode:
    """A notebook with the alt text of pictures where MyST-NB reads it, links as of the book, and its code folded.

    The code of a recipe stays in sight.
    """
    notebook, folded = nbformat.read(path, as_version=4), not path.stem.startswith("use_")
    # It names folders of this machine.
    notebook.metadata.pop("papermill", None)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        tags = cell.metadata.setdefault("tags", [])
        if "hide-output" in tags:
            tags.append("remove-input")
            cell.metadata["mystnb"] = {"code_prompt_show": FOLDED_OUTPUT, "code_prompt_hide": FOLDED_OUTPUT}
        elif folded:
            tags.append("remove-cell" if PARAMETERS & set(tags) else "hide-input")
        for output in cell.outputs:
            for mime, about in output.get("metadata", {}).items():
                if mime.startswith("image/") and "alt" in about:
                    cell.metadata["mystnb"] = {"image": {"alt": about["alt"]}}
            data = output.get("data", {})
            for mime in {"text/html", "text/markdown"} & data.keys():
                # Links hold in notebooks/: those to pages lead to their HTML, those to results out of the book.
                text = re.sub(r'(href="(?!\.\./results/)[^":]+)\.(?:ipynb|md)\b', r"\1.html", data[mime])
                data[mime] = text.replace('href="../results/', 'href="../../../../')
    return notebook


def _build(pages: Path, root: str, html: Path, profile: str) -> None:
    """Build the HTML of a folder; what Sphinx warns of goes to stderr."""
    commit = (code_version()["commit"] or "unknown")[:10]
    about = (
        f"mmel {__version__}, commit {commit}, written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Every number comes from "
        f"a record in results/runs/{profile}; a record carries its configuration, seed, device, versions and commit."
    )
    own = {"root_doc": root, "html_title": f"MMEL study, {profile}", "html_theme_options.extra_footer": about}
    trees = pages / ".doctrees"
    Sphinx(pages, "docs", html, trees, "html", confoverrides=own, status=None, warning=sys.stderr).build()
    # A page's address is that of its notebook, the first page's too.
    (html / "index.html").write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={root}.html">\n')
