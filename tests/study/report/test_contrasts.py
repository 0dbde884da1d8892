"""Contrasts and answers on cases worked out by hand; whole tables are in test_golden."""

import math

import numpy as np
import pytest
from invented import mismatched, reported, row, write_run

from mmel.study.report import answers, contrasts, frames
from mmel.study.report.contrasts import overall
from mmel.study.report.statistics import Cell, pooled, welch


def found(name, store, profile):
    return contrasts.contrasts(frames.load(name, store, profile))


def write_scores(store, scores, profile="reduced", **fields):
    """Record runs of Table 3: (task, method) -> one score per seed."""
    for (task, method), values in scores.items():
        for run, value in zip(reported("table3", profile, dataset=task, method=method), values, strict=False):
            write_run(store, run, value, each=mismatched(run, value), **fields)


def test_ours_and_the_papers_are_welchs(store):
    better, worse = [46.0, 46.5, 47.0], [40.0, 41.0, 40.5]
    write_scores(store, {("cola", "mmel_h"): better, ("cola", "baseline"): worse, ("cola", "mmel_s"): worse[:1]})
    both = found("table3", store, "reduced")
    ours = row(both, place="cola", label="MMEL-H − Baseline", source="ours")
    # Both deviations are 0.5: standard error 0.40825, 4 degrees of freedom, t = 2.7764.
    assert ours[["difference", "low", "high"]].tolist() == pytest.approx([6.0, 6 - 1.1335, 6 + 1.1335], abs=1e-4)
    assert (ours["n_a"], ours["n_b"], ours["verdict"], ours["kind"]) == (3, 3, "supported", "Welch")
    # 62.1 ± 0.55 and 59.7 ± 0.61, five runs each: the paper's upper bound is 3.25, below ours.
    paper = row(both, place="cola", label="MMEL-H − Baseline", source="paper")
    assert paper[["difference", "low", "high"]].tolist() == pytest.approx(
        list(welch(Cell(62.1, 0.55, 5), Cell(59.7, 0.61, 5))[:3])
    )
    assert ours["differs_in_size"]
    # One run on a side: 40 - 40.5, with the other side's spread: 4.3027 * 0.5 * sqrt(1 + 1/3).
    alone = row(both, place="cola", label="MMEL-S − Baseline", source="ours")
    assert alone[["difference", "half_width"]].tolist() == pytest.approx([-0.5, 2.4841], abs=1e-4)
    assert (alone["kind"], alone["verdict"]) == ("prediction", "undecided")
    # The paper's 2.4 is within reach of two and of three seeds a side: 2.7764 * s * sqrt(2/3).
    assert alone["effect"] == pytest.approx(2.4)


def test_from_six_shared_seeds_on_the_differences_make_the_interval(monkeypatch, store):
    # Seeds differ by much, the methods by 1.0, 1.2 and 0.8 in each.
    write_scores(store, {("cola", "mmel_h"): [41.0, 51.2, 60.8], ("cola", "baseline"): [40.0, 50.0, 60.0]})
    name = {"place": "cola", "label": "MMEL-H − Baseline", "source": "ours"}
    assert row(found("table3", store, "reduced"), **name)["kind"] == "Welch"
    monkeypatch.setattr(contrasts, "PAIRED_FROM", 3)
    ours = row(found("table3", store, "reduced"), **name)
    # 1.0 ± 4.3027 * 0.2 / sqrt(3).
    assert ours[["difference", "low", "high"]].tolist() == pytest.approx([1.0, 0.5032, 1.4968], abs=1e-4)
    assert (ours["kind"], ours["verdict"]) == ("paired", "supported")


def test_gains_on_small_tasks_less_gains_on_the_others(store):
    gains = {"cola": 4.0, "rte": 2.0, "mrpc": 1.0}
    label = "MMEL-H − Baseline, CoLA, RTE less the others"
    for task, gain in gains.items():
        # Without the other tasks there is none.
        both = found("table3", store, "reduced")
        assert set(both.loc[both["label"] == label, "source"]) == {"paper"}
        write_scores(store, {(task, "mmel_h"): [60.0 + gain, 61.0 + gain], (task, "baseline"): [60.0, 61.0]})
    ours = row(found("table3", store, "reduced"), label=label, source="ours")
    # (4 + 2) / 2 - 1; six cells of variance 0.5 in two runs: error sqrt(0.25 * (4 / 4 + 2)), and
    # 0.75**2 / (4 * 0.0625**2 + 2 * 0.25**2) = 4 degrees of freedom.
    assert ours["difference"] == pytest.approx(2.0)
    assert ours["half_width"] == pytest.approx(2.7764 * math.sqrt(0.75), abs=1e-3)


