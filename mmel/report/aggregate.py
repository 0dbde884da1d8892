"""Runs as a table of numbers, and the statistics on them; nothing here knows a layout.

A claim is a contrast between two methods on the same data set and model, fixed beforehand. It is reported with its
Welch t interval (docs/decisions.md, "Statistics").
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import pandas as pd
from scipy import stats

from mmel.config import RunConfig
from mmel.records import Record, Store

CONFIDENCE = 0.95

_NOTHING = {
    "accuracy_pct": np.nan,
    "best_accuracy_pct": np.nan,
    "train_seconds": np.nan,
    "split_for_memory": False,
    "device": None,
    "num_train": np.nan,
    "num_eval": np.nan,
    "commit": None,
    "dirty": None,
}


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


def load_runs(store: Store, configs: Iterable[RunConfig]) -> pd.DataFrame:
    """One row for each configuration, whether its run is recorded or not.

    Args:
        store: where the records are.
        configs: the runs of a grid.

    Returns:
        RunConfig's fields, `run_id`, `status` (`finished`, `failed` or `missing`), and for finished runs
        `accuracy_pct`, `best_accuracy_pct`, `train_seconds`, `device`, `num_eval`, `num_train`, `commit`, `dirty`,
        `split_for_memory`.
    """
    return pd.DataFrame([_row(config, store.read(config)) for config in configs])


def usable(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs whose batches were not split for memory: those a table may average."""
    return runs[(runs["status"] == "finished") & ~runs["split_for_memory"]]


def summarize(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, sample standard deviation (ddof = 1) and number of usable runs in each group of a grid.

    Args:
        runs: from `load_runs`.
        by: columns that make a group.

    Returns:
        Indexed by `by`, in the grid's order: `mean`, `std` (NaN for one run), `num_runs`, `num_planned`,
        `train_seconds` (median), `device` (one name, or several joined), `num_eval`.
    """
    planned = runs.groupby(list(by), sort=False).size().rename("num_planned")
    groups = usable(runs).groupby(list(by), sort=False)
    found = groups.agg(
        mean=("accuracy_pct", "mean"),
        std=("accuracy_pct", "std"),
        num_runs=("accuracy_pct", "size"),
        train_seconds=("train_seconds", "median"),
        device=("device", lambda names: " / ".join(sorted(set(names)))),
        num_eval=("num_eval", "first"),
    )
    summary = found.reindex(planned.index)
    summary["num_runs"] = summary["num_runs"].fillna(0).astype(int)
    summary["num_planned"] = planned
    return summary


def contrast(first: Sequence[float], second: Sequence[float]) -> Contrast:
    """Welch's contrast between two sets of runs.

    Args:
        first: accuracies in percent, one a run; at least one.
        second: likewise.
    """
    sides = ((float(np.mean(runs)), float(pd.Series(runs).std()), len(runs)) for runs in (first, second))
    return _welch(*sides)


def contrast_from_summary(first: pd.Series, second: pd.Series) -> Contrast:
    """The contrast between two cells of the paper, from their printed means, deviations and numbers of runs.

    Args:
        first: with `accuracy_pct`, `std_pct` (NaN where not printed) and `num_runs`.
        second: likewise.
    """
    return _welch(*((cell["accuracy_pct"], cell["std_pct"], int(cell["num_runs"])) for cell in (first, second)))


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


def sampling_error(accuracy_pct: float, num_eval: int) -> float:
    """Standard error, in points, that an accuracy has from the finite test set alone (binomial)."""
    share = accuracy_pct / 100
    return 100 * float(np.sqrt(share * (1 - share) / num_eval))


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


def _device(device: dict[str, object]) -> str:
    """A CPU with another number of threads is another device: times are not compared across them."""
    threads = device.get("threads")
    return f"{device['name']}, {threads} thread{'s' if threads > 1 else ''}" if threads else str(device["name"])


def _row(config: RunConfig, record: Record | None) -> dict[str, object]:
    row: dict[str, object] = {**config.to_dict(), "run_id": config.run_id, "status": "missing", **_NOTHING}
    if record is None:
        return row
    row["status"] = record.result["status"]
    if not record.finished:
        return row
    sizes, result = record.header["sizes"], record.result
    return row | {
        "accuracy_pct": result["accuracy_pct"],
        "best_accuracy_pct": result["best_accuracy_pct"],
        "train_seconds": result["train_seconds"],
        "split_for_memory": result["micro_batch"] is not None,
        "device": _device(record.header["device"]),
        "num_train": sizes["train"],
        "num_eval": sizes["eval"],
        "commit": record.header["commit"],
        "dirty": record.header["dirty"],
    }
