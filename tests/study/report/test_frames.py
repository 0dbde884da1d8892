"""The numbers of tables on cases worked out by hand; whole tables are in test_golden."""

import numpy as np
import pytest
from invented import FROZEN, mismatched, reported, row, write_run

from mmel.study.needs import SELECTION_SEED
from mmel.study.records import Store
from mmel.study.report import frames
from mmel.study.report.contrasts import contrasts
from mmel.study.tables import TABLES


def frozen(name):
    return frames.load(name, Store(FROZEN), "mini")


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
            write_run(store, run, 80.0 + run.seed, each=mismatched(run, 70.0 + run.seed))
    found = frames.cells(frames.load("table3", store, "paper"))
    assert row(found, place="cola", arm="MMEL-H")[["mean", "sd", "n"]].tolist() == [81.0, 1.0, 3]
    # (8 * 80 + 70) / 9 and one point more.
    average = row(found, place="avg", arm="MMEL-H")
    assert average[["mean", "sd", "n"]].tolist() == pytest.approx([710 / 9 + 0.5, 0.5**0.5, 2])
    # A grid that lacks a column has none.
    assert "avg" not in set(frames.cells(frames.load("table3", store, "reduced"))["place"])


def test_test_scores_are_of_miniatures_alone(store):
    assert not frames.cells(frozen("table3"), "test").empty
    assert frames.cells(frames.load("table3", store, "reduced"), "test").empty


@pytest.mark.parametrize("name", ["table3", "table4", "table6", "figure2"])
def test_runs_that_choose_a_hyperparameter_are_never_shown(store, name):
    for run in TABLES[name].runs("paper"):
        if run.seed == SELECTION_SEED and run.dataset == "cola":
            write_run(store, run, 99.0)
    assert set(frames.load(name, store, "paper").runs["status"]) == {"missing"}


def test_runs_of_another_encoder_are_a_table_of_their_own(monkeypatch, store):
    write_run(store, TABLES["table3"].reported("reduced", "some/bert")[0], 40.0)
    for name, number in (("", 0), ("some/bert", 1)):
        monkeypatch.setenv("MMEL_TEXT_MODEL", name)
        assert (frames.load("table3", store, "reduced").runs["status"] == "finished").sum() == number


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


def test_times_on_a_cpu_are_no_cost(store):
    for method, device in (("baseline_da", {"name": "gpu"}), ("mmel_h", {"name": "cpu", "threads": 1})):
        (run,) = reported("table1", "mini", model="resnet8", method=method, seed=0)
        write_run(store, run, 95.0, device=device)
    found = frames.times(frames.load("table1", store, "mini"))
    assert found["device"].tolist() == ["gpu"]


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


@pytest.mark.parametrize("name", ["table1", "table3"])
def test_a_method_that_the_paper_has_not_stands_in_our_rows_alone(monkeypatch, name):
    printed = frames.paper_table(name).query("method != 'baseline_da_uni'")
    monkeypatch.setattr(frames, "paper_table", lambda name: printed)
    times = frames.times(frozen(name)).set_index("arm")
    assert times.loc["Baseline(DA+UNI)", "paper_ratio"].isna().all()
    found = contrasts(frozen(name))
    assert set(found.loc[found["label"].str.contains("UNI"), "source"]) == {"ours"}
