import itertools
import warnings

import numpy as np
import pytest
from scipy import stats

from mmel.study.report.statistics import sampling_error, stratified_permutation_test, welch

SAMPLES = [
    ([97.0, 98.0, 99.0], [95.0, 96.0, 97.0]),
    ([93.16, 93.2, 93.1, 93.15, 93.18], [93.0, 92.8, 93.2, 93.1, 92.9]),
    ([70.0, 71.5], [68.0, 69.0, 70.0, 60.0]),
    # One side without scatter, as two seeds on a small test set often are.
    ([50.0, 50.0], [51.0, 52.0]),
]


def summary(sample):
    return np.mean(sample), np.std(sample, ddof=1) if len(sample) > 1 else np.nan, len(sample)


# Welch's contrast.


def test_welch_by_hand():
    # Equal variances of 1, three runs each: standard error sqrt(2/3), 4 degrees of freedom, t(0.975) = 2.776; the
    # test statistic 2 / 0.8165 = 2.449 has p = 0.0705 there.
    found = welch(98.0, 1.0, 3, 96.0, 1.0, 3)
    assert found == pytest.approx((2.0, 2 - 2.2669, 2 + 2.2669, 0.0705), abs=1e-4)


@pytest.mark.parametrize(("first", "second"), SAMPLES)
def test_welch_equals_scipys(first, second):
    found = welch(*summary(first), *summary(second))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = stats.ttest_ind(first, second, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found == pytest.approx((np.mean(first) - np.mean(second), *interval, expected.pvalue), rel=1e-9)


def test_welch_of_columns_is_welch_of_each_row():
    columns = zip(*(summary(sample) for sample in (first for first, _ in SAMPLES)), strict=True)
    others = zip(*(summary(second) for _, second in SAMPLES), strict=True)
    found = np.array(welch(*map(np.array, columns), *map(np.array, others))).T
    expected = [welch(*summary(first), *summary(second)) for first, second in SAMPLES]
    assert found == pytest.approx(np.array(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [([99.0], [10.0]), ([99.0], [10.0, 10.1, 10.2]), ([94.0, 94.1], [95.0]), ([95.0, 95.0], [94.0, 94.0])],
)
def test_without_scatter_there_is_a_difference_and_no_interval(first, second):
    with warnings.catch_warnings():
        # A notebook would show the warning in the report.
        warnings.simplefilter("error")
        difference, *rest = welch(*summary(first), *summary(second))
    assert difference == pytest.approx(np.mean(first) - np.mean(second))
    assert np.isnan(rest).all()


# One test over several models.


def exact_p(strata):
    """The share of all ways to label the runs within strata that are at least as extreme as the data."""
    per_stratum = []
    for first, second in strata:
        pooled = np.array([*first, *second])
        chosen = [list(index) for index in itertools.combinations(range(len(pooled)), len(first))]
        per_stratum.append([pooled[one].mean() - np.delete(pooled, one).mean() for one in chosen])
    observed = sum(np.mean(first) - np.mean(second) for first, second in strata)
    return np.mean([abs(sum(each)) >= abs(observed) - 1e-9 for each in itertools.product(*per_stratum)])


@pytest.mark.parametrize(
    "strata",
    [
        [([3.0, 4.0], [1.0, 2.0])],
        [([97.0, 98.0], [95.0, 96.0]), ([50.0, 51.0], [50.5, 49.0])],
        # Sides and strata of different sizes, with ties.
        [([97.0, 98.0, 97.5], [95.0, 97.0]), ([50.0], [50.5, 49.0, 48.0]), ([70.0, 70.0], [70.0, 71.0])],
        # The second model is far better, and mostly the first method ran on it: strata are not pooled.
        [([50.0, 52.0], [51.0, 50.5, 51.5, 50.8]), ([91.0, 90.5, 91.5, 90.8], [90.0, 92.0])],
    ],
)
def test_the_permutation_test_equals_enumeration(strata):
    expected, num = exact_p(strata), 20_000
    # Four standard errors of the draw, and the one that counts the data itself.
    tolerance = 4 * (expected * (1 - expected) / num) ** 0.5 + 1 / num
    assert stratified_permutation_test(strata, num_resamples=num) == pytest.approx(expected, rel=0, abs=tolerance)


def test_the_permutation_test_is_two_sided_reproducible_and_never_zero():
    strata = [([9.0, 9.1, 9.2, 9.3, 9.4, 9.5], [1.0, 1.1, 1.2, 1.3, 1.4, 1.5])] * 3
    assert stratified_permutation_test(strata, num_resamples=99) == 1 / 100
    assert stratified_permutation_test([sides[::-1] for sides in strata], num_resamples=99) == 1 / 100
    other = [([1.0, 2.0, 4.0], [1.5, 2.5, 1.0])]
    assert stratified_permutation_test(other, seed=3) == stratified_permutation_test(other, seed=3)
    assert stratified_permutation_test([([95.0, 95.0], [95.0, 95.0])]) == 1.0


# The evaluation set's own error.


@pytest.mark.parametrize(("score", "num", "error"), [(71.0, 277, 2.726), (50.0, 100, 5.0), (100.0, 360, 0.0)])
def test_sampling_error_of_an_accuracy(score, num, error):
    assert sampling_error(score, num, "accuracy_pct") == pytest.approx(error, abs=1e-3)


def test_sampling_error_of_a_rank_correlation():
    # Bivariate normal pairs with a rank correlation of about 0.8.
    generator = np.random.default_rng(0)
    pairs = generator.multivariate_normal([0, 0], [[1, 0.813], [0.813, 1]], size=(3000, 200))
    first, second = np.moveaxis(pairs.argsort(axis=1).argsort(axis=1) - 99.5, 2, 0)
    found = (first * second).sum(axis=1) / (first**2).sum(axis=1)
    assert 100 * found.std() == pytest.approx(sampling_error(100 * found.mean(), 200, "spearman_pct"), rel=0.06)


def test_a_matthews_correlation_alone_does_not_tell_its_error():
    assert np.isnan(sampling_error(50.0, 1043, "matthews_pct"))
