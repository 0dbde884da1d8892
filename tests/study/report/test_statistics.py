import itertools

import numpy as np
import pytest
from scipy import stats

from mmel.study.report.statistics import (
    Cell,
    combination,
    holm,
    paired,
    pooled,
    seeds_needed,
    shared_error,
    welch,
)

SAMPLES = [
    ([97.0, 98.0, 99.0], [95.0, 96.0, 97.0]),
    ([93.16, 93.2, 93.1, 93.15, 93.18], [93.0, 92.8, 93.2, 93.1, 92.9]),
    ([70.0, 71.5], [68.0, 69.0, 70.0, 60.0]),
    # One side without scatter, as two seeds on a small test set often are.
    ([50.0, 50.0], [51.0, 52.0]),
]


def cell(sample):
    return Cell(np.mean(sample), np.std(sample, ddof=1) if len(sample) > 1 else np.nan, len(sample))


# Contrasts.


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("first", "second"), SAMPLES)
def test_welch_equals_scipys(first, second):
    found = welch(cell(first), cell(second))
    bounds = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert found[:3] == pytest.approx((np.mean(first) - np.mean(second), *bounds), rel=1e-9)


def test_one_run_on_a_side_has_a_prediction_interval():
    # t(0.975, 2) = 4.3027, s = 0.1, three runs: 4.3027 * 0.1 * sqrt(4 / 3).
    for found in (welch(Cell(10.1, 0.1, 3), Cell(9.0, np.nan, 1)), welch(Cell(10.1, np.nan, 1), Cell(9.0, 0.1, 3))):
        assert found[:3] == pytest.approx((1.1, 1.1 - 0.49683, 1.1 + 0.49683), abs=1e-4)
        assert found.kind == "prediction"


@pytest.mark.filterwarnings("error")  # A notebook would show the warning in the report.
@pytest.mark.parametrize(("first", "second"), [([99.0], [10.0]), ([95.0, 95.0], [94.0, 94.0])])
def test_without_scatter_there_is_a_difference_and_no_interval(first, second):
    found = welch(cell(first), cell(second))
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert np.isnan(found[1:3]).all()
    assert found.kind == "none"


def test_paired_equals_scipys():
    first, second = [70.0, 71.5, 72.0], [68.0, 69.0, 60.0]
    expected = stats.ttest_rel(first, second)
    assert paired(first, second)[1:3] == pytest.approx(expected.confidence_interval(0.95), rel=1e-9)
    # Differences that are all alike have no scatter.
    assert paired([97.0, 98.0, 99.0], [95.0, 96.0, 97.0]).kind == "none"


@pytest.mark.filterwarnings("error")  # A notebook would show the warning in the report.
def test_one_pair_of_runs_has_no_interval():
    found = paired([97.0], [95.0])
    assert (found.difference, found.kind) == (2.0, "none")
    assert np.isnan(found[1:3]).all()


def test_a_combination_of_halved_cells_is_half_of_welchs_and_single_runs_have_none():
    first, second = map(cell, SAMPLES[1])
    half = combination([(0.5, first), (-0.5, second)])
    assert half[:3] == pytest.approx([value / 2 for value in welch(first, second)[:3]])
    single = Cell(1.0, np.nan, 1)
    assert combination([(1, first), (-1, second), (-1, single), (1, single)]).kind == "none"


# Several cells at once.


def exact_p(cells):
    """The share of all sign flips of single seeds' standardised differences that are at least as extreme."""
    parts = [np.subtract(a, b) / np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2) for a, b in cells]
    flat = np.concatenate(parts)
    means = [np.mean(np.multiply(signs, flat)) for signs in itertools.product((-1, 1), repeat=len(flat))]
    return flat.mean(), np.mean(np.abs(means) >= abs(flat.mean()) - 1e-12)


@pytest.mark.parametrize(
    "cells",
    [
        [([97.0, 98.0, 97.5], [95.0, 97.0, 96.0]), ([50.0, 51.0, 50.0], [50.5, 49.0, 48.0])],
        [([70.0, 71.0, 72.0, 70.5], [70.0, 71.5, 71.0, 70.0]), ([0.1, 0.3], [0.2, 0.4])],
    ],
)
def test_the_pooled_test_flips_the_signs_of_all_seeds(cells):
    effect, p = exact_p(cells)
    found = pooled(cells)
    assert (found.effect, found.p) == pytest.approx((effect, p))
    alone = [exact_p([one])[0] for one in cells]
    assert (found.low, found.high) == pytest.approx((min(alone), max(alone)))


@pytest.mark.parametrize("cells", [[], [([3.0, 4.0, 5.0], [1.0, 2.0, 3.1])], [([1.0] * 6, [0.0] * 6)]])
def test_too_few_seeds_or_no_spread_give_no_pooled_test(cells):
    # Three differences: the smallest two-sided p is 0.25.
    assert pooled(cells) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@pytest.mark.parametrize(("width", "n", "target"), [(2.3, 3, 1.0), (1.0, 5, 0.2), (0.5, 5, 0.4)])
def test_the_seeds_needed_bring_the_interval_down_to_the_target_and_fewer_do_not(width, n, target):
    def half_width(seeds):
        spread = width / stats.t.ppf(0.975, 2 * n - 2) * np.sqrt(n / 2)
        return stats.t.ppf(0.975, 2 * seeds - 2) * spread * np.sqrt(2 / seeds)

    needed = seeds_needed(width, n, target)
    assert half_width(needed) <= target < half_width(needed - 1)


# The evaluation set's own error.


def test_the_error_of_a_difference_counts_the_examples_that_both_get_right_once():
    # Of two runs and one: differences of their shares 0, 0.5, 0.5 and -1, whose squares about their mean add up to 1.5.
    assert shared_error(["1110", "1000"], ["1001"]) == pytest.approx(100 * (1.5 / 3 / 4) ** 0.5)
    # One that a run did not look at counts in none.
    assert shared_error(["1-110", "10000"], ["11001"]) == shared_error(["1110", "1000"], ["1001"])
    assert shared_error(["1011"], ["1011"]) == 0.0
    assert np.isnan(shared_error([], ["1001"]))
    assert np.isnan(shared_error(["100"], ["1001"]))
