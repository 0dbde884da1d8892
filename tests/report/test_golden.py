"""Tables of frozen and of committed records, to the letter."""

import re
from pathlib import Path

import pytest
from invented import (
    COLUMN_TASKS,
    DEVICE,
    FAILED_TEXT,
    FROZEN,
    GOLDEN,
    IMAGENET_RUNS,
    RUNS,
    TEXT_RUNS,
    VARIED_RUNS,
    golden_frames,
    imagenet_run,
    mini_run,
    text_run,
)

from mmel.grids import TABLES
from mmel.records import Store
from mmel.report.render import write_tables

RESULTS = Path(__file__).resolve().parents[2] / "results"
COMMITTED = RESULTS / "report" / "reduced"


@pytest.fixture(scope="module")
def found():
    return golden_frames(Store(FROZEN))


@pytest.mark.parametrize("file", sorted(path.name for path in GOLDEN.glob("*.csv")))
def test_golden(found, file):
    assert found[file] == (GOLDEN / file).read_bytes().decode()


def test_golden_has_every_table(found):
    assert {path.name for path in GOLDEN.iterdir()} == set(found)


def test_the_frozen_runs_are_those_of_the_list():
    # Changing SCHEMA renames the runs of the grid: the frozen ones are then missing from it.
    store = Store(FROZEN)
    recorded = {record.config for record in store.records("mini")}
    texts = {
        text_run(task, method)
        for method, (dev, _, _) in TEXT_RUNS.items()
        for task, score in zip(COLUMN_TASKS, dev, strict=True)
        if score is not None and task != "mnli_mm"
    }
    varied = {text_run(task, method, **fields) for task, method, fields, _ in VARIED_RUNS}
    images = {mini_run(*cell) for cell in RUNS} | {imagenet_run(method) for method in IMAGENET_RUNS}
    assert recorded == images | texts | varied | {text_run(*FAILED_TEXT)}
    assert {record.header["device"]["name"] for record in store.records("mini")} == {DEVICE}
    assert all(store.run_path(config).exists() for config in recorded)


@pytest.mark.parametrize("name", TABLES)
def test_the_committed_report_is_what_the_committed_records_make(tmp_path, monkeypatch, name):
    # What `mmel report --profile reduced` writes; the page itself takes a minute of notebooks.
    monkeypatch.delenv("MMEL_TEXT_MODEL", raising=False)
    monkeypatch.setattr(Store, "report_dir", lambda self, profile: tmp_path)
    write_tables(name, Store(RESULTS), "reduced")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (COMMITTED / path.name).read_bytes(), path.name


def test_the_committed_page_has_a_section_for_every_table():
    page = (COMMITTED / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', page) == list(TABLES)
