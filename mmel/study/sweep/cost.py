"""The time that runs take: by the speed of recorded runs on the same device, else by the paper's own hours."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from typing import Any

from mmel.study.config import Run, TextRun
from mmel.study.datasets import GLUE
from mmel.study.records import Record, Store
from mmel.study.tables import TEXT_MODELS, recipe


def work(config: Run) -> float:
    """Augmented examples that a run trains on."""
    held_out = 0 if config.is_text else config.holdout
    examples = config.train_size or config.data.sizes["train"] - held_out
    return config.epochs * config.stretch * config.num_views * examples


class Speed:
    """The measured time per augmented example of each kind of run on one device, from finished runs.

    The device is described as in a record's header; if it is None, as on a cluster, nothing is predicted.
    """

    def __init__(self, device: dict[str, Any] | None, records: Iterable[Record] = ()):
        self._device = device and {**device, "precision": None}
        self._seconds: dict[tuple, float] = defaultdict(float)
        self._work: dict[tuple, float] = defaultdict(float)
        for record in records:
            self.learn(record)

    def learn(self, record: Record) -> None:
        """Count a finished run if this device alone trained it, in one process."""
        headers = [record.header, *record.header.get("resumed_from", [])]
        # The same device takes the same precision for `auto`.
        devices = [{**header["device"], "precision": None} for header in headers]
        if record.header.get("processes", 1) == 1 and all(device == self._device for device in devices):
            kind = _kind(record.config)
            self._seconds[kind] += record.result["train_seconds"] + sum(line["eval_seconds"] for line in record.epochs)
            self._work[kind] += work(record.config)

    def seconds(self, config: Run) -> float | None:
        """Predict the time of a run, evaluations included; None if no run like it was measured."""
        kind = _kind(config)
        return self._seconds[kind] / self._work[kind] * work(config) if kind in self._work else None


def _kind(config: Run) -> tuple:
    # A step of SMART goes through the network four times.
    return config.model, config.dataset, config.num_views, config.plan.smooth, config.precision


def paper_hours(config: Run) -> float | None:
    """Hours of a run of the `paper` profile on one V100, by the paper's Tables 1 and 3; None where it has no time.

    On images scaled by K and the number of training images. A time for text is taken as that of all eight tasks with
    one seed, of which a task has its share of all word pieces.
    """
    texts = config.is_text
    row = _printed_times("table3.csv" if texts else "table1.csv").get(
        (config.method,) if texts else (config.method, config.dataset, config.model)
    )
    if row is None or config.profile != "paper" or (texts and config.model != TEXT_MODELS["paper"]):
        return None
    hours = float(row["train_hours_v100"])
    if not texts:
        return hours * work(config) / work(config.replace(num_augmented=int(row["num_augmented"]), holdout=0))
    tasks = (
        config.replace(dataset=name, epochs=recipe(name).get("epochs", TextRun.epochs), pair_mode="separate")
        for name in GLUE
    )
    return hours * _pieces(config) / sum(map(_pieces, tasks))


def _pieces(config: Run) -> float:
    return work(config) * config.data.pieces


@cache
def _printed_times(name: str) -> dict[tuple[str, ...], dict[str, str]]:
    """Rows of a table of the paper that have a time, by method and, of Table 1, data set and model."""
    text = resources.files("mmel.study.paper").joinpath(name).read_text(encoding="utf-8")
    keys = ("method", "dataset", "model") if name == "table1.csv" else ("method",)
    rows = csv.DictReader(text.splitlines())
    return {tuple(row[key] for key in keys): row for row in rows if row["train_hours_v100"]}


def plan_lines(plan: dict[Run, str], store: Store, speed: Speed, device: str | None) -> Iterator[str]:
    """Each run with its state and cost, then the cost of each table and of all that are missing.

    `device` is the name of the one that `speed` knows; None for a cluster.
    """
    missing: dict[str, list[Run]] = {table: [] for table in sorted(set(plan.values()))}
    for run, table in plan.items():
        record = store.read(run)
        if record is None:
            missing[table].append(run)
        state = "missing" if record is None else "recorded" if record.finished else "failed"
        yield f"{state:9} {_cost([run], speed):>12}  {table}  {run.dataset}  {run.run_id}"
    for table, runs in missing.items():
        yield f"{table}: {len(runs)} runs, {_cost(runs, speed)}"
    runs = [run for runs in missing.values() for run in runs]
    yield f"{len(runs)} runs to train, each counted with the first of its tables: {_cost(runs, speed)}"
    yield f"Times are measured on {device or 'no device of the cluster'}; those with (V100) are the paper's own."


def _cost(runs: list[Run], speed: Speed) -> str:
    """The measured time of runs, then the paper's of those of which none is measured, then the number of the others."""
    seconds = {run: speed.seconds(run) for run in runs}
    hours = {run: paper_hours(run) for run in runs if seconds[run] is None}
    measured, published = ([time for time in times.values() if time is not None] for times in (seconds, hours))
    parts = [duration(sum(measured))] if measured or not runs else []
    if published:
        parts.append(f"{duration(sum(published) * 3600)} (V100)")
    if unknown := len(hours) - len(published):
        parts.append("unknown" if unknown == len(runs) else f"{unknown} runs whose time is unknown")
    return " and ".join(parts)


def duration(seconds: float) -> str:
    """Seconds in words a person reads at a glance."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
