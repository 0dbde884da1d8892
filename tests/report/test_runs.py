import numpy as np
import pandas as pd
import pytest
from invented import mini_run, text_run, write_run

from mmel.config import RunConfig
from mmel.grids import table1, table3
from mmel.records import ResultsError, Store
from mmel.report.runs import curves, device_label, load_runs, seconds, summarize, usable

CELL = ["dataset", "model", "method", "num_augmented"]
A = RunConfig(dataset="digits", model="resnet8", augment="crop", method="mmel_h", num_augmented=5)
B = A.replace(method="baseline_da_uni")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def seeds_of(config, num):
    return [config.replace(seed=seed) for seed in range(num)]


# Records as a table.


def test_load_runs_has_a_row_for_every_configuration_in_order(store):
    one, two, three = seeds_of(A, 3)
    write_run(store, one, 95.0, train_seconds=7.0, device="some device", dirty=True)
    write_run(store, two, error="loss is nan")
    runs = load_runs(store, [three, two, one])
    assert runs["run_id"].tolist() == [three.run_id, two.run_id, one.run_id]
    assert runs["status"].tolist() == ["missing", "failed", "finished"]
    assert runs["seed"].tolist() == [2, 1, 0]
    assert runs["score"].isna().tolist() == [True, True, False]
    found = runs.iloc[2]
    assert found["score"] == 95.0
    assert found["metric"] == "accuracy_pct"
    assert found["train_seconds"] == 7.0
    assert found["device"] == "some device"
    assert found["num_eval"] == 360
    assert found["num_train"] == 1437
    assert bool(found["dirty"])
    assert not found["split_for_memory"]


def test_reads_the_last_epoch_and_the_best_apart(store):
    write_run(store, A, 95.0)
    path = store.run_path(A)
    path.write_text(path.read_text().replace('"best_accuracy_pct": 95.0', '"best_accuracy_pct": 96.5'))
    row = load_runs(store, [A]).iloc[0]
    assert (row["score"], row["best_score"]) == (95.0, 96.5)


def test_a_damaged_record_is_an_error_not_a_missing_run(store):
    write_run(store, A, 95.0)
    store.run_path(A).write_text("{")
    with pytest.raises(ResultsError, match=A.run_id):
        load_runs(store, [A])


def test_failed_missing_and_split_runs_are_left_out_of_means(store):
    configs = seeds_of(A, 6)
    write_run(store, configs[0], 90.0)
    write_run(store, configs[1], 92.0)
    write_run(store, configs[2], 10.0, micro_batch=32)
    write_run(store, configs[3], 20.0, error="loss is nan")
    write_run(store, configs[5], 97.0)
    runs = load_runs(store, configs)
    assert usable(runs)["seed"].tolist() == [0, 1, 5]
    row = summarize(runs, CELL).iloc[0]
    assert (row["num_runs"], row["num_planned"]) == (3, 6)
    assert row["mean"] == pytest.approx(93.0)


def test_load_runs_reads_what_only_texts_have(store):
    mnli, teacher = text_run("mnli", "mmel_h"), text_run("mnli", "baseline")
    write_run(store, mnli, 65.0, mm=64.0, test=63.0, test_mm=62.0)
    write_run(store, teacher, 61.0, mm=60.0, test=59.0, test_mm=58.0, sampled=["dev"])
    write_run(store, A, 95.0)
    first, second, image = load_runs(store, [mnli, teacher, A]).to_dict("records")
    scores = ["score", "best_score", "score_mm", "test_score", "test_score_mm"]
    assert [first[name] for name in scores] == [65.0, 65.0, 64.0, 63.0, 62.0]
    assert (first["metric"], first["num_train"], first["num_available"]) == ("accuracy_pct", 400, 400)
    assert (first["disagreement_pct"], first["dropout"], first["sampled"]) == (12.5, "0 / 0", False)
    # A baseline has no teacher.
    assert np.isnan(second["disagreement_pct"])
    assert second["sampled"] is True
    assert np.isnan([image[name] for name in scores[2:]]).all()
    assert pd.isna(image["dropout"])


