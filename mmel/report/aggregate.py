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

# What the columns of `load_runs` hold where no finished run fills them.
_NOTHING = {
    "metric": None,
    "score": np.nan,
    "best_score": np.nan,
    "score_mm": np.nan,
    "test_score": np.nan,
    "test_score_mm": np.nan,
    "train_seconds": np.nan,
    "split_for_memory": False,
    "device": None,
    "num_train": np.nan,
    "num_available": np.nan,
    "num_eval": np.nan,
    "sampled": False,
    "num_unreadable": 0,
    "num_parameters": np.nan,
    "dropout": None,
    "disagreement_pct": np.nan,
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
        RunConfig's fields, `run_id`, `status` (`finished`, `failed` or `missing`), and for finished runs `metric`,
        `score` after the last evaluation and `best_score` (in percent: test accuracy of images, the dev score of a
        text), `train_seconds`, `device`, `num_train`, `num_available` (training examples before a subset was taken),
        `num_eval`, `num_parameters`, `commit`, `dirty`, `split_for_memory`, `sampled` (the data are not of the
        official size), `num_unreadable` (images that could not be decoded). Of texts also `score_mm` (MNLI's mismatched
        dev set), `test_score` and `test_score_mm` (where the test labels are known), `dropout` (hidden and attention,
        as trained) and `disagreement_pct` (of the variants with their teacher's label for the original).
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
        mean=("score", "mean"),
        std=("score", "std"),
        num_runs=("score", "size"),
        train_seconds=("train_seconds", "median"),
        device=("device", lambda names: " / ".join(sorted(set(names)))),
        num_eval=("num_eval", "first"),
    )
    summary = found.reindex(planned.index)
    summary["num_runs"] = summary["num_runs"].fillna(0).astype(int)
    summary["num_planned"] = planned
    return summary


def curves(store: Store, configs: Iterable[RunConfig]) -> pd.DataFrame:
    """The score over training, over the runs that a table may average.

    Args:
        store: where the records are.
        configs: the runs of a grid.

    Returns:
        One row for each data set, method and evaluation, in the grid's order: `dataset`, `method`, `metric`, `epoch`
        (epochs done, a fraction within one), `mean`, `min` and `max` of the score over seeds, `num_runs`.
    """
    configs = list(configs)
    left_in = set(usable(load_runs(store, configs))["run_id"]) if configs else set()
    keys = ["dataset", "method", "metric", "epoch"]
    lines = []
    for config in configs:
        if config.run_id in left_in:
            record = store.read(config)
            cell = (config.dataset, config.method, record.metric)
            lines += [(*cell, float(line["epoch"]), line[record.metric]) for line in record.epochs]
    groups = pd.DataFrame(lines, columns=[*keys, "score"]).groupby(keys, sort=False)["score"]
    return groups.agg(["mean", "min", "max", "size"]).rename(columns={"size": "num_runs"}).reset_index()


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


def sampling_error(score_pct: float, num_eval: int, metric: str = "accuracy_pct") -> float:
    """Standard error, in points, that a score has from the finite set it was measured on.

    Args:
        score_pct: the score.
        num_eval: examples of that set.
        metric: `accuracy_pct` (binomial), `spearman_pct` (Bonett and Wright's), or another, of which a score alone
            does not tell: Matthews' depends on the whole table of confusions.

    Returns:
        The error, or NaN where it cannot be told.
    """
    share = score_pct / 100
    if metric == "accuracy_pct":
        return 100 * float(np.sqrt(share * (1 - share) / num_eval))
    if metric == "spearman_pct" and num_eval > 3:
        # Its Fisher transform has about the variance (1 + r^2 / 2) / (n - 3) (Bonett and Wright 2000).
        return 100 * float((1 - share**2) * np.sqrt((1 + share**2 / 2) / (num_eval - 3)))
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
    header, result, metric = record.header, record.result, record.metric
    sizes = header["sizes"]
    tests = {name: value for name, value in result.items() if name.startswith("test_")}
    return row | {
        "metric": metric,
        "score": record.score,
        "best_score": result[f"best_{metric}"],
        "score_mm": result.get(metric.replace("_pct", "_mm_pct"), np.nan),
        "test_score": next((value for name, value in tests.items() if not name.endswith("_mm_pct")), np.nan),
        "test_score_mm": next((value for name, value in tests.items() if name.endswith("_mm_pct")), np.nan),
        "train_seconds": result["train_seconds"],
        "split_for_memory": result["micro_batch"] is not None,
        "device": _device(header["device"]),
        "num_train": sizes["train"],
        "num_available": sizes["train_available"],
        "num_eval": sizes["eval"],
        "sampled": bool(sizes.get("sampled")),
        "num_unreadable": record.result.get("num_unreadable", 0),
        "num_parameters": header["num_parameters"],
        "dropout": f"{header['hidden_dropout']:g} / {header['attention_dropout']:g}" if config.is_text else None,
        "disagreement_pct": header.get("teacher_disagreement_pct", np.nan),
        "commit": header["commit"],
        "dirty": header["dirty"],
    }
