"""The numbers of tables on cases worked out by hand; whole tables are in test_golden."""

import numpy as np
import pytest
from invented import FROZEN, mini_run, reported, row, write_run

from mmel.study.needs import SELECTION_SEED
from mmel.study.records import Store
from mmel.study.report import frames
from mmel.study.report.statistics import stratified_permutation_test, welch
from mmel.study.tables import TABLES


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def frozen(name):
    return frames.load(name, Store(FROZEN), "mini")


def write_reduced(store, scores):
    """Record reduced runs of Table 3: (task, method) -> one score per seed."""
    for (task, method), values in scores.items():
        for run, value in zip(reported("table3", "reduced", dataset=task, method=method), values, strict=False):
            write_run(store, run, value)


# Cells.


def test_a_cell_is_mean_sample_deviation_and_number_of_runs(store):
    values = [93.0, 94.5, 91.2]
    for run, value in zip(reported("table1", "reduced", method="baseline_da"), values, strict=True):
        write_run(store, run, value)
    found = frames.cells(frames.load("table1", store, "reduced"))
    cell = row(found, arm="Baseline(DA)")
    assert cell[["mean", "sd", "n", "planned"]].tolist() == pytest.approx(
        [np.mean(values), np.std(values, ddof=1), 3, 3]
    )
    # Planned cells without a run are kept.
    assert row(found, arm="MMEL-H")[["n", "planned"]].tolist() == [0, 3]
    assert found["mean"].isna().sum() == 4


def test_avg_is_over_the_seeds_that_have_all_nine_columns(store):
    for run in reported("table3", "paper", method="mmel_h"):
        # Seed 2 lacks RTE.
        if run.seed < (2 if run.dataset == "rte" else 3):
            write_run(store, run, 80.0 + run.seed, mm=70.0 + run.seed if run.dataset == "mnli" else None)
    found = frames.cells(frames.load("table3", store, "paper"))
    assert row(found, place="cola", arm="MMEL-H")[["mean", "sd", "n"]].tolist() == [81.0, 1.0, 3]
    # (8 * 80 + 70) / 9 and one point more.
    average = row(found, place="avg", arm="MMEL-H")
    assert average[["mean", "sd", "n"]].tolist() == pytest.approx([710 / 9 + 0.5, 0.5**0.5, 2])


def test_avg_is_shown_only_if_all_nine_columns_are_in_the_grid(store):
    assert "avg" not in set(frames.cells(frames.load("table3", store, "reduced"))["place"])


def test_test_scores_are_of_miniatures_alone(store):
    # MRPC's test score is F1, and not the dev accuracy.
    found = frames.cells(frozen("table3"), "test")
    assert row(found, place="mrpc", arm="MMEL-H")["mean"] == 84.0
    assert row(found, place="mnli_mm", arm="MMEL-H")["mean"] == 66.0
    assert frames.cells(frames.load("table3", store, "reduced"), "test").empty


@pytest.mark.parametrize("name", ["table3", "table4", "table6", "figure2"])
def test_runs_that_choose_a_hyperparameter_are_never_shown(store, name):
    for run in TABLES[name].runs("paper"):
        if run.seed == SELECTION_SEED and run.dataset == "cola":
            write_run(store, run, 99.0)
    assert set(frames.load(name, store, "paper").runs["status"]) == {"missing"}


def test_runs_of_another_encoder_are_a_table_of_their_own(store):
    write_run(store, TABLES["table3"].reported("reduced", "some/bert")[0], 40.0)
    for name, number in ((None, 0), ("some/bert", 1)):
        assert (frames.load("table3", store, "reduced", name).runs["status"] == "finished").sum() == number


# Contrasts.