@pytest.mark.parametrize(("task", "metric"), [("cola", "matthews_pct"), ("stsb", "spearman_pct")])
def test_a_text_is_judged_by_its_own_metric(store, task, metric):
    run = text_run(task, "mmel_h")
    write_run(store, run, history=[50.0, 47.0], test=41.0)
    row = load_runs(store, [run]).iloc[0]
    assert (row["metric"], row["score"], row["best_score"], row["test_score"]) == (metric, 47.0, 50.0, 41.0)
    assert np.isnan(row["score_mm"])


def test_f1_is_the_test_score_where_it_is_the_tasks(store):
    run = text_run("mrpc", "mmel_h")
    write_run(store, run, 70.0, test=82.0)
    assert '"test_f1_pct": 82.0' in store.run_path(run).read_text()
    assert load_runs(store, [run])["test_score"].tolist() == [82.0]


def test_a_subset_is_told_from_the_whole(store):
    run = next(run for run in table3("reduced") if run.dataset == "cola")
    write_run(store, run, 40.0)
    row = load_runs(store, [run]).iloc[0]
    assert (row["num_train"], row["num_available"], row["num_eval"]) == (run.train_size, 8551, 1043)


# Scores over training.


def test_curves_by_hand(store):
    first, second, third = seeds_of(text_run("cola", "mmel_h"), 3)
    other = text_run("stsb", "baseline")
    write_run(store, first, history=[10.0, 20.0, 31.0])
    write_run(store, second, history=[12.0, 26.0, 29.0])
    write_run(store, other, history=[50.0, 60.0, 70.0])
    found = curves(load_runs(store, [first, second, third, other]))
    assert found.columns.tolist() == ["dataset", "method", "metric", "epoch", "mean", "min", "max", "num_runs"]
    cola, stsb = ("grammar_cola", "mmel_h", "matthews_pct"), ("grammar_stsb", "baseline", "spearman_pct")
    assert list(found.itertuples(index=False, name=None)) == [
        (*cola, 1.0, 11.0, 10.0, 12.0, 2),
        (*cola, 2.0, 23.0, 20.0, 26.0, 2),
        (*cola, 3.0, 30.0, 29.0, 31.0, 2),
        (*stsb, 1.0, 50.0, 50.0, 50.0, 1),
        (*stsb, 2.0, 60.0, 60.0, 60.0, 1),
        (*stsb, 3.0, 70.0, 70.0, 70.0, 1),
    ]


def test_curves_leave_out_what_tables_leave_out(store):
    whole, failed, split = seeds_of(text_run("cola", "mmel_h"), 3)
    write_run(store, whole, history=[10.0, 20.0])
    write_run(store, failed, error="loss is nan")
    write_run(store, split, history=[90.0, 90.0], micro_batch=4)
    assert curves(load_runs(store, [whole, failed, split]))["mean"].tolist() == [10.0, 20.0]


def test_curves_of_nothing_are_an_empty_table(store):
    assert curves(load_runs(store, [text_run("cola", "mmel_h")])).empty


# Means and deviations.


def test_summarize_equals_numpy(store):
    generator = np.random.default_rng(0)
    values = {config: generator.normal(95, 1, size=n) for config, n in ((B, 5), (A, 4))}
    configs = []
    for config, accuracies in values.items():
        for run, accuracy in zip(seeds_of(config, 5), [*accuracies, None], strict=False):
            configs.append(run)
            if accuracy is not None:
                write_run(store, run, accuracy)
    summary = summarize(load_runs(store, configs), CELL)
    # In the grid's order, not the alphabet's: B first.
    assert summary.index.tolist() == [("digits", "resnet8", c.method, 5) for c in values]
    for (_, row), accuracies in zip(summary.iterrows(), values.values(), strict=True):
        assert row["mean"] == pytest.approx(np.mean(accuracies), rel=1e-12)
        assert row["std"] == pytest.approx(np.std(accuracies, ddof=1), rel=1e-12)
        assert row["num_runs"] == len(accuracies)
        assert row["num_planned"] == 5
        assert row["num_eval"] == 360


def test_one_run_has_no_deviation(store):
    write_run(store, A, 95.0)
    row = summarize(load_runs(store, [A]), CELL).iloc[0]
    assert row["mean"] == 95.0
    assert np.isnan(row["std"])


def test_a_cell_without_runs_is_kept(store):
    write_run(store, A, 95.0)
    summary = summarize(load_runs(store, [*seeds_of(B, 2), A]), CELL)
    assert summary["num_runs"].tolist() == [0, 1]
    assert summary["num_planned"].tolist() == [2, 1]
    assert np.isnan(summary["mean"].iloc[0])


