"""Recorded runs as a table of numbers: a row a run, and what groups of runs come to; nothing here knows a layout."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from mmel.config import RunConfig
from mmel.records import Record, Store

# Which evaluation of a run its score is of.
SELECTS = ("last", "best")

# What the columns of `load_runs` hold where no finished run fills them.
_NOTHING = {
    "metric": None,
    "score": np.nan,
    "best_score": np.nan,
    "score_mm": np.nan,
    "test_score": np.nan,
    "test_score_mm": np.nan,
    "history": None,
    "confusion": None,
    "train_seconds": np.nan,
    "split_for_memory": False,
    "usable": False,
    "device": None,
    "threads": 0,
    "num_train": np.nan,
    "num_available": np.nan,
    "num_eval": np.nan,
    "sampled": False,
    "num_unreadable": 0,
    "num_parameters": np.nan,
    "dropout": None,
    "disagreement_pct": np.nan,
    "teacher_weights": None,
    "commit": None,
    "dirty": None,
}


def load_runs(
    store: Store, configs: Iterable[RunConfig], select: str = "last", include_split: bool = False
) -> pd.DataFrame:
    """One row for each configuration, whether its run is recorded or not.

    Args:
        store: where the records are.
        configs: the runs of a grid.
        select: the evaluation that `score` and `score_mm` are of: `last`, or `best`, the one with the highest score,
            which is chosen on the data that it is measured on, and so flatters.
        include_split: whether runs whose batches were split for memory are usable.

    Returns:
        RunConfig's fields, `run_id`, `status` (`finished`, `failed` or `missing`), `select`, `usable` (whether a table
        may average it), and for finished runs `metric`, `score` and `best_score` (in percent: test accuracy of images,
        the dev score of a text), `history` (epochs done and score at each evaluation), `train_seconds` (NaN of a run
        that went on on another device), `device` (its name, or how many of it), `threads` (of a CPU, else 0),
        `num_train`, `num_available` (training examples before a subset was taken), `num_eval`, `num_parameters`,
        `commit`, `dirty`, `split_for_memory`, `sampled` (the data are not of the official size), `num_unreadable`
        (images that could not be decoded). Of texts also `score_mm` (MNLI's mismatched dev set), `test_score` and
        `test_score_mm` (where the test labels are known; always of the last evaluation),
        `confusion` (2 x 2 counts on the dev set after the last evaluation, a row a true class; None where not recorded,
        or where `score` is of another), `dropout` (hidden and attention, as trained) `disagreement_pct` (of the
        variants with their teacher's label for the original) and `teacher_weights` (their digest; None in old records).

    Raises:
        ValueError: on another `select`.
    """
    if select not in SELECTS:
        raise ValueError(f"select must be one of {', '.join(SELECTS)}, got {select!r}")
    return pd.DataFrame([_row(config, store.read(config), select, include_split) for config in configs])


def usable(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that a table may average: finished, and not split for memory unless those were asked for."""
    return runs[runs["usable"]]


def summarize(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, sample standard deviation (ddof = 1) and number of usable runs in each group of a grid.

    Args:
        runs: from `load_runs`.
        by: columns that make a group.

    Returns:
        Indexed by `by`, in the grid's order: `mean`, `std` (NaN for one run), `num_runs`, `num_planned`, `num_eval`.
    """
    planned = runs.groupby(list(by), sort=False).size().rename("num_planned")
    groups = usable(runs).groupby(list(by), sort=False)
    found = groups.agg(
        mean=("score", "mean"), std=("score", "std"), num_runs=("score", "size"), num_eval=("num_eval", "first")
    )
    summary = found.reindex(planned.index)
    summary["num_runs"] = summary["num_runs"].fillna(0).astype(int)
    summary["num_planned"] = planned
    return summary


def seconds(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Training time of each group of a grid on each device by itself: times on different devices do not mix.

    Args:
        runs: from `load_runs`.
        by: columns that make a group.

    Returns:
        Indexed by `by`, `device` and `threads`, in the grid's order: `seconds` (median over the usable runs) and
        `num_runs`. A CPU with another number of threads is another device.
    """
    timed = usable(runs).dropna(subset="train_seconds")
    groups = timed.groupby([*by, "device", "threads"], sort=False)["train_seconds"]
    return groups.agg(seconds="median", num_runs="size")


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """The score over training, over the runs that a table may average.

    Args:
        runs: from `load_runs`.

    Returns:
        One row for each data set, method and evaluation, in the grid's order: `dataset`, `method`, `metric`, `epoch`
        (epochs done, a fraction within one), `mean`, `min` and `max` of the score over seeds, `num_runs`.
    """
    keys = ["dataset", "method", "metric", "epoch"]
    lines = [
        (run["dataset"], run["method"], run["metric"], float(epoch), score)
        for run in usable(runs).to_dict("records")
        for epoch, score in run["history"]
    ]
    groups = pd.DataFrame(lines, columns=[*keys, "score"]).groupby(keys, sort=False)["score"]
    return groups.agg(["mean", "min", "max", "size"]).rename(columns={"size": "num_runs"}).reset_index()


def device_label(device: str, threads: int) -> str:
    """`Intel Xeon, 1 thread`; the name alone of a GPU."""
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}" if threads else device


def _device_name(name: str, processes: int) -> str:
    """A name without trade marks, `Intel Xeon` of `Intel(R) Xeon(R) Processor`; of several processes how many."""
    short = re.sub(r"\((?:R|TM)\)| (?:Processor|CPU)\b", "", name)
    return short if processes == 1 else f"{processes} x {short}"


def _row(config: RunConfig, record: Record | None, select: str, include_split: bool) -> dict[str, object]:
    row: dict[str, object] = {**config.to_dict(), "run_id": config.run_id, "status": "missing", "select": select}
    row |= _NOTHING
    if record is None:
        return row
    row["status"] = record.result["status"]
    if not record.finished:
        return row
    header, result, metric = record.header, record.result, record.metric
    sizes, device = header["sizes"], header["device"]
    tests = {name: value for name, value in result.items() if name.startswith("test_")}
    shown = record.epochs[-1] if select == "last" else max(record.epochs, key=lambda line: line[metric])
    split = result["micro_batch"] is not None
    on_one_device = all(earlier["device"] == device for earlier in header.get("resumed_from", []))
    return row | {
        "metric": metric,
        "score": shown[metric],
        "best_score": result[f"best_{metric}"],
        "score_mm": shown.get(metric.replace("_pct", "_mm_pct"), np.nan),
        "test_score": next((value for name, value in tests.items() if not name.endswith("_mm_pct")), np.nan),
        "test_score_mm": next((value for name, value in tests.items() if name.endswith("_mm_pct")), np.nan),
        "history": [(line["epoch"], line[metric]) for line in record.epochs],
        "confusion": result.get("dev_confusion") if select == "last" else None,
        "train_seconds": result["train_seconds"] if on_one_device else np.nan,
        "split_for_memory": split,
        "usable": include_split or not split,
        "device": _device_name(device["name"], header.get("processes", 1)),
        "threads": device.get("threads", 0),
        "num_train": sizes["train"],
        "num_available": sizes["train_available"],
        "num_eval": sizes["eval"],
        "sampled": bool(sizes.get("sampled")),
        "num_unreadable": record.result.get("num_unreadable", 0),
        "num_parameters": header["num_parameters"],
        "dropout": f"{header['hidden_dropout']:g} / {header['attention_dropout']:g}" if config.is_text else None,
        "disagreement_pct": header.get("teacher_disagreement_pct", np.nan),
        "teacher_weights": header.get("teacher_weights"),
        "commit": header["commit"],
        "dirty": header["dirty"],
    }
