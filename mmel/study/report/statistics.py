"""Statistics of scores: numbers in, numbers out. Nothing here knows a record or a layout (docs/decisions.md)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Cell(NamedTuple):
    """The runs of one arm at one place: their mean, sample standard deviation (ddof = 1; NaN if unknown), number."""

    mean: float
    sd: float
    n: int


class Contrast(NamedTuple):
    """A difference with its 95 % interval, NaN where the runs do not give one.

    `kind` says how the interval was made: `paired`, `Welch`, `prediction` (one run on a side, equal spread assumed) or
    `none`.
    """

    difference: float
    low: float = np.nan
    high: float = np.nan
    kind: str = "none"


def welch(first: Cell, second: Cell) -> Contrast:
    """The contrast of two independent samples, first minus second.

    Welch's t interval; if one side is a single run, the prediction interval d ± t(n - 1) s sqrt(1 + 1/n) of the other
    side, which assumes that both spread alike.
    """
    return combination([(1.0, first), (-1.0, second)])


def combination(terms: Sequence[tuple[float, Cell]]) -> Contrast:
    """A linear combination of independent means, with Satterthwaite's degrees of freedom.

    Args:
        terms: coefficient and cell. Of two cells one may be a single run, see `welch`.
    """
    difference = float(sum(c * cell.mean for c, cell in terms))
    several = [cell for _, cell in terms if cell.n > 1]
    if len(several) == len(terms):
        parts = [c**2 * cell.sd**2 / cell.n for c, cell in terms]
        squares = sum(part**2 / (cell.n - 1) for part, cell in zip(parts, several, strict=True))
        return _t(difference, sum(parts), sum(parts) ** 2 / squares if squares else np.nan, "Welch")
    if len(several) == 1 and len(terms) == 2:
        variance = sum(c**2 * several[0].sd ** 2 / cell.n for c, cell in terms)
        return _t(difference, variance, several[0].n - 1, "prediction")
    return Contrast(difference)


def paired(first: Sequence[float], second: Sequence[float]) -> Contrast:
    """The contrast of runs that share their seeds, first minus second: the t interval of the differences."""
    differences = np.subtract(first, second)
    n = len(differences)
    if n < 2:
        return Contrast(float(differences.mean()))
    return _t(float(differences.mean()), differences.var(ddof=1) / n, n - 1, "paired")


def _t(difference: float, variance: float, freedom: float, kind: str) -> Contrast:
    # Runs that are all alike have no scatter to judge by.
    if not (variance > 0 and freedom > 0):
        return Contrast(difference)
    low, high = stats.t.interval(CONFIDENCE, freedom, loc=difference, scale=np.sqrt(variance))
    return Contrast(difference, float(low), float(high), kind)


class Pooled(NamedTuple):
    """One test of a claim over several cells.

    `effect` is the mean difference in standard deviations of its cell, `low` and `high` the lowest and highest such
    mean with one cell left out, and `p` two-sided.
    """

    effect: float
    low: float
    high: float
    p: float


def pooled(cells: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Pooled | None:
    """Test a contrast over several models or tasks at once, whatever their metrics.

    The differences of seeds are divided by the standard deviation of their cell (pooled over both sides) and averaged;
    the signs of all (cell, seed) are flipped, in 20,000 ways or in all if they are fewer.

    Args:
        cells: for each model or task the scores of both arms, seed by seed; two seeds at least.

    Returns:
        None if no p-value as small as 0.05 is possible, or if a cell has no spread.
    """
    spreads = [np.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / 2) for first, second in cells]
    if 2 * 0.5 ** sum(len(first) for first, _ in cells) > 0.05 or not all(spreads):
        return None
    groups = [np.subtract(*sides) / spread for sides, spread in zip(cells, spreads, strict=True)]
    flat = np.concatenate(groups)
    found = stats.permutation_test(
        (flat,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    )
    without = [np.concatenate(groups[:n] + groups[n + 1 :] or groups).mean() for n in range(len(groups))]
    return Pooled(float(flat.mean()), float(min(without)), float(max(without)), float(found.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number by Holm's method, in their order."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.asarray(p)[order] * (len(p) - np.arange(len(p))))
    return np.minimum(steps, 1)[np.argsort(order)].tolist()


def seeds_needed(half_width: float, n: int, target: float) -> int:
    """Seeds a side that bring the half-width of an interval of `n` a side to a target, if the spread stays as it is."""
    seeds = np.arange(2, 10_001)
    widths = stats.t.ppf((1 + CONFIDENCE) / 2, 2 * seeds - 2) / np.sqrt(seeds)
    # They fall; from the last on nothing more is counted.
    reached = np.searchsorted(-widths * half_width / widths[n - 2], -target)
    return int(seeds[min(reached, len(seeds) - 1)])


def shared_error(first: Sequence[str], second: Sequence[str]) -> float:
    """Standard error, in points, that a difference of accuracies has from the finite set that both were measured on.

    Args:
        first: of each run of one arm which examples it got right, `11-0`. Those not looked at by all are left out.
        second: likewise of the other arm, on the same examples.

    Returns:
        NaN if an arm has no such run, or one was measured on another number of examples.
    """
    if not (first and second) or len({len(run) for run in (*first, *second)}) > 1:
        return np.nan
    marks = np.array([[*run] for run in (*first, *second)])
    right = marks[:, (marks != "-").all(axis=0)] == "1"
    return 100 * float(stats.sem(right[: len(first)].mean(axis=0) - right[len(first) :].mean(axis=0)))
