"""What of a grid is recorded, what is missing, and what the missing part will cost."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mmel import grids
from mmel.config import PROFILES, RunConfig, parse_field
from mmel.grids import TINY_BERT
from mmel.records import Record, Store

# Training examples, and pixels of an image or mean word pieces of a text (by bert-base-uncased's vocabulary, cut to
# 128): enough to scale a measured time from one run to another.
TRAIN_SIZES = {
    **{"cifar10": 50_000, "cifar100": 50_000, "digits": 1_437},
    **{"imagenet": 1_281_167, "imagenette": 9_469, "drawings": 480},
    **{"cola": 8_551, "sst2": 67_349, "mrpc": 3_668, "stsb": 5_749},
    **{"qqp": 363_846, "mnli": 392_702, "qnli": 104_743, "rte": 2_490},
}
PIXELS = {"cifar10": 32 * 32, "cifar100": 32 * 32, "digits": 8 * 8}
PIECES = {"cola": 11, "sst2": 13, "mrpc": 53, "stsb": 28, "qqp": 31, "mnli": 40, "qnli": 49, "rte": 67}
GRAMMAR_TRAIN_SIZE, GRAMMAR_PIECES = 400, 17
# Operations for each pixel of ImageNet's networks, in units of a layer of the CIFAR ResNets (2,000).
LAYERS = {"resnet18": 18, "resnet34": 36, "resnet50": 41, "resnet18_narrow": 1.2}
# Parameters of a text encoder's layers, embeddings apart.
LAYER_PARAMETERS = {TINY_BERT: 0.4e6, "minilm-l6-mlm": 10.6e6, "bert-base-uncased": 85e6}


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        config: the run.
        table: the first table that asks for it; its notebook trains it.
        state: `recorded`, `failed` or `missing`.
        predicted_seconds: what it should take, or None where nothing is known.
    """

    config: RunConfig
    table: str
    state: str
    predicted_seconds: float | None


def parse_only(only: Iterable[str]) -> dict[str, object]:
    """`["method=mmel_h", "seed=0"]` as fields and values.

    Raises:
        ValueError: if an entry is not `field=value` with a field of RunConfig and a value of its type.
    """
    chosen = {}
    for entry in only:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ValueError(f"only must be given as field=value, got {entry!r}")
        chosen[name] = parse_field(name, text)
    return chosen


def plan(
    tables: list[str], profile: str, store: Store, only: Iterable[str] = (), speed: "SpeedEstimate | None" = None
) -> list[PlannedRun]:
    """The runs of some tables in the order in which they should be trained, each with its state and its cost.

    Args:
        tables: names of `grids.TABLES`.
        profile: `mini`, `reduced` or `paper`.
        store: what is recorded.
        only: `field=value` entries that a run must match, all of them; what a matching run needs comes with it.
        speed: predicts what a run takes.

    Raises:
        ValueError: on a table, profile, field or value that does not exist.
    """
    wanted = parse_only(only)
    grid = grids.runs_of(tables, profile)
    chosen = {run for run in grid if all(getattr(run, name) == value for name, value in wanted.items())}
    found = chosen
    while found := {need for run in found for need in grids.needs(run)} - chosen:
        chosen |= found
    homes: dict[RunConfig, str] = {}
    for table in tables:
        for run in grids.TABLES[table](profile):
            homes.setdefault(run, table)
    speed = speed or SpeedEstimate(())
    return [PlannedRun(run, homes[run], _state(store.read(run)), speed.predict(run)) for run in grid if run in chosen]


def estimate_speed(store: Store, *, device: str | None = None, since: datetime | None = None) -> "SpeedEstimate":
    """The speed that a results folder tells of, from the finished runs of every profile.

    Args:
        store: what is recorded.
        device: name of the only device whose runs count; None for any.
        since: time with its zone; only runs that were started then or later count; None for all.
    """
    return SpeedEstimate(
        record
        for profile in PROFILES
        for record in store.records(profile)
        if record.finished
        and (device is None or _devices(record) == {device})
        and (since is None or datetime.fromisoformat(record.header["started"]) >= since)
    )


class SpeedEstimate:
    """Predicts a run's seconds, of training and evaluations, from finished runs.

    The time of a run is taken as proportional to its `work`; the factor is the median over the recorded runs that are
    most like it: of the same model, data set and number of views where there are any, else of the same model and data
    set, else of the same model, else of the same kind of data (texts, small images, or images decoded step by step).

    Args:
        records: finished runs. Those that several processes trained together do not count.
    """

    def __init__(self, records: Iterable[Record]):
        self._factors: list[tuple[RunConfig, float]] = [
            (record.config, _seconds(record) / work(record.config))
            for record in records
            if record.header.get("processes", 1) == 1
        ]

    def predict(self, config: RunConfig) -> float | None:
        """Seconds, or None where no run is recorded that tells."""
        kind = (config.is_text, config.is_encoded)
        alike = [(run, factor) for run, factor in self._factors if (run.is_text, run.is_encoded) == kind]
        if config.is_text and config.model not in LAYER_PARAMETERS:
            alike = [(run, factor) for run, factor in alike if run.model == config.model]
        if not alike:
            return None
        for name in ("model", "dataset", "num_views"):
            closer = [(run, factor) for run, factor in alike if getattr(run, name) == getattr(config, name)]
            if not closer:
                break
            alike = closer
        return statistics.median(factor for _, factor in alike) * work(config)


def work(config: RunConfig) -> float:
    """What the time of a run is proportional to: augmented examples times the size of one times that of the model."""
    if config.is_text:
        examples = config.train_size or TRAIN_SIZES.get(config.dataset, GRAMMAR_TRAIN_SIZE)
        pieces = PIECES.get(config.dataset, GRAMMAR_PIECES)
        # A model that is not listed is compared with itself alone.
        size = LAYER_PARAMETERS.get(config.model, 1.0)
        return config.epochs * examples * config.num_views * config.stretch * pieces * size
    examples = config.train_size or TRAIN_SIZES[config.dataset] - config.holdout
    layers = LAYERS[config.model] if config.is_encoded else int(config.model.removeprefix("resnet"))
    pixels = config.pixels_a_side**2 if config.is_encoded else PIXELS[config.dataset]
    return config.total_epochs * examples * config.num_views * pixels * layers


def first_epoch_seconds(config: RunConfig, predicted_seconds: float | None) -> float:
    """What the first epoch should take, by a prediction for the whole run; 0 where there is none."""
    return (predicted_seconds or 0.0) / config.total_epochs


def cost(predicted: Iterable[float | None]) -> str:
    """The sum of what is known, in words, and how many runs are not in it."""
    runs = list(predicted)
    known = [seconds for seconds in runs if seconds is not None]
    if not known and runs:
        return "unknown"
    missing = len(runs) - len(known)
    return duration(sum(known)) + (f" and {missing} runs whose time is unknown" if missing else "")


def duration(seconds: float | None) -> str:
    """Seconds in words a person reads at a glance."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _state(record: Record | None) -> str:
    if record is None:
        return "missing"
    return "recorded" if record.finished else "failed"


def _devices(record: Record) -> set[str]:
    """Names of the devices that trained a run: of a run that was resumed there may be several."""
    return {header["device"]["name"] for header in [record.header, *record.header.get("resumed_from", [])]}


def _seconds(record: Record) -> float:
    return record.result["train_seconds"] + sum(line["eval_seconds"] for line in record.epochs)
