import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from invented import mini_run, text_run, write_run
from scipy import stats

from mmel.config import RunConfig
from mmel.grids import table1, table3
from mmel.records import ResultsError, Store
from mmel.report import aggregate
from mmel.report.aggregate import (
    Contrast,
    contrast,
    contrast_from_summary,
    load_runs,
    sampling_error,
    stratified_permutation_test,
    summarize,
    usable,
)

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
    found = aggregate.curves(store, [first, second, third, other])
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
    assert aggregate.curves(store, [whole, failed, split])["mean"].tolist() == [10.0, 20.0]


def test_curves_of_nothing_are_an_empty_table(store):
    for configs in ([], [text_run("cola", "mmel_h")]):
        assert aggregate.curves(store, configs).empty


# Means and deviations.


def test_summarize_equals_numpy(store):
    generator = np.random.default_rng(0)
    values = {config: generator.normal(95, 1, size=n) for config, n in ((B, 5), (A, 4))}
    configs = []
    for config, accuracies in values.items():
        for run, accuracy in zip(seeds_of(config, 5), [*accuracies, None], strict=False):
            configs.append(run)
            if accuracy is not None:
                write_run(store, run, accuracy, train_seconds=10.0 + run.seed**2)
    summary = summarize(load_runs(store, configs), CELL)
    # In the grid's order, not the alphabet's: B first.
    assert summary.index.tolist() == [("digits", "resnet8", c.method, 5) for c in values]
    for (_, row), accuracies in zip(summary.iterrows(), values.values(), strict=True):
        assert row["mean"] == pytest.approx(np.mean(accuracies), rel=1e-12)
        assert row["std"] == pytest.approx(np.std(accuracies, ddof=1), rel=1e-12)
        assert row["num_runs"] == len(accuracies)
        assert row["num_planned"] == 5
        assert row["num_eval"] == 360
        assert row["train_seconds"] == np.median([10.0 + seed**2 for seed in range(len(accuracies))])


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


def test_devices_of_a_cell_are_named_together(store):
    for run, device in zip(seeds_of(A, 3), ("two", "one", "two"), strict=True):
        write_run(store, run, 95.0, device=device)
    assert summarize(load_runs(store, seeds_of(A, 3)), CELL)["device"].tolist() == ["one / two"]


# Contrasts.

SAMPLES = [
    ([97.0, 98.0, 99.0], [95.0, 96.0, 97.0]),
    ([93.16, 93.2, 93.1, 93.15, 93.18], [93.0, 92.8, 93.2, 93.1, 92.9]),
    ([70.0, 71.5], [68.0, 69.0, 70.0, 60.0]),
    ([50.0, 50.0], [51.0, 52.0]),
]
each_sample = pytest.mark.parametrize(("first", "second"), SAMPLES)


@each_sample
def test_contrast_equals_scipys_welch(first, second):
    found = contrast(first, second)
    with warnings.catch_warnings():
        # scipy warns of runs that are all alike.
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert (found.num_first, found.num_second) == (len(first), len(second))


@each_sample
def test_contrast_equals_the_textbook(first, second):
    v1, v2 = (sum((x - sum(s) / len(s)) ** 2 for x in s) / (len(s) - 1) / len(s) for s in (first, second))
    freedom = (v1 + v2) ** 2 / (v1**2 / (len(first) - 1) + v2**2 / (len(second) - 1))
    half = stats.t.ppf(0.975, freedom) * (v1 + v2) ** 0.5
    difference = sum(first) / len(first) - sum(second) / len(second)
    found = contrast(first, second)
    assert (found.low, found.high) == pytest.approx((difference - half, difference + half), rel=1e-9)


def test_contrast_by_hand():
    # Equal variances of 1, three runs each: 4 degrees of freedom, t = 2.776, standard error sqrt(2/3).
    found = contrast([97.0, 98.0, 99.0], [95.0, 96.0, 97.0])
    assert (found.difference, found.low, found.high) == pytest.approx((2.0, 2 - 2.2669, 2 + 2.2669), abs=1e-4)


def test_contrast_covers_the_true_difference_as_often_as_it_says():
    generator = np.random.default_rng(0)
    num, covered = 800, 0
    for first, second in zip(
        generator.normal(1, 0.5, size=(num, 3)), generator.normal(0, 1.5, size=(num, 5)), strict=True
    ):
        found = contrast(first, second)
        covered += found.low < 1 < found.high
    # 0.95 give or take four standard errors of 0.0077.
    assert 0.919 < covered / num < 0.981


