"""The statistics on scores of runs; nothing here knows a record or a layout.

A claim is a contrast between two methods on the same data set and model, fixed beforehand. It is reported with its
Welch t interval (docs/decisions.md, "Statistics").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Contrast:
    """The difference of two means.

    Attributes:
        difference: mean of the first minus mean of the second, in points.
        low: lower end of its 95 % Welch t interval; NaN where one side has a single run.
        high: upper end.
        num_first: runs of the first.
        num_second: runs of the second.
    """

    difference: float
    low: float
    high: float
    num_first: int
    num_second: int

    @property
    def verdict(self) -> str:
        """`holds` (interval above 0), `contradicted` (below 0) or `undecided` (all else, one run a side included)."""
        if self.low > 0:
            return "holds"
        return "contradicted" if self.high < 0 else "undecided"


def contrast(first: Sequence[float], second: Sequence[float]) -> Contrast:
    """Welch's contrast between two sets of runs.

    Args:
        first: scores in percent, one a run; at least one.
        second: likewise.
    """
    sides = ((float(np.mean(runs)), float(pd.Series(runs).std()), len(runs)) for runs in (first, second))
    return _welch(*sides)


def contrast_from_summary(first: pd.Series, second: pd.Series) -> Contrast:
    """The contrast between two cells of the paper, from their printed means, deviations and numbers of runs.

    Args:
        first: with `mean`, `std` (NaN where not printed) and `num_runs`.
        second: likewise.
    """
    return _welch(*((cell["mean"], cell["std"], int(cell["num_runs"])) for cell in (first, second)))


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


def sampling_error(
    score_pct: float, num_eval: int, metric: str = "accuracy_pct", confusion: Sequence[Sequence[int]] | None = None
) -> float:
    """Standard error, in points, that a score has from the finite set it was measured on.

    Args:
        score_pct: the score.
        num_eval: examples of that set.
        metric: `accuracy_pct` (binomial), `spearman_pct` (Bonett and Wright's), `matthews_pct` (the delta method's), or
            another, of which nothing is told.
        confusion: for `matthews_pct`, whose error a score alone does not tell: 2 x 2 counts, a row a true class.

    Returns:
        The error, or NaN where it cannot be told.
    """
    share = score_pct / 100
    if metric == "accuracy_pct":
        return 100 * float(np.sqrt(share * (1 - share) / num_eval))
    if metric == "spearman_pct" and num_eval > 3:
        # Its Fisher transform has about the variance (1 + r^2 / 2) / (n - 3) (Bonett and Wright 2000).
        return 100 * float((1 - share**2) * np.sqrt((1 + share**2 / 2) / (num_eval - 3)))
    if metric == "matthews_pct" and confusion is not None:
        return 100 * _phi_error(np.asarray(confusion, dtype=float))
    return float("nan")


def paper_table(name: str) -> pd.DataFrame:
    """The paper's own numbers of a table, as `mmel/paper/<name>.csv` has them."""
    with resources.files("mmel.paper").joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def _welch(first: tuple[float, float, int], second: tuple[float, float, int]) -> Contrast:
    """The contrast of two samples given as mean, sample deviation (NaN if unknown) and size."""
    (mean1, std1, n1), (mean2, std2, n2) = first, second
    difference = float(mean1 - mean2)
    v1, v2 = std1**2 / n1, std2**2 / n2
    # Runs without any scatter (ties on a small test set) say nothing about the scatter of others.
    low = high = float("nan")
    if v1 + v2 > 0:
        # Welch and Satterthwaite's degrees of freedom.
        freedom = (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1))
        low, high = stats.t.interval(CONFIDENCE, freedom, loc=difference, scale=(v1 + v2) ** 0.5)
    return Contrast(difference, float(low), float(high), n1, n2)


def _phi_error(counts: np.ndarray) -> float:
    """Standard error of phi, which is Matthews' correlation, of a 2 x 2 table.

    The delta method on multinomial counts (Bishop, Fienberg and Holland 1975, section 11.3); NaN where a class is never
    predicted or never true.
    """
    shares = counts / counts.sum()
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    spread = rows.prod() * columns.prod()
    if spread == 0:
        return float("nan")
    phi = (shares[0, 0] * shares[1, 1] - shares[0, 1] * shares[1, 0]) / np.sqrt(spread)
    tilt, lean = rows[0] - rows[1], columns[0] - columns[1]
    variance = (
        1
        - phi**2
        + phi * (1 + phi**2 / 2) * tilt * lean / np.sqrt(spread)
        - 3 / 4 * phi**2 * (tilt**2 / rows.prod() + lean**2 / columns.prod())
    )
    return float(np.sqrt(max(variance, 0.0) / counts.sum()))
