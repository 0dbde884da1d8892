"""Tables of frozen and of committed records, to the letter."""

import re
from pathlib import Path

import pytest
from invented import FROZEN, GOLDEN, golden_frames

from mmel.study.records import Store
from mmel.study.report.files import write_claims, write_tables
from mmel.study.tables import GRIDS, TABLES, runs_of

RESULTS = Path(__file__).resolve().parents[3] / "results"
COMMITTED = RESULTS / "report" / "reduced"


@pytest.fixture(scope="module")
def found():
    return golden_frames(Store(FROZEN))


@pytest.mark.parametrize("file", sorted(path.name for path in GOLDEN.glob("*.csv")))
def test_golden(found, file):
    assert found[file] == (GOLDEN / file).read_bytes().decode()


def test_golden_has_every_table(found):
    assert {path.name for path in GOLDEN.iterdir()} == set(found)


def test_every_frozen_run_is_in_a_table_and_invented():
    # Were the name of a run to change, its frozen record would be of no table.
    records = list(Store(FROZEN).records("mini"))
    assert {record.config for record in records} <= set(runs_of(TABLES, "mini"))
    assert {record.header["device"]["name"] for record in records} == {"test device"}


@pytest.mark.parametrize("name", ["claims", *GRIDS])
def test_the_committed_report_is_what_the_committed_records_make(tmp_path, monkeypatch, name):
    # What `mmel report --profile reduced` writes; the book takes a minute of notebooks.
    monkeypatch.setattr(Store, "report_dir", lambda self, profile: tmp_path)
    if name == "claims":
        write_claims(Store(RESULTS), "reduced")
    else:
        write_tables(name, Store(RESULTS), "reduced")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (COMMITTED / path.name).read_bytes(), path.name


def test_committed_markdown_and_latex_take_every_character():
    for path in COMMITTED.glob("*.md"):
        rows = [line for line in path.read_text().splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) <= 1, path.name
    for path in COMMITTED.glob("*.tex"):
        # Outside the macros and the separators of pandas' own.
        lines = path.read_text().replace("$<$", "").splitlines()
        lines = [line for line in lines if line.endswith("\\\\") or line.startswith(("\\caption{", "\\par"))]
        assert [line for line in lines if re.search(r"(?<!\\)[%#_]|[±−<]|(?<!\$)\|", line)] == [], path.name
