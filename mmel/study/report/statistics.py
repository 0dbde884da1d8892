"""Statistics of scores: numbers in, numbers out. Nothing here knows a record or a layout (docs/decisions.md)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95


class Contrast(NamedTuple):
    """The difference of two means, first minus second, with its Welch t interval and test; of arrays, arrays.

    `low`, `high` and `p` (two-sided) are NaN without scatter: one run on a side, or runs that are all alike.
    """

    difference: ArrayLike
    low: ArrayLike
    high: ArrayLike
    p: ArrayLike


def welch(mean1: ArrayLike, sd1: ArrayLike, n1: ArrayLike, mean2: ArrayLike, sd2: ArrayLike, n2: ArrayLike) -> Contrast:
    """Welch's contrast of two samples given by mean, sample standard deviation (ddof = 1; NaN if unknown) and size."""
    mean1, sd1, n1, mean2, sd2, n2 = (np.asarray(value, dtype=float) for value in (mean1, sd1, n1, mean2, sd2, n2))
    difference, v1, v2 = mean1 - mean2, sd1**2 / n1, sd2**2 / n2
    with np.errstate(divide="ignore", invalid="ignore"):
        # Welch and Satterthwaite's degrees of freedom.
        freedom = (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1))
        error = np.sqrt(v1 + v2)
        low, high = stats.t.interval(CONFIDENCE, freedom, loc=difference, scale=error)
        p = 2 * stats.t.sf(np.abs(difference / error), freedom)
    return Contrast(difference, low, high, p)


def stratified_permutation_test(
    strata: Sequence[tuple[Sequence[float], Sequence[float]]], num_resamples: int = 20_000, seed: int = 0
) -> float:
    """Two-sided p-value of one claim over several models or tasks.

    The statistic is the mean over strata of the difference of means; labels are permuted within each stratum alone.

    Args:
        strata: for each model or task the runs of the first and of the second method; at least one of each.
        num_resamples: permutations drawn.
        seed: of the draw.

    Returns:
        (1 + number of permutations at least as extreme) / (1 + `num_resamples`).
    """
    generator = np.random.default_rng(seed)
    observed = float(np.mean([np.mean(first) - np.mean(second) for first, second in strata]))
    total = np.zeros(num_resamples)
    for first, second in strata:
        pooled = np.concatenate([first, second]).astype(float)
        shuffled = generator.permuted(np.tile(pooled, (num_resamples, 1)), axis=1)
        total += shuffled[:, : len(first)].mean(axis=1) - shuffled[:, len(first) :].mean(axis=1)
    # Ties with the observed value count as extreme, whatever the order of summation did to their last bit.
    extreme = np.abs(total / len(strata)) >= abs(observed) - 1e-9
    return float((1 + extreme.sum()) / (1 + num_resamples))


def sampling_error(score_pct: float, num_eval: int, metric: str) -> float:
    """Standard error, in points, that a score has from the finite set it was measured on.

    Binomial for `accuracy_pct`, for `spearman_pct` by Bonett and Wright (2000). NaN for another metric, whose score
    alone does not tell it.
    """
    share = score_pct / 100
    if metric == "accuracy_pct":
        return 100 * float(np.sqrt(share * (1 - share) / num_eval))
    if metric == "spearman_pct" and num_eval > 3:
        # The Fisher transform of a rank correlation has about the variance (1 + r^2 / 2) / (n - 3).
        return 100 * float((1 - share**2) * np.sqrt((1 + share**2 / 2) / (num_eval - 3)))
    return float("nan")
