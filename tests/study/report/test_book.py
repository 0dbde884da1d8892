"""The book of invented runs: the committed notebooks as if executed, the real documents, and Sphinx."""

import contextlib
import copy
import io
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from invented import FROZEN
from nbformat.v4 import new_code_cell, new_output

from mmel.study.records import Store
from mmel.study.report import book
from mmel.study.sweep.notebook import NOTEBOOKS
from mmel.study.tables import GRIDS

LEFT_OUT = "table5"
ALT = 'MMEL-H − Baseline: +0.5 points, "holds"'
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><path d="M0 0h9"/></svg>'
RECORD = next(FROZEN.glob("runs/mini/*/*.jsonl")).relative_to(FROZEN)
LINKS = ("plot_table2.ipynb", "../docs/scale.md", f"../results/{RECORD}", "../results/report/mini/table1.md")
SHOWN = [
    new_output("display_data", {"image/svg+xml": SVG}, metadata={"image/svg+xml": {"alt": ALT}}),
    new_output("display_data", {"text/html": " ".join(f'<a href="{link}">there</a>' for link in LINKS)}),
    new_output("display_data", {"text/markdown": "$x$ and [data](../docs/data.md)"}),
]


class Executed:
    """In place of a kernel: what it would have shown, with `SHOWN` below."""

    def __init__(self):
        self.parameters = {}

    def execute(self, notebook, output, parameters):
        self.parameters[notebook.stem] = parameters
        self.encoder = os.environ.get("MMEL_TEXT_MODEL")
        shown = nbformat.read(notebook, as_version=4)
        shown.metadata["papermill"] = {"output_path": str(output)}
        shown.cells.append(new_code_cell("profile = 'mini'", metadata={"tags": ["injected-parameters"]}))
        shown.cells += [new_code_cell("show()", outputs=[one]) for one in copy.deepcopy(SHOWN)]
        output.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(shown, output)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The store, the folder of the book, Sphinx' warnings, the plot notebooks' parameters and the encoder they see."""
    store, kernel, warnings = Store(tmp_path_factory.mktemp("results")), Executed(), io.StringIO()
    shutil.copytree(FROZEN / "runs", store.root / "runs")
    # Which the committed outputs lead to.
    (store.root / "report").mkdir()
    for folder in ("runs/reduced", "report/reduced"):
        (store.root / folder).symlink_to(NOTEBOOKS.resolve().parent / "results" / folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(warnings):
        patch.setenv("MMEL_TEXT_MODEL", "an-encoder")
        patch.setattr(book, "WarmKernel", lambda store: contextlib.nullcontext(kernel))
        # A page that an older report left.
        (old := store.report_dir("mini") / "book" / "old.html").parent.mkdir(parents=True)
        old.touch()
        entry = book.report([name for name in GRIDS if name != LEFT_OUT], "mini", store)
    assert not old.exists()
    return store, entry.parent, warnings.getvalue(), kernel.parameters, kernel.encoder


def pages(folder):
    """Page -> its HTML, of those that people or notebooks wrote."""
    found = (path for path in folder.glob("*/**/*.html") if "_static" not in path.parts)
    return {path: path.read_text(encoding="utf-8") for path in found}


def test_sphinx_warns_of_nothing(built):
    _, _, warnings, *_ = built
    assert warnings == ""


def test_the_first_file_leads_to_the_first_page_which_lists_all_others(built):
    _, folder, _, parameters, _ = built
    first = next(iter(parameters))
    entry = (folder / "index.html").read_text()
    assert re.search(r"url=([^\"]+)", entry)[1] == f"notebooks/{first}.html"
    page = folder / "notebooks" / f"{first}.html"
    listed = {(page.parent / link).resolve() for link in re.findall(r'internal" href="([^"#]+)"', page.read_text())}
    assert listed | {page, folder / "notebooks" / f"plot_{LEFT_OUT}.html"} == set(pages(folder))
    assert {path.stem for path in listed} >= {"method", "decisions", "explore_mmel", "NOTES", "plot_figure2"}


def test_plot_notebooks_get_the_profile_and_texts_the_encoder(built):
    *_, parameters, encoder = built
    assert parameters == {f"plot_{name}": {"profile": "mini"} for name in ("claims", *GRIDS) if name != LEFT_OUT}
    assert encoder == "an-encoder"


def test_every_link_and_picture_leads_somewhere(built):
    _, folder, _, parameters, _ = built
    outside = Counter()
    for page, html in pages(folder).items():
        # Nothing is loaded from elsewhere: the book is read without a network.
        assert re.findall(r'<(?:script|link|img)\b[^>]*(?:src|href)="(?:\w+:)?//[^"]*"', html) == [], page
        for link in re.findall(r'(?:href|src)="(?!\w+:)([^"]+)"', html):
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            assert target.exists(), (page, link)
            assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), (page, link)
            outside[page.stem] += folder not in target.parents
    assert all(outside[stem] >= 2 for stem in parameters)


def test_pictures_have_their_alt_text_and_code_is_folded_but_of_recipes(built):
    _, folder, *_ = built
    html = (folder / "notebooks" / "plot_table1.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<img [^>]*alt="MMEL-H − Baseline: \+0\.5 points, &quot;holds&quot;"', html)) == 1
    # Without a text of its own a picture would be read out as the name of its file.
    for page in folder.glob("notebooks/plot_*.html"):
        assert re.findall(r'<img [^>]*alt="[^"]*[.]\w+g"', page.read_text(encoding="utf-8")) == [], page
    assert "injected" not in html
    assert "profile = &#39;mini&#39;" not in html
    folded = re.findall(r"<details .*?</details>", html, re.DOTALL)
    assert 'math notranslate nohighlight">\\(x\\)' in html
    assert html.count('class="cell_input') == "".join(folded).count('class="cell_input') > 3
    assert "<details" not in (folder / "notebooks" / "use_pytorch.html").read_text(encoding="utf-8")


def test_no_path_of_this_machine(built):
    store, folder, *_ = built
    for path in folder.rglob("*"):
        if path.suffix in (".html", ".ipynb", ".js", ".txt", ".svg", ".jsonl"):
            text = path.read_text(encoding="utf-8")
            assert str(store.root) not in text, path
            assert str(Path.cwd()) not in text, path


def test_the_footer_says_whose_numbers_these_are(built):
    _, folder, *_ = built
    for html in pages(folder).values():
        assert re.search(r"mmel [\d.]+, commit \w+, written \d{4}-\d\d-\d\d \d\d:\d\d UTC", html)
        assert "results/runs/mini" in html
