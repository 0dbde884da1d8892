"""Recorded runs as a data frame of numbers, one row per run."""

import itertools
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from mmel.study.config import Run
from mmel.study.records import Line, Record, Store

# The columns that finished runs fill. Scores are in percent, after the last evaluation and at the best one.
_RESULTS = (
    *("metric", "score", "best_score"),
    # MNLI's mismatched dev set; test sets of texts, if their labels are known.
    *("score_mm", "test_score", "test_score_mm"),
    # Epochs done and score at each evaluation; effective views likewise; `weight_max` at the last.
    *("history", "effective_views", "weight_max"),
    # Split -> `1101`, which of its examples were classified right; {} in older records.
    "correct",
    # Training images that are predicted as labelled, and wrong labels that are, in percent.
    *("train_accuracy", "wrong_followed"),
    # Time of a run on one device alone; threads of a CPU, else 0; `bf16`, `fp32`, or `bf16 then fp32` if resumed.
    *("train_seconds", "device", "threads", "trained_in", "dirty"),
    # `num_available` before a subset was taken; `sampled`: not of the official size; images that were not decoded.
    *("num_train", "num_available", "num_eval", "sampled", "num_unreadable", "num_parameters"),
    # Hidden and attention dropout; variants with another label of the teacher than the original; a digest.
    *("dropout", "disagreement_pct", "teacher_weights"),
)


def load_runs(store: Store, configs: Iterable[Run]) -> pd.DataFrame:
    """One row for each configuration, whether its run is recorded or not.

    Args:
        store: where the records are.
        configs: the runs of a grid, all on images or all on text.

    Returns:
        The fields of such runs, `place` (`cifar10/resnet20`; of a text its task), `run_id`, `record` (its path in the
        store), `status` (`finished`, `failed` or `missing`), and the columns of `_RESULTS`, NaN if the run did not
        finish or its record is older.

    Raises:
        ResultsError: if a record cannot be read, naming its file.
    """
    rows = []
    for config in configs:
        place = config.data.task if config.is_text else f"{config.dataset}/{config.model}"
        record = store.run_path(config).relative_to(store.root).as_posix()
        named = {"place": place, "run_id": config.run_id, "record": record}
        rows.append({**config.to_dict(), **named, **_result(store.read(config))})
    found = pd.DataFrame(rows)
    return found.reindex(columns=[*found.columns.union(_RESULTS, sort=False)])


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that a table averages."""
    return runs[runs["status"] == "finished"]


def timed(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs on a GPU: times of CPU cores, which other work may share, are no measure of cost."""
    found = finished(runs)
    return found[found["threads"] == 0].dropna(subset="train_seconds")


def _result(record: Record | None) -> dict[str, object]:
    if record is None:
        return {"status": "missing"}
    if not record.finished:
        return {"status": "failed"}
    header, result = record.header, record.result
    sizes, device = header["sizes"], header["device"]
    test = f"test_{record.config.data.test_metric}" if record.config.is_text else ""
    on_one_device = all(earlier["device"] == device for earlier in header.get("resumed_from", []))
    dropout = [f"{header[name]:g}" for name in ("hidden_dropout", "attention_dropout") if name in header]
    return {
        "status": "finished",
        "metric": record.metric,
        "score": record.score,
        "best_score": result[f"best_{record.metric}"],
        "score_mm": result.get("accuracy_mm_pct", np.nan),
        "test_score": result.get(test, np.nan),
        "test_score_mm": result.get("test_accuracy_mm_pct", np.nan),
        "history": [(line["epoch"], line[record.metric]) for line in record.epochs],
        "weight_max": record.epochs[-1].get("weight_max", np.nan),
        "train_seconds": result["train_seconds"] if on_one_device else np.nan,
        "device": _device_name(device["name"], header.get("processes", 1)),
        "threads": device.get("threads", 0),
        "trained_in": _precisions(header),
        "dirty": header["dirty"],
        "num_train": sizes["train"],
        "num_available": sizes["train_available"],
        "num_eval": sizes["eval"],
        "sampled": bool(sizes.get("sampled")),
        "num_unreadable": result.get("num_unreadable", 0),
        "num_parameters": header["num_parameters"],
        "dropout": " / ".join(dropout) or np.nan,
        "disagreement_pct": header.get("teacher_disagreement_pct", np.nan),
        "teacher_weights": header.get("teacher_weights", np.nan),
        "effective_views": [line.get("effective_views", np.nan) for line in record.epochs],
        "correct": result.get("correct", {}),
        "train_accuracy": result.get("train_accuracy_pct", np.nan),
        "wrong_followed": result.get("wrong_followed_pct", np.nan),
    }


def _precisions(header: Line) -> str | float:
    """The precisions of a run's processes, in order, each change once."""
    devices = [each["device"] for each in [*header.get("resumed_from", []), header]]
    known = [device["precision"] for device in devices if "precision" in device]
    return " then ".join(precision for precision, _ in itertools.groupby(known)) or np.nan


def _device_name(name: str, processes: int) -> str:
    """A name without trade marks, `Intel Xeon` of `Intel(R) Xeon(R) Processor`; of several processes how many."""
    short = re.sub(r"\((?:R|TM)\)| (?:Processor|CPU)\b", "", name)
    return short if processes == 1 else f"{processes} x {short}"
