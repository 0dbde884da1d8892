import re

import pandas as pd
import pytest
from invented import FROZEN

from mmel.grids import TABLES
from mmel.records import Store
from mmel.report import tables
from mmel.report.render import write_tables


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
