"""Recorded runs as a data frame of numbers, one row per run."""

import itertools
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from mmel.study.config import Run
from mmel.study.records import Line, Record, Store

# The columns that finished runs fill; NaN for the others.
_RESULTS = (
    *("metric", "score", "best_score", "score_mm", "test_score", "test_score_mm", "history", "train_seconds"),
    *("device", "threads", "trained_in", "num_train", "num_available", "num_eval", "sampled", "num_unreadable"),
    *("num_parameters", "dropout", "disagreement_pct", "teacher_weights", "dirty", "weight_max"),
    *("effective_views", "train_accuracy", "wrong_followed"),
)


def load_runs(store: Store, configs: Iterable[Run]) -> pd.DataFrame:
    """One row for each configuration, whether its run is recorded or not.

    Args:
        store: where the records are.
        configs: the runs of a grid, all on images or all on text.

    Returns:
        The fields of such runs, `place` (`cifar10/resnet20`; of a text its task), `run_id`, `status` (`finished`,
        `failed` or `missing`), and of finished runs `metric`, `score` and `best_score` (in percent: test accuracy of
        images, the dev score of a text; after the last and at the best evaluation), `history` (epochs done and score
        at each evaluation), `train_seconds` (NaN if a run was resumed on another device), `device` (its name, or how
        many of it), `threads` (of a CPU, else 0), `num_train`, `num_available` (training examples before a subset was
        taken), `num_eval`, `num_parameters`, `dirty`, `trained_in` (`bf16`, `fp32`, or `bf16 then fp32` of a run that
        was resumed; NaN in old records), `sampled` (the data are not of the official size), `num_unreadable` (images
        that could not be decoded). Of texts also `score_mm` (MNLI's mismatched dev set), `test_score` and
        `test_score_mm` (if the test labels are known), `dropout` (hidden and attention, as trained),
        `disagreement_pct` (of the variants with their teacher's label for the original) and `teacher_weights` (their
        digest; NaN in old records).

    Raises:
        ResultsError: if a record cannot be read, naming its file.
    """
    rows = []
    for config in configs:
        place = config.data.task if config.is_text else f"{config.dataset}/{config.model}"
        planned = {**config.to_dict(), "place": place, "run_id": config.run_id}
        rows.append({**planned, **dict.fromkeys(_RESULTS, np.nan), **_result(store.read(config))})
    return pd.DataFrame(rows)


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that a table averages."""
    return runs[runs["status"] == "finished"]


def device_label(device: str, threads: float) -> str:
    """`Intel Xeon, 1 thread`; the name alone of a GPU."""
    return f"{device}, {threads:.0f} thread{'s' if threads > 1 else ''}" if threads else device


def _result(record: Record | None) -> dict[str, object]:
    if record is None:
        return {"status": "missing"}
    if not record.finished:
        return {"status": "failed"}
    header, result, metric = record.header, record.result, record.metric
    sizes, device = header["sizes"], header["device"]
    test_metric = getattr(record.config.data, "test_metric", None)
    on_one_device = all(earlier["device"] == device for earlier in header.get("resumed_from", []))
    found = {
        "status": "finished",
        "metric": metric,
        "score": record.score,
        "best_score": result[f"best_{metric}"],
        "score_mm": result.get("accuracy_mm_pct", np.nan),
        "test_score": result.get(f"test_{test_metric}", np.nan),
        "test_score_mm": result.get("test_accuracy_mm_pct", np.nan),
        "history": [(line["epoch"], line[metric]) for line in record.epochs],
        "train_seconds": result["train_seconds"] if on_one_device else np.nan,
        "device": _device_name(device["name"], header.get("processes", 1)),
        "threads": device.get("threads", 0),
        "trained_in": _precisions(header),
        "num_train": sizes["train"],
        "num_available": sizes["train_available"],
        "num_eval": sizes["eval"],
        "sampled": bool(sizes.get("sampled")),
        "num_unreadable": result.get("num_unreadable", 0),
        "num_parameters": header["num_parameters"],
        "disagreement_pct": header.get("teacher_disagreement_pct", np.nan),
        "teacher_weights": header.get("teacher_weights", np.nan),
        "dirty": header["dirty"],
        "weight_max": record.epochs[-1].get("weight_max", np.nan),
        "effective_views": [line.get("effective_views", np.nan) for line in record.epochs],
        "train_accuracy": result.get("train_accuracy_pct", np.nan),
        "wrong_followed": result.get("wrong_followed_pct", np.nan),
    }
    if "hidden_dropout" in header:
        found["dropout"] = f"{header['hidden_dropout']:g} / {header['attention_dropout']:g}"
    return found


def _precisions(header: Line) -> str | float:
    """The precisions of a run's processes, in order, each change once."""
    devices = [each["device"] for each in [*header.get("resumed_from", []), header]]
    known = [device["precision"] for device in devices if "precision" in device]
    return " then ".join(precision for precision, _ in itertools.groupby(known)) or np.nan


def _device_name(name: str, processes: int) -> str:
    """A name without trade marks, `Intel Xeon` of `Intel(R) Xeon(R) Processor`; of several processes how many."""
    short = re.sub(r"\((?:R|TM)\)| (?:Processor|CPU)\b", "", name)
    return short if processes == 1 else f"{processes} x {short}"
