import numpy as np
from invented import mismatched, reported, write_run

from mmel.study.config import ImageRun
from mmel.study.report.runs import finished, load_runs

A = ImageRun(dataset="digits", model="resnet8", augment="crop", method="mmel_h", num_augmented=5)


def test_a_row_for_every_configuration_in_order(store):
    one, two, three = (A.replace(seed=seed) for seed in range(3))
    write_run(store, one, 95.0, train_seconds=7.0, device={"name": "some device"}, dirty=True)
    write_run(store, two, error="loss is nan")
    runs = load_runs(store, [three, two, one])
    assert runs["run_id"].tolist() == [three.run_id, two.run_id, one.run_id]
    assert runs["status"].tolist() == ["missing", "failed", "finished"]
    assert runs["score"].isna().tolist() == [True, True, False]
    assert finished(runs)["seed"].tolist() == [0]
    expected = {"score": 95.0, "metric": "accuracy_pct", "train_seconds": 7.0, "device": "some device", "num_eval": 360}
    assert runs.iloc[2][list(expected)].to_dict() == expected


def test_the_last_evaluation_counts_and_the_best_is_told_apart(store):
    (mnli,) = reported("table3", "mini", dataset="grammar_mnli", method="mmel_h")
    tests = {"test_accuracy_pct": 40.0, "test_accuracy_mm_pct": 39.0}
    write_run(store, mnli, history=[60.0, 70.0, 65.0], each=mismatched(mnli, [50.0, 51.0, 52.0]), result=tests)
    found = load_runs(store, [mnli]).iloc[0]
    assert found[["score", "best_score", "score_mm", "test_score", "test_score_mm"]].tolist() == [65, 70, 52, 40, 39]
    assert found["history"] == [(1, 60.0), (2, 70.0), (3, 65.0)]


def test_a_text_is_judged_by_its_own_metric(store):
    run = reported("table3", "reduced", dataset="cola", method="mmel_h")[0]
    write_run(store, run, 47.0, result={"test_matthews_pct": 41.0})
    found = load_runs(store, [run]).iloc[0]
    assert (found["metric"], found["score"], found["test_score"]) == ("matthews_pct", 47.0, 41.0)
    assert np.isnan(found["score_mm"])
    # A subset is told from the whole.
    assert (found["num_train"], found["num_available"], found["num_eval"]) == (run.train_size, 8551, 1043)


def test_a_device_is_named_with_its_threads_and_number(store):
    runs = [A.replace(seed=seed) for seed in range(3)]
    write_run(store, runs[0], 95.0, device={"name": "Some(R) Chip(TM) Processor 7", "threads": 2})
    write_run(store, runs[1], 95.0, device={"name": "GPU"}, processes=4)
    # The time of a run on two devices is of neither.
    write_run(store, runs[2], 95.0, device={"name": "GPU"}, resumed_from=[{"device": {"name": "another GPU"}}])
    found = load_runs(store, runs)
    assert found[["device", "threads"]].to_numpy().tolist() == [["Some Chip 7", 2], ["4 x GPU", 0], ["GPU", 0]]
    assert found["train_seconds"].isna().tolist() == [False, False, True]
