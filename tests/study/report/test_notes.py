"""Notes are asked for the fact that they must hold, not for their sentences.

Captions, and notes on subsets, samples and sampling errors, stand in the committed report, see test_golden.
"""

import re

import pytest
from invented import FROZEN, reported, write_run

from mmel.study.records import Store
from mmel.study.report import frames, notes
from mmel.study.tables import TABLES


def noted(name, store, profile="mini"):
    return "\n".join(notes.notes(frames.load(name, store, profile)))


@pytest.mark.parametrize("name", TABLES)
def test_no_runs_at_all_is_said_and_every_planned_run_is_missing(store, name):
    table = frames.load(name, store, "mini")
    assert notes.caption(table).endswith("no runs recorded yet.")
    cells = {tuple(cell) for cell in table.runs[["place", "arm"]].to_numpy()}
    assert len(notes.missing(table)) == len(cells)
    assert not re.search("teacher gives|standard error|Failed|uncommitted", noted(name, store))


def test_what_is_missing_is_listed_cell_by_cell():
    assert notes.missing(frames.load("table1", Store(FROZEN), "mini")) == [
        "Digits, ResNet-8, MMEL-S: 1 of 2 runs",
        "Digits, ResNet-14, Baseline(DA+Long): 0 of 2 runs",
        "Digits, ResNet-14, MMEL-S: 1 of 2 runs",
    ]
    found = notes.missing(frames.load("table6", Store(FROZEN), "mini"))
    assert "RTE (miniature), MMEL-H, beam, joint, 0.2: 0 of 1 runs" in found


@pytest.mark.parametrize(("profile", "words"), [("mini", ["*miniature*"]), ("paper", [])])
def test_another_encoder_and_smaller_data_are_named(store, profile, words):
    write_run(store, reported("table3", profile)[0], 50.0)
    assert ("not bert-base" in notes.caption(frames.load("table3", store, profile))) is (profile != "paper")
    found = noted("table3", store, profile)
    assert [word for word in ("*miniature*", "*subset*", "*sample*") if word in found] == words


def test_failed_and_uncommitted_runs_are_named(store):
    (failed,) = reported("table3", "mini", dataset="grammar_stsb", method="mmel_s")
    assert failed.run_id in noted("table3", Store(FROZEN))
    assert "uncommitted" not in noted("table1", Store(FROZEN))
    write_run(store, reported("table1", "mini")[0], 95.0, dirty=True)
    assert "uncommitted" in noted("table1", store)


@pytest.mark.parametrize(("weights", "told"), [("aaa", []), ("aba", ["2"]), ("abc", ["3"])])
def test_teachers_are_told_by_their_weights(store, weights, told):
    write_run(store, reported("table3", "reduced", method="baseline")[0], 40.0)
    assert "teacher of their task" not in noted("table3", store, "reduced")
    for run, teacher in zip(reported("table3", "reduced", dataset="cola", method="mmel_h"), weights, strict=True):
        write_run(store, run, 40.0, teacher_weights=teacher)
    found = noted("table3", store, "reduced")
    assert "CoLA (subset) 12.5 %" in found
    assert re.findall(r"CoLA \(subset\) had (\d)", found) == told


def test_dropout_chosen_on_dev_scores_is_told(store):
    run = reported("table3", "paper", method="mmel_h")[0]
    assert run.hidden_dropout is None
    write_run(store, run, 60.0)
    assert "Of the 1 runs: 0.1 / 0.1 in 1." in noted("table3", store, "paper")
    assert "dropout" not in noted("table3", Store(FROZEN))


def test_unreadable_images_are_told(store):
    (run,) = reported("table5", "reduced", method="mmel_h")
    write_run(store, run, 50.0, result={"num_unreadable": 3})
    assert "Up to 3 images" in noted("table5", store, "reduced")


def test_runs_in_several_precisions_are_told(store):
    runs = reported("table1", "mini")[:3]
    before = {"device": {"name": "CPU", "precision": "bf16"}}
    for run, precision, resumed_from in zip(runs, ("bf16", "fp32", "fp32"), ([], [], [before]), strict=True):
        write_run(store, run, 50.0, device={"name": "CPU", "precision": precision}, resumed_from=resumed_from)
    found = noted("table1", store)
    assert "bf16 1, fp32 1, bf16 then fp32 1" in found
    assert f"Resumed in another precision than they began with: {runs[2].run_id}." in found


def test_float32_runs_stand_beside_their_cell(store):
    checks = TABLES["table1"].float32_checks("paper")
    assert f"none of {len(checks)} runs" in noted("table1", store, "paper")
    (check,) = (run for run in checks if (run.dataset, run.model, run.method) == ("cifar10", "resnet20", "mmel_h"))
    write_run(store, check, 93.4)
    for run in reported("table1", "paper"):
        if run.seed < 2 and run.replace(seed=0, precision=check.precision) == check:
            write_run(store, run, 93.0 + run.seed)
    assert "CIFAR-10, ResNet-20, MMEL-H 93.40 (default: 93.50 ± 0.71 (2))" in noted("table1", store, "paper")
    assert "Float32" not in noted("table1", store, "reduced")