@each_sample
def test_contrast_from_summary_equals_contrast(first, second):
    cells = [
        pd.Series({"mean": np.mean(sample), "std": np.std(sample, ddof=1), "num_runs": float(len(sample))})
        for sample in (first, second)
    ]
    found, expected = contrast_from_summary(*cells), contrast(first, second)
    assert (found.difference, found.low, found.high) == pytest.approx(
        (expected.difference, expected.low, expected.high), rel=1e-9
    )
    assert (found.num_first, found.num_second) == (len(first), len(second))


def test_contrast_from_summary_without_a_deviation_has_no_interval():
    # The paper's Baseline(DA+Long) is one run.
    five = pd.Series({"mean": 94.70, "std": 0.14, "num_runs": 5})
    one = pd.Series({"mean": 94.11, "std": np.nan, "num_runs": 1})
    for found, difference in ((contrast_from_summary(five, one), 0.59), (contrast_from_summary(one, five), -0.59)):
        assert found.difference == pytest.approx(difference)
        assert np.isnan([found.low, found.high]).all()
        assert found.verdict == "undecided"


def test_runs_that_are_alike_on_one_side_bring_no_warning():
    # On a few hundred test images two seeds often tie. A notebook would show the warning in the report.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert contrast([95.0, 95.0], [96.0, 97.0]).verdict == "undecided"


@pytest.mark.parametrize(("first", "second"), [(51.0, 50.0), (50.0, 51.0)])
def test_runs_without_any_scatter_are_judged_alike_from_data_and_from_print(first, second):
    cells = [pd.Series({"mean": mean, "std": 0.0, "num_runs": 2}) for mean in (first, second)]
    assert contrast([first] * 2, [second] * 2).verdict == contrast_from_summary(*cells).verdict


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([97.0, 97.1, 97.2], [95.0, 95.1, 95.2], "holds"),
        ([95.0, 95.1, 95.2], [97.0, 97.1, 97.2], "contradicted"),
        ([97.0, 95.0, 96.0], [95.0, 97.0, 96.1], "undecided"),
        # A large difference, but two runs a side that scatter as much.
        ([97.0, 93.0], [92.0, 90.0], "undecided"),
        # One run a side decides nothing, however far apart they are.
        ([99.0], [10.0], "undecided"),
        ([99.0], [10.0, 10.1, 10.2], "undecided"),
        ([99.0, 99.1, 99.2], [10.0], "undecided"),
        ([95.0, 95.0], [95.0, 95.0], "undecided"),
    ],
)
def test_verdicts(first, second, verdict):
    found = contrast(first, second)
    assert found.verdict == verdict
    if min(len(first), len(second)) == 1:
        assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 0.0)])
def test_an_interval_that_touches_zero_is_undecided(low, high):
    assert Contrast(0.5, low, high, 2, 2).verdict == "undecided"


# One test over several models.


def exact_p(strata):
    """The share of all ways to label the runs within strata that are at least as extreme as what was seen."""
    per_stratum = []
    for first, second in strata:
        pooled = [*first, *second]
        splits = []
        for chosen in itertools.combinations(range(len(pooled)), len(first)):
            ours = [pooled[i] for i in chosen]
            theirs = [pooled[i] for i in range(len(pooled)) if i not in chosen]
            splits.append(sum(ours) / len(ours) - sum(theirs) / len(theirs))
        per_stratum.append(splits)
    observed = sum(np.mean(first) - np.mean(second) for first, second in strata)
    everything = [sum(differences) for differences in itertools.product(*per_stratum)]
    return np.mean([abs(total) >= abs(observed) - 1e-9 for total in everything])


@pytest.mark.parametrize(
    "strata",
    [
        [([3.0, 4.0], [1.0, 2.0])],
        [([97.0, 98.0, 95.5], [95.0, 96.0, 97.5])],
        [([97.0, 98.0], [95.0, 96.0]), ([50.0, 51.0], [50.5, 49.0])],
        # Sides and strata of different sizes, with ties.
        [([97.0, 98.0, 97.5], [95.0, 97.0]), ([50.0], [50.5, 49.0, 48.0]), ([70.0, 70.0], [70.0, 71.0])],
    ],
    ids=["2 + 2", "3 + 3", "two strata", "uneven"],
)
def test_permutation_test_equals_enumeration(strata):
    expected, num = exact_p(strata), 20_000
    found = stratified_permutation_test(strata, num_resamples=num)
    # Four standard errors of the draw, and the one that counts the data itself.
    tolerance = 4 * (expected * (1 - expected) / num) ** 0.5 + 1 / num
    assert found == pytest.approx(expected, rel=0, abs=tolerance)


