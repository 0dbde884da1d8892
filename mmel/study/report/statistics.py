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
    """A difference with its 95 % interval and two-sided p-value; NaN where the runs do not give them.

    `kind` says how the interval was made: `paired`, `Welch`, `prediction` (one run on a side, equal spread assumed) or
    `none`.
    """

    difference: float
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
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
    single = [cell for _, cell in terms if cell.n < 2]
    kind = "Welch"
    if len(terms) == 2 and len(single) == 1:
        kind = "prediction"
        (spread,) = (cell for _, cell in terms if cell.n > 1)
        parts, freedoms = [c**2 * spread.sd**2 / cell.n for c, cell in terms], None
        freedom = spread.n - 1.0
    elif single:
        return Contrast(difference)
    else:
        parts = [c**2 * cell.sd**2 / cell.n for c, cell in terms]
        freedoms = [cell.n - 1 for _, cell in terms]
        squares = sum(part**2 / own for part, own in zip(parts, freedoms, strict=True))
        freedom = sum(parts) ** 2 / squares if squares else np.nan
    return _t(difference, float(np.sqrt(sum(parts))), freedom, kind)


def paired(first: Sequence[float], second: Sequence[float]) -> Contrast:
    """The contrast of runs that share their seeds, first minus second: the t interval of the differences."""
    differences = np.subtract(first, second)
    n = len(differences)
    return _t(float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(n)), n - 1, "paired")


def _t(difference: float, error: float, freedom: float, kind: str) -> Contrast:
    # Runs that are all alike have no scatter to judge by.
    if not (error > 0 and freedom > 0):
        return Contrast(difference)
    low, high = stats.t.interval(CONFIDENCE, freedom, loc=difference, scale=error)
    p = 2 * stats.t.sf(abs(difference) / error, freedom)
    return Contrast(difference, float(low), float(high), float(p), kind)


class Pooled(NamedTuple):
    """One test of a claim over several cells.

    Attributes:
        effect: mean difference in standard deviations of its cell.
        low: lowest such mean with one cell left out.
        high: highest.
        p: two-sided, from sign flips of the differences of single seeds.
    """

    effect: float
    low: float
    high: float
    p: float


def pooled(cells: Sequence[tuple[Sequence[float], Sequence[float]]], num_resamples: int = 20_000) -> Pooled | None:
    """Test a contrast over several models or tasks at once, whatever their metrics.

    The differences of seeds are divided by the standard deviation of their cell (pooled over both sides) and averaged;
    the signs of all (cell, seed) are flipped.

    Args:
        cells: for each model or task the scores of both arms, seed by seed; two seeds at least.
        num_resamples: sign flips drawn; all of them, if they are fewer.

    Returns:
        None if no p-value as small as 0.05 is possible, or if a cell has no spread.
    """
    groups = []
    for first, second in cells:
        spread = np.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / 2)
        groups.append(np.subtract(first, second) / spread if spread > 0 else None)
    if not groups or any(group is None for group in groups) or 2 * 0.5 ** sum(map(len, groups)) > 0.05:
        return None
    flat = np.concatenate(groups)
    found = stats.permutation_test(
        (flat,), np.mean, permutation_type="samples", n_resamples=num_resamples, rng=np.random.default_rng(0)
    )
    without = [np.concatenate(groups[:n] + groups[n + 1 :]).mean() for n in range(len(groups))] if groups[1:] else []
    return Pooled(float(flat.mean()), *(float(f(without or [flat.mean()])) for f in (min, max)), float(found.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number by Holm's method, in their order."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.asarray(p)[order] * (len(p) - np.arange(len(p))))
    return np.minimum(steps, 1)[np.argsort(order)].tolist()


def seeds_needed(half_width: float, n: int, target: float) -> int:
    """Seeds a side that bring an interval's half-width down to a target, if the spread stays as measured.

    Args:
        half_width: of the interval at hand.
        n: seeds a side that it has.
        target: half-width wanted.
    """
    error = half_width / stats.t.ppf((1 + CONFIDENCE) / 2, 2 * n - 2) * np.sqrt(n)
    needed = 2
    while stats.t.ppf((1 + CONFIDENCE) / 2, 2 * needed - 2) * error / np.sqrt(needed) > target and needed < 10_000:
        needed += 1 + needed // 50
    return needed


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