def test_contrasts_are_welchs_with_the_papers_beside(store):
    better, worse = [46.0, 46.5, 47.0], [40.0, 41.0, 40.5]
    write_reduced(store, {("cola", "mmel_h"): better, ("cola", "baseline"): worse, ("cola", "mmel_s"): worse[:1]})
    found = frames.contrasts(frames.load("table3", store, "reduced"))
    cell = row(found, place="cola", claim="MMEL-H − Baseline")
    # Both deviations are 0.5: standard error 0.40825, 4 degrees of freedom, t = 2.7764.
    assert cell[["difference", "low", "high"]].tolist() == pytest.approx([6.0, 6 - 1.1335, 6 + 1.1335], abs=1e-4)
    assert (cell["n_a"], cell["n_b"], cell["verdict"]) == (3, 3, "supported")
    # 62.1 ± 0.55 and 59.7 ± 0.61, five runs each.
    paper = welch(62.1, 0.55, 5, 59.7, 0.61, 5)
    assert cell[["paper_difference", "paper_low", "paper_high"]].tolist() == pytest.approx(list(paper[:3]))
    alone = row(found, place="cola", claim="MMEL-S − Baseline")
    assert alone["verdict"] == "undecided"
    assert np.isnan(alone["low"])
    # Baseline(DA+Long) is not in this grid.
    assert not found["claim"].str.contains("Long").any()


def test_on_another_data_set_the_papers_range_stands_in():
    cell = row(frames.contrasts(frozen("table2")), claim="MMEL-S-20 − MMEL-S-10")
    assert np.isnan(cell["paper_difference"])
    # ResNet-32 on CIFAR-100 loses most, 72.57 - 72.00.
    assert cell[["paper_min", "paper_max", "paper_places"]].tolist() == pytest.approx([-0.57, 0.08, 8])


def test_claims_about_all_settings_are_means_over_pairs():
    found = frames.over_pairs(frames.contrasts(frozen("table6")))
    cell = row(found, place="cola", claim="MMEL-H, beam − greedy")
    # 43 - 45 and 47 - 46; the paper's separate rows 60.0 - 60.2 and 60.8 - 62.8.
    assert cell[["ours", "ours_above", "ours_pairs"]].tolist() == pytest.approx([-0.5, 1, 2])
    assert cell[["paper", "paper_above", "paper_pairs"]].tolist() == pytest.approx([-1.1, 0, 2])
    cell = row(found, place="rte", claim="MMEL-H, separate − joint")
    # One of four pairs is recorded: 65 - 64. The paper's four on RTE: 2.2, 0.0, 0.7 and -0.1.
    assert cell[["ours", "ours_pairs", "paper", "paper_above"]].tolist() == pytest.approx([1.0, 1, 0.7, 2])
    # A single sentence is joined with nothing.
    assert not found.loc[found["place"] == "cola", "claim"].str.contains("joint").any()


# One test over all places.


def test_a_claim_over_all_tasks_is_stratified_by_task(store):
    scores = {
        ("cola", "mmel_h"): [46.0, 47.0, 48.0],
        ("cola", "baseline"): [40.0, 41.0, 47.5],
        ("rte", "mmel_h"): [66.0, 67.0, 68.0],
        ("rte", "baseline"): [65.0, 66.5, 66.0],
        ("mrpc", "mmel_h"): [80.0],
        ("mrpc", "baseline"): [70.0, 71.0, 72.0],
    }
    write_reduced(store, scores)
    tests = frames.claim_tests(frames.load("table3", store, "reduced"))
    found = row(tests, claim="MMEL-H − Baseline")
    strata = [(scores[task, "mmel_h"], scores[task, "baseline"]) for task in ("cola", "rte")]
    # (47 - 42.8333 + 67 - 65.8333) / 2.
    assert found[["places", "runs", "difference"]].tolist() == pytest.approx([2, 12, 2.6667], abs=1e-4)
    assert found["p"] == stratified_permutation_test(strata)
    assert found["left_out"] == {"mrpc": (1, 3), "stsb": (0, 0)}
    untested = row(tests, claim="MMEL-H − Baseline(DA+Long)")
    assert (untested["places"], untested["left_out"]["cola"]) == (0, (3, 0))
    assert np.isnan(untested["p"])


def test_mnli_counts_once(store):
    for method in ("mmel_h", "baseline"):
        for run in reported("table3", "paper", dataset="mnli", method=method)[:3]:
            write_run(store, run, 80.0 + run.seed, mm=10.0)
    found = row(frames.claim_tests(frames.load("table3", store, "paper")), claim="MMEL-H − Baseline")
    assert (found["places"], found["runs"], found["difference"]) == (1, 6, 0.0)


# Times.


