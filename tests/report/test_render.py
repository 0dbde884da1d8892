import re
from pathlib import Path

import pandas as pd
import pytest
from invented import FROZEN

from mmel.grids import TABLES
from mmel.records import Store
from mmel.report import tables
from mmel.report.render import _write, report_dir, write_tables

RESULTS = Path(__file__).resolve().parents[2] / "results"
COMMITTED = RESULTS / "report" / "reduced"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The frozen runs, with a report folder of its own."""
    store = Store(FROZEN)
    monkeypatch.setattr(Store, "report_dir", lambda self, profile: tmp_path / profile)
    return store


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_written_in_three_forms(store, tmp_path, name):
    write_tables(name, store, "mini")
    extra = {"table3": ["table3_contrasts", "table7"], "figure2": []}.get(name, [f"{name}_contrasts"])
    assert {path.name for path in (tmp_path / "mini").iterdir()} == {
        f"{stem}.{suffix}" for stem in (name, *extra) for suffix in ("csv", "md", "tex")
    }
    table = tables.build(name, store, "mini")
    # Empty cells and the texts "-" come back as they were.
    found = pd.read_csv(tmp_path / "mini" / f"{name}.csv", keep_default_na=False)
    assert found.astype(str).to_numpy().tolist() == table.levels.astype(str).to_numpy().tolist()
    markdown = (tmp_path / "mini" / f"{name}.md").read_text()
    assert markdown.startswith(table.caption)
    assert len(markdown.splitlines()) == len(table.levels) + 4


@pytest.mark.parametrize("name", TABLES)
def test_latex_and_markdown_take_every_character(store, tmp_path, name):
    write_tables(name, store, "mini")
    for path in (tmp_path / "mini").glob("*.tex"):
        text = path.read_text()
        # Outside the macros and the separators of pandas' own.
        lines = [line for line in text.splitlines() if line.endswith("\\\\") or line.startswith("\\caption{")]
        assert len(lines) > 2
        bare = [line for line in lines if re.search(r"(?<!\\)[%#_]|[±−<]|(?<!\$)\|", line.replace("$<$", ""))]
        assert bare == []
    for path in (tmp_path / "mini").glob("*.md"):
        rows = [line for line in path.read_text().splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_numbers_keep_signs_and_zeros_in_markdown_and_latex(tmp_path):
    frame = pd.DataFrame({"Difference": ["+1.50", "-5.00", "+0.40 [+0.10, +0.70]"], "score": [81.0, 70.125, 0.5]})
    _write(frame, tmp_path, "some", "Some.")
    markdown = (tmp_path / "some.md").read_text()
    for cell in ("+1.50", "-5.00", "+0.40 [+0.10, +0.70]", "81.00", "70.12", "0.50"):
        assert re.search(rf"\| {re.escape(cell)} +\|", markdown), cell
    latex = (tmp_path / "some.tex").read_text()
    assert r"+1.50 & 81.00 \\" in latex
    assert r"-5.00 & 70.12 \\" in latex


def test_the_best_is_bold_in_markdown_and_latex_and_plain_in_csv(store, tmp_path):
    write_tables("table1", store, "mini")
    folder = tmp_path / "mini"
    markdown, latex, plain = (next(folder.glob(f"table1.{suffix}")).read_text() for suffix in ("md", "tex", "csv"))
    assert re.search(r"ours \(mini\) +\| Digits +\| ResNet-8 .*\| \*\*97.08 ± 0.20 \(2\)\*\* \| 96.11 \(1\) ", markdown)
    assert r"\textbf{97.08 $\pm$ 0.20 (2)} & 96.11 (1)" in latex
    assert "97.08 ± 0.20 (2)" in plain
    assert "*" not in plain


def test_another_reading_goes_to_a_folder_of_its_own(store, tmp_path):
    write_tables("table1", store, "mini", select="best", include_split=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mini-best-with-split"]
    assert "at the best epoch" in (tmp_path / "mini-best-with-split" / "table1.md").read_text()
    assert report_dir(store, "mini").name == "mini"


# The report that is committed.


@pytest.mark.parametrize("name", TABLES)
def test_the_committed_report_is_what_the_committed_records_make(tmp_path, monkeypatch, name):
    # What `mmel report --profile reduced` would write; the page itself takes a minute of notebooks.
    monkeypatch.delenv("MMEL_TEXT_MODEL", raising=False)
    monkeypatch.setattr(Store, "report_dir", lambda self, profile: tmp_path)
    write_tables(name, Store(RESULTS), "reduced")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (COMMITTED / path.name).read_bytes(), path.name


def test_the_committed_page_has_a_section_for_every_table():
    page = (COMMITTED / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', page) == list(TABLES)