def test_no_runs_at_all(store):
    summary = summarize(load_runs(store, table1("mini")), CELL)
    assert len(summary) == 10
    assert set(summary["num_runs"]) == {0}
    assert set(summary["num_planned"]) == {2}


# Times.


def test_times_on_different_devices_do_not_mix(store):
    for run, device, took in zip(seeds_of(A, 4), ("two", "one", "two", "two"), (9.0, 100.0, 10.0, 12.0), strict=True):
        write_run(store, run, 95.0, device=device, train_seconds=took)
    found = seconds(load_runs(store, seeds_of(A, 5)), ["method"])
    assert found.to_dict("index") == {
        ("mmel_h", "two", 0): {"seconds": 10.0, "num_runs": 3},
        ("mmel_h", "one", 0): {"seconds": 100.0, "num_runs": 1},
    }


def test_a_cpu_with_other_threads_is_another_device(store):
    for run, threads, took in zip(seeds_of(A, 3), (1, 2, 1), (10.0, 6.0, 14.0), strict=True):
        write_run(store, run, 95.0, device="Some(R) Chip(TM) Processor 7", threads=threads, train_seconds=took)
    found = seconds(load_runs(store, seeds_of(A, 3)), ["method"])
    assert found["seconds"].to_dict() == {("mmel_h", "Some Chip 7", 1): 12.0, ("mmel_h", "Some Chip 7", 2): 6.0}


def test_a_time_over_two_devices_is_none(store):
    for run, began, took in zip(seeds_of(A, 3), (None, "one", "two"), (10.0, 14.0, 90.0), strict=True):
        write_run(store, run, 95.0, device="one", resumed_from=began, train_seconds=took)
    runs = load_runs(store, seeds_of(A, 3))
    assert seconds(runs, ["method"]).to_dict("index") == {("mmel_h", "one", 0): {"seconds": 12.0, "num_runs": 2}}
    # Its score counts all the same.
    assert summarize(runs, ["method"])["num_runs"].tolist() == [3]


def test_several_processes_are_another_device(store):
    for run, processes in zip(seeds_of(A, 3), (None, 1, 4), strict=True):
        write_run(store, run, 95.0, device="GPU", processes=processes)
    assert seconds(load_runs(store, seeds_of(A, 3)), ["method"])["num_runs"].to_dict() == {
        ("mmel_h", "GPU", 0): 2,
        ("mmel_h", "4 x GPU", 0): 1,
    }


def test_device_labels():
    labels = [device_label("a cpu", threads) for threads in (0, 1, 2)]
    assert labels == ["a cpu", "a cpu, 1 thread", "a cpu, 2 threads"]


# Which evaluation, and which runs.


def test_the_best_evaluation_is_shown_where_it_is_asked_for(store):
    mnli = text_run("mnli", "mmel_h")
    write_run(store, mnli, history=[60.0, 70.0, 65.0], mm=[50.0, 51.0, 52.0], test=40.0)
    last, best = (load_runs(store, [mnli], select).iloc[0] for select in ("last", "best"))
    columns = ["select", "score", "best_score", "score_mm", "test_score"]
    assert last[columns].tolist() == ["last", 65.0, 70.0, 52.0, 40.0]
    # Of the test set there is the last evaluation alone.
    assert best[columns].tolist() == ["best", 70.0, 70.0, 51.0, 40.0]


def test_another_evaluation_is_refused(store):
    with pytest.raises(ValueError, match="select must be one of last, best, got 'first'"):
        load_runs(store, [A], "first")


def test_runs_split_for_memory_are_usable_where_they_are_asked_for(store):
    write_run(store, A, 90.0, micro_batch=32)
    assert usable(load_runs(store, [A])).empty
    assert len(usable(load_runs(store, [A], include_split=True))) == 1


def test_confusions_are_of_the_last_evaluation(store):
    run = text_run("cola", "mmel_h")
    write_run(store, run, history=[50.0, 40.0], confusion=[[50, 40], [10, 200]])
    assert load_runs(store, [run])["confusion"].tolist() == [[[50, 40], [10, 200]]]
    assert load_runs(store, [run], "best")["confusion"].isna().all()


def test_the_grid_has_the_runs_that_are_invented():
    assert mini_run("resnet8", "mmel_h", 5, 0) in table1("mini")
