import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import matthews_corrcoef

from mmel.report.aggregate import (
    Contrast,
    contrast,
    contrast_from_summary,
    sampling_error,
    stratified_permutation_test,
)

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


@pytest.mark.parametrize("table", [[[220, 102], [90, 631]], [[30, 292], [10, 711]], [[200, 122], [300, 421]]])
def test_sampling_error_of_matthews_correlation(table):
    # Against the scatter over draws of such tables; CoLA's dev set has 1,043 examples, 322 of the first class.
    shares = np.array(table) / 1043
    draws = np.random.default_rng(0).multinomial(1043, shares.flatten(), size=1000)
    found = np.std([matthews_corrcoef([0, 0, 1, 1], [0, 1, 0, 1], sample_weight=draw) for draw in draws])
    error = sampling_error(np.nan, 1043, "matthews_pct", table)
    assert error == pytest.approx(100 * found, rel=0.08)
    assert 2 < error < 4


def test_matthews_correlation_of_one_class_alone_has_no_error():
    assert np.isnan(sampling_error(0.0, 1043, "matthews_pct", [[0, 322], [0, 721]]))
    assert sampling_error(100.0, 1043, "matthews_pct", [[322, 0], [0, 721]]) == pytest.approx(0.0, abs=1e-6)


def test_sampling_error_of_what_a_score_does_not_tell():
    assert np.isnan(sampling_error(50.0, 1043, "matthews_pct"))
    assert np.isnan(sampling_error(50.0, 3, "spearman_pct"))
