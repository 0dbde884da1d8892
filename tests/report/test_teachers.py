"""Which of several teachers of one name a run had."""

from pathlib import Path

import pytest
from invented import write_run

from mmel.grids import reported
from mmel.records import Store
from mmel.report import tables

RESULTS = Path(__file__).resolve().parents[2] / "results"


@pytest.fixture(autouse=True)
def own_encoder(monkeypatch):
    monkeypatch.delenv("MMEL_TEXT_MODEL", raising=False)


def noted(store):
    return " ".join(tables.build("table3", store, "reduced").notes)


def test_two_teachers_of_the_committed_records_are_told_by_what_they_say():
    # Records from before the digest.
    found = noted(Store(RESULTS))
    assert "CoLA (subset) had 2 (seeds 0, 1: 19.525 %; seed 2: 19.662 %)" in found
    assert "MRPC (subset) had 2 (seeds 0, 1: 3.975 %; seed 2: 3.550 %)" in found
    assert "RTE (subset) had" not in found


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (("a", "a", "a"), None),
        (("a", "b", "a"), "had 2 (seeds 0, 2: 12.500 %; seed 1: 12.500 %)"),
        (("a", "b", "c"), "had 3"),
        # A record without a digest had the teacher that says the same.
        ((None, "a", "a"), None),
        ((None, None, None), None),
    ],
)
def test_teachers_are_told_by_their_weights(weights, told, tmp_path):
    store = Store(tmp_path)
    runs = [run for run in reported("table3", "reduced") if (run.dataset, run.method) == ("cola", "mmel_h")]
    for run, teacher in zip(runs, weights, strict=True):
        write_run(store, run, 40.0, teacher_weights=teacher)
    found = noted(store)
    assert "teacher gives" in found
    assert (f"CoLA (subset) {told}" in found) if told else ("CoLA (subset) had" not in found)