def test_permutation_test_sees_a_clear_shift_in_either_direction():
    generator = np.random.default_rng(0)
    strata = [(generator.normal(2, 1, size=5), generator.normal(0, 1, size=5)) for _ in range(4)]
    p = stratified_permutation_test(strata)
    assert p < 0.001
    # Two-sided: exchanging the methods changes the sign alone.
    mirrored = stratified_permutation_test([(second, first) for first, second in strata])
    assert mirrored == pytest.approx(p, abs=0.001)


def test_permutation_test_is_uniform_under_the_null():
    generator = np.random.default_rng(1)

    def stratum(mean, std, num_first, num_second):
        return generator.normal(mean, std, size=num_first), generator.normal(mean, std, size=num_second)

    p = [
        stratified_permutation_test([stratum(0, 1, 3, 4), stratum(9, 2, 4, 3)], num_resamples=400, seed=seed)
        for seed in range(400)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    # At most as many false alarms as promised, give or take four standard errors.
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 4 * (0.05 * 0.95 / 400) ** 0.5


def test_strata_are_not_pooled():
    # The second model is far better, and mostly the first method ran on it; within a model the methods do not differ.
    # Means over all runs would differ by twenty points.
    strata = [
        ([50.0, 52.0], [51.0, 50.5, 51.5, 50.8, 51.2, 51.0]),
        ([91.0, 90.5, 91.5, 90.8, 91.2, 91.0], [90.0, 92.0]),
    ]
    assert stratified_permutation_test(strata) > 0.9


def test_labels_never_cross_strata():
    # A small but steady effect inside models that are far apart. Were labels exchanged across models, the distance
    # between them would drown it.
    strata = [
        ([level + 1.0, level + 1.1, level + 1.2], [level, level + 0.1, level + 0.2]) for level in (10.0, 50.0, 90.0)
    ]
    # Each stratum has 20 labellings, of which one is as extreme.
    assert exact_p(strata) == pytest.approx(2 / 20**3)
    assert stratified_permutation_test(strata) < 0.002


def test_permutation_test_is_reproducible_and_never_zero():
    strata = [([9.0, 9.1, 9.2, 9.3, 9.4, 9.5], [1.0, 1.1, 1.2, 1.3, 1.4, 1.5])] * 3
    assert stratified_permutation_test(strata, num_resamples=99) == 1 / 100
    other = [([1.0, 2.0, 4.0], [1.5, 2.5, 1.0])]
    assert stratified_permutation_test(other, seed=3) == stratified_permutation_test(other, seed=3)
    assert stratified_permutation_test(other, seed=3) != stratified_permutation_test(other, seed=4)


def test_identical_runs_are_no_evidence():
    assert stratified_permutation_test([([95.0, 95.0], [95.0, 95.0])]) == 1.0


# The test set's own error.


def test_sampling_error():
    # RTE's 277 development examples.
    assert sampling_error(71.0, 277) == pytest.approx(2.7, abs=0.05)
    assert sampling_error(50.0, 100) == pytest.approx(5.0)
    assert sampling_error(100.0, 360) == 0.0


def test_sampling_error_is_the_deviation_of_a_binomial():
    draws = np.random.default_rng(0).binomial(10_000, 0.93, size=20_000) / 100
    assert sampling_error(93.0, 10_000) == pytest.approx(draws.std(), rel=0.03)


def test_sampling_error_of_a_rank_correlation():
    # Bivariate normal pairs with a rank correlation of about 0.8.
    generator = np.random.default_rng(0)
    pairs = generator.multivariate_normal([0, 0], [[1, 0.813], [0.813, 1]], size=(3000, 200))
    first, second = np.moveaxis(pairs.argsort(axis=1).argsort(axis=1) - 99.5, 2, 0)
    found = (first * second).sum(axis=1) / (first**2).sum(axis=1)
    assert 100 * found.std() == pytest.approx(sampling_error(100 * found.mean(), 200, "spearman_pct"), rel=0.06)


def test_sampling_error_of_what_a_score_does_not_tell():
    assert np.isnan(sampling_error(50.0, 1043, "matthews_pct"))
    assert np.isnan(sampling_error(50.0, 3, "spearman_pct"))


def test_the_grid_has_the_runs_that_are_invented():
    assert mini_run("resnet8", "mmel_h", 5, 0) in table1("mini")


def test_a_cpu_with_other_threads_is_another_device():
    names = [aggregate._device({"type": "cpu", "name": "a cpu", "threads": n}) for n in (1, 2)]
    assert names == ["a cpu, 1 thread", "a cpu, 2 threads"]
