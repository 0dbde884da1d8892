"""The state of every run of a grid, and the time that the missing ones will take."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mmel.study.config import ImageRun, Run, TextRun
from mmel.study.fields import PROFILES, parse_field
from mmel.study.needs import needs
from mmel.study.records import Record, Store
from mmel.study.tables import runs_of


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        config: the run.
        table: the first table that asks for it; its notebook trains it.
        state: `recorded`, `failed` or `missing`.
        predicted_seconds: the time it should take, or None if that is unknown.
    """

    config: Run
    table: str
    state: str
    predicted_seconds: float | None


def parse_only(only: Iterable[str]) -> dict[str, set]:
    """`["method=mmel_h", "seed=0", "seed=1"]` as fields and the values that each may have.

    Raises:
        ValueError: if an entry is not `field=value` with a field of a run and a value of its type.
    """
    chosen = defaultdict(set)
    for entry in only:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ValueError(f"only must be given as field=value, got {entry!r}")
        chosen[name].add(parse_field(TextRun if name in TextRun.field_names() else ImageRun, name, text))
    return chosen


def plan(
    tables: list[str],
    profile: str,
    store: Store,
    only: Iterable[str] = (),
    speed: "SpeedEstimate | None" = None,
    text_model: str | None = None,
) -> list[PlannedRun]:
    """The runs of some tables in the order in which they should be trained, each with its state and its cost.

    Args:
        tables: names of `mmel.study.tables.TABLES`.
        profile: `mini`, `reduced` or `paper`.
        store: the recorded runs.
        only: `field=value` entries that a run must match: one of each field that is named; the runs that a matching
            run needs come with it.
        speed: predicts the time of a run.
        text_model: name of the text encoder; None for the profile's.

    Raises:
        ValueError: on a table, profile, field or value that does not exist, or if no run matches.
    """
    grid = runs_of(tables, profile, text_model)
    chosen = _matching(list(grid), parse_only(only))
    found = chosen
    while found := {need for run in found for need in needs(run)} - chosen:
        chosen |= found
    speed = speed or SpeedEstimate(())
    return [
        PlannedRun(run, table, _state(store.read(run)), speed.predict(run))
        for run, table in grid.items()
        if run in chosen
    ]


def device_key(device: dict[str, Any]) -> tuple:
    """The part of a record's `device` that decides speed; the precision comes from the run, see `estimate_speed`."""
    return tuple(device.get(name) for name in ("type", "name", "capability", "native_bf16", "threads"))


def estimate_speed(
    store: Store, *, device: dict[str, Any] | None = None, since: datetime | None = None
) -> "SpeedEstimate":
    """The speed that a results folder tells of, from the finished runs of every profile.

    Args:
        store: what is recorded.
        device: the only device whose runs count, as a record's header describes it, with the `precision` that `auto`
            takes there; None for any.
        since: time with its zone; only runs that were started then or later count; None for all.
    """
    return SpeedEstimate(
        record
        for profile in PROFILES
        for record in store.records(profile)
        if record.finished
        and (device is None or _is_of(record, device))
        and (since is None or datetime.fromisoformat(record.header["started"]) >= since)
    )


class SpeedEstimate:
    """Predicts a run's seconds, of training and evaluations, from runs like it on the same device.

    Args:
        records: finished runs. Those that several processes trained together do not count.
    """

    def __init__(self, records: Iterable[Record]):
        measured: dict[tuple, list[float]] = defaultdict(list)
        for record in records:
            if record.header.get("processes", 1) == 1:
                measured[_kind(record.config)].append(_seconds(record) / work(record.config))
        self._seconds_per_example = {kind: statistics.median(values) for kind, values in measured.items()}

    def predict(self, config: Run) -> float | None:
        """Seconds, or None if no run like it is recorded."""
        seconds = self._seconds_per_example.get(_kind(config))
        return None if seconds is None else seconds * work(config)


def work(config: Run) -> float:
    """Augmented examples that a run trains on."""
    held_out = 0 if config.is_text else config.holdout
    examples = config.train_size or config.data.sizes["train"] - held_out
    return config.epochs * config.stretch * config.num_views * examples


def first_epoch_seconds(config: Run, predicted_seconds: float | None) -> float:
    """The time of the first epoch, by a prediction for the whole run; 0 if there is none."""
    return (predicted_seconds or 0.0) / config.total_epochs


def time_to_go(runs: Iterable[tuple[float | None, float]], at_once: int) -> str:
    """The time until runs are done, in words, as far as it can be told.

    Args:
        runs: for each, the predicted seconds and those that are over.
        at_once: how many are trained at a time.
    """
    known, unknown = [], 0
    for predicted, spent in runs:
        if predicted is None:
            unknown += 1
        else:
            known.append(max(0.0, predicted - spent))
    if not known:
        return "time to go unknown"
    rest = f" and {unknown} runs whose time is unknown" if unknown else ""
    return f"about {duration(sum(known) / at_once)}{rest} to go"


def duration(seconds: float | None) -> str:
    """Seconds in words a person reads at a glance."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _matching(grid: list[Run], wanted: dict[str, set]) -> set[Run]:
    for name, values in wanted.items():
        present = {getattr(run, name) for run in grid if name in run.field_names()}
        if unknown := values - present:
            texts = [", ".join(sorted(map(_as_text, some))) for some in (present, unknown)]
            raise ValueError(f"only: {name} of these runs is one of {texts[0]}; got {texts[1]}")
    # A run without the field has none of the values.
    chosen = {
        run
        for run in grid
        if all(name in run.field_names() and getattr(run, name) in values for name, values in wanted.items())
    }
    if wanted and not chosen:
        raise ValueError(f"only: no run has these values of {', '.join(wanted)} together")
    return chosen


def _as_text(value: object) -> str:
    """A field's value as `parse_field` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _state(record: Record | None) -> str:
    if record is None:
        return "missing"
    return "recorded" if record.finished else "failed"


def _is_of(record: Record, device: dict[str, Any]) -> bool:
    """Whether one device alone trained a run, which may have been resumed, in the precision that it would take now."""
    devices = [header["device"] for header in [record.header, *record.header.get("resumed_from", [])]]
    precision = device["precision"] if record.config.precision == "auto" else record.config.precision
    return all(device_key(each) == device_key(device) and each.get("precision") == precision for each in devices)


def _kind(config: Run) -> tuple:
    return config.model, config.dataset, config.num_views, config.precision


def _seconds(record: Record) -> float:
    return record.result["train_seconds"] + sum(line["eval_seconds"] for line in record.epochs)
