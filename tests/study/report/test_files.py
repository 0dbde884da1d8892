import re

import pandas as pd
import pytest
from invented import FROZEN

from mmel.study.records import Store
from mmel.study.report import frames, notes, tables
from mmel.study.report.files import write_tables
from mmel.study.tables import TABLES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The report folder of the frozen runs."""
    monkeypatch.setattr(Store, "report_dir", lambda self, profile: tmp_path / profile)
    return tmp_path / "mini"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_written_in_three_forms(folder, name):
    write_tables(name, Store(FROZEN), "mini")
    extra = [f"{name}_contrasts", *(["table7"] if name == "table3" else [])]
    files = {f"{stem}.{suffix}" for stem in (name, *extra) for suffix in ("csv", "md", "tex")}
    assert {path.name for path in folder.iterdir()} == files
    table = frames.load(name, Store(FROZEN), "mini")
    shown = tables.curves(table) if name == "figure2" else tables.levels(table)
    # Empty cells and the texts "-" come back as they were.
    found = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
    assert found.astype(str).to_numpy().tolist() == shown.astype(str).to_numpy().tolist()
    markdown = (folder / f"{name}.md").read_text()
    assert markdown.startswith(notes.caption(table))
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == len(shown) + 2
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    # LaTeX takes every character, outside the macros and the separators of pandas' own.
    lines = (folder / f"{name}.tex").read_text().replace("$<$", "").splitlines()
    lines = [line for line in lines if line.endswith("\\\\") or line.startswith("\\caption{")]
    assert len(lines) > 2
    assert [line for line in lines if re.search(r"(?<!\\)[%#_]|[±−<]|(?<!\$)\|", line)] == []