def test_times_are_medians_compared_on_one_device_alone(store):
    took = {"baseline": {"a": [100.0, 102.0], "b": [10.0]}, "mmel_h": {"a": [300.0], "b": [40.0, 44.0]}}
    for method, by_device in took.items():
        pairs = [(device, value) for device, values in by_device.items() for value in values]
        runs = reported("table3", "reduced", dataset="cola", method=method)
        for run, (device, value) in zip(runs, pairs, strict=True):
            write_run(store, run, 40.0, device={"name": device}, train_seconds=value)
    lonely = reported("table3", "reduced", dataset="rte", method="mmel_s")[0]
    write_run(store, lonely, 40.0, device={"name": "c"}, train_seconds=9.0)
    table = frames.load("table3", store, "reduced")
    found = frames.times(table).set_index(["arm", "device"])
    assert found["seconds"].to_dict() == {
        ("Baseline", "a"): 101.0,
        ("Baseline", "b"): 10.0,
        ("MMEL-H", "a"): 300.0,
        ("MMEL-H", "b"): 42.0,
        ("MMEL-S", "c"): 9.0,
    }
    assert found["baseline_seconds"].tolist()[:4] == [101.0, 10.0, 101.0, 10.0]
    assert np.isnan(found["baseline_seconds"]["MMEL-S", "c"])
    # 31.8 h and 21.5 h.
    assert found["paper_ratio"]["MMEL-H", "a"] == pytest.approx(31.8 / 21.5)
    total = frames.total_times(table)
    # On b, where MMEL-H has most of its runs.
    assert total.loc["MMEL-H"].tolist() == [42.0, 10.0, 1]
    assert "MMEL-S" not in total.index


def test_a_cpu_with_other_threads_is_another_device(store):
    for cell, seconds, threads in (
        (("resnet8", "baseline_da", 1, 0), 10.0, 1),
        (("resnet8", "baseline_da", 1, 1), 4.0, 2),
        (("resnet8", "mmel_h", 5, 0), 50.0, 1),
    ):
        write_run(store, mini_run(*cell), 95.0, train_seconds=seconds, device={"name": "cpu", "threads": threads})
    found = frames.times(frames.load("table1", store, "mini"))
    assert row(found, arm="MMEL-H")[["threads", "baseline_seconds"]].tolist() == [1, 10.0]


def test_the_papers_hours_stand_beside_images_of_the_same_cell(store):
    for run in reported("table1", "paper", dataset="cifar100", model="resnet56", seed=0):
        write_run(store, run, 70.0)
    found = frames.times(frames.load("table1", store, "paper")).set_index("arm")
    assert found["paper_hours"].tolist() == [1.1, 10.6, 7.0, 7.0, 7.0]
    assert found["paper_ratio"]["MMEL-H"] == pytest.approx(7.0 / 1.1)


# Scores over training.


def test_curves_are_mean_and_range_over_seeds(store):
    runs = reported("figure2", "reduced", dataset="cola", method="mmel_h")
    write_run(store, runs[0], history=[10.0, 20.0, 31.0])
    write_run(store, runs[1], history=[12.0, 26.0, 29.0])
    write_run(store, runs[2], error="loss is nan")
    found = frames.curves(frames.load("figure2", store, "reduced"))
    # Two evaluations per epoch.
    assert found[["epoch", "mean", "min", "max", "num_runs"]].to_numpy().tolist() == [
        [0.5, 11.0, 10.0, 12.0, 2],
        [1.0, 23.0, 20.0, 26.0, 2],
        [1.5, 30.0, 29.0, 31.0, 2],
    ]
    assert frames.curves(frames.load("figure2", store, "paper")).empty


def test_a_method_that_the_paper_has_not_stands_in_our_rows_alone(monkeypatch):
    whole = frames.paper_table
    without = {name: whole(name).query("method != 'baseline_da_uni'") for name in ("table1", "table3")}
    monkeypatch.setattr(frames, "paper_table", without.get)
    for name in ("table1", "table3"):
        assert "Baseline(DA+UNI)" in set(frames.cells(frozen(name))["arm"])
        times = frames.times(frozen(name)).set_index("arm")
        assert times.loc["Baseline(DA+UNI)", "paper_ratio"].isna().all()
        found = frames.contrasts(frozen(name))
        assert found["claim"].str.contains("UNI").any()
        assert found.loc[found["claim"].str.contains("UNI"), "paper_difference"].isna().all()