def test_times_are_ratios_on_one_gpu(store):
    for method, seconds in {"baseline": [100.0, 110.0], "mmel_h": [150.0, 165.0]}.items():
        for run, value in zip(reported("table3", "reduced", dataset="cola", method=method), seconds, strict=False):
            write_run(store, run, 40.0, train_seconds=value)
    other = reported("table3", "reduced", dataset="cola", method="mmel_s")[0]
    write_run(store, other, 40.0, train_seconds=1.0, device={"name": "a CPU", "threads": 2})
    both = found("table3", store, "reduced")
    ours = row(both, label="MMEL-H / Baseline", source="ours")
    assert ours["difference"] == pytest.approx(1.5)
    assert ours["low"] < 1.5 < ours["high"]
    # 31.8 h and 21.5 h, printed to one decimal.
    paper = row(both, label="MMEL-H / Baseline", source="paper")
    assert paper[["difference", "low", "high"]].tolist() == pytest.approx([31.8 / 21.5, 31.75 / 21.55, 31.85 / 21.45])
    assert paper["verdict"] == "opposed"
    assert set(both.loc[both["label"] == "MMEL-S / Baseline", "source"]) == {"paper"}


def test_convergence_is_the_mean_over_the_evaluations_of_a_run(store):
    write_scores(store, {("cola", "mmel_h"): [50.0, 51.0]}, history=[30.0, 50.0])
    write_scores(store, {("cola", "baseline"): [50.0, 51.0]}, history=[10.0, 50.0])
    ours = row(found("figure2", store, "reduced"), label="MMEL-H − Baseline, over training", source="ours")
    assert ours["difference"] == pytest.approx(10.0)


def test_a_pooled_test_has_a_stratum_per_task_and_counts_mnli_once(store):
    scores = {
        ("mnli", "mmel_h"): [46.0, 47.0, 48.0],
        ("mnli", "baseline"): [40.0, 41.0, 47.5],
        ("rte", "mmel_h"): [66.0, 67.0, 68.0],
        ("rte", "baseline"): [65.0, 66.5, 66.0],
    }
    write_scores(store, scores, "paper")
    tested = row(contrasts.pooled_tests(frames.load("table3", store, "paper")), label="MMEL-H − Baseline")
    expected = pooled([(scores[task, "mmel_h"], scores[task, "baseline"]) for task in ("mnli", "rte")])
    assert (tested["places"], tested["runs"]) == (2, 12)
    assert tuple(tested[["effect", "low", "high", "p"]]) == expected


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        (["supported", "undecided"], "supported"),
        (["supported", "undecided", "undecided"], "undecided"),
        (["supported", "opposed", "undecided"], "mixed"),
        (["opposed", "opposed", "undecided"], "opposed"),
        (["negligible", "undecided"], "negligible"),
        ([], "undecided"),
    ],
)
def test_one_word_for_a_claim(verdicts, word):
    assert overall(verdicts) == word


def test_the_papers_own_numbers_answer_without_any_run_of_ours(store):
    claims = contrasts.answers(store, "paper")
    over_uniform = claims[claims["primary"]].set_index(["table", "label"])
    expected = {"table1": ([5, 4], 8), "table3": ([6, 6], 9)}
    for name, (supported, places) in expected.items():
        mine = over_uniform.loc[name]
        assert mine["paper_supported"].tolist() == supported
        assert mine["paper_opposed"].tolist() == [0, 0]
        assert mine["paper_places"].tolist() == [places] * 2
    assert (claims["ours_places"] == 0).all()
    assert set(claims["agrees"]) == {None}
    assert claims["p"].isna().all()
    # "With over 0.5 points higher accuracy on all four architectures".
    more = claims[claims["words"].str.contains("0.5 points")]
    assert more["paper_supported"].tolist() == [7, 3]


def test_a_contrast_tells_the_error_of_its_evaluation_set(store):
    marks = {"mmel_h": {"dev": "1100", "dev_mm": "1111"}, "baseline": {"dev": "1001", "dev_mm": "1000"}}
    for method, correct in marks.items():
        for task in ("mnli", "cola"):
            run, *_ = reported("table3", "paper", dataset=task, method=method)
            write_run(store, run, 50.0, each=mismatched(run, 50.0), result={"correct": correct})
    ours = found("table3", store, "paper").query("label == 'MMEL-H − Baseline' and source == 'ours'")
    errors = ours.set_index("place")["set_error"]
    # Differences (0, 1, 0, -1) and (0, 1, 1, 1), a standard deviation of sqrt(2 / 3) and of 1/2 over a root of 4.
    assert errors["mnli"] == pytest.approx(100 * (2 / 3) ** 0.5 / 2)
    assert errors["mnli_mm"] == pytest.approx(25.0)
    # Shares of right answers make no Matthews correlation.
    assert np.isnan(errors["cola"])
    notes = answers.every_contrast(frames.load("table3", store, "paper"))["Note"]
    assert any(note == "single runs; set's error 25.00" for note in notes)


def test_weights_stand_beside_equal_ones(store):
    for run in reported("table1", "reduced", method="mmel_s"):
        write_run(store, run, 60.0, each={"weight_max": [1.0, 0.3 + run.seed / 10]})
    found = row(contrasts.weights(store, "reduced"), method="mmel_s")
    assert found[["num_weighted", "equal", "n"]].tolist() == [4, 0.25, 3]
    assert found["largest"] == pytest.approx(np.mean([0.3, 0.4, 0.5]))
