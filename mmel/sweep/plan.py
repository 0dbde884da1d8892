"""What of a grid is recorded, what is missing, and what the missing part will cost."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

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
        predicted_seconds: what it should take on the device of the newest record, or None where nothing is known.
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


def plan(tables: list[str], profile: str, store: Store, only: Iterable[str] = ()) -> list[PlannedRun]:
    """The runs of some tables in the order in which they should be trained, each with its state and its cost.

    Args:
        tables: names of `grids.TABLES`.
        profile: `mini`, `reduced` or `paper`.
        store: what is recorded.
        only: `field=value` entries that a run must match; it must match them all.

    Raises:
        ValueError: on a table, profile, field or value that does not exist.
    """
    wanted = parse_only(only)
    runs = [
        run
        for run in grids.runs_of(tables, profile)
        if all(getattr(run, name) == value for name, value in wanted.items())
    ]
    homes: dict[RunConfig, str] = {}
    for table in tables:
        for run in grids.TABLES[table](profile):
            homes.setdefault(run, table)
    speed = estimate_speed(store)
    return [PlannedRun(run, homes[run], _state(store.read(run)), speed.predict(run)) for run in runs]


def estimate_speed(store: Store) -> "SpeedEstimate":
    """The speed that a results folder tells of, from the finished runs of every profile."""
    return SpeedEstimate(record for profile in PROFILES for record in store.records(profile) if record.finished)


class SpeedEstimate:
    """Predicts a run's seconds from the finished runs on the device of the newest one.

    The time of a run is taken as proportional to its `work`; the factor is the median over recorded runs, of the same
    data set and model where there are any, else of the same model, else of the same kind of data.

    Args:
        records: finished runs.

    Attributes:
        device: name of that device, or None where nothing is recorded.
    """

    def __init__(self, records: Iterable[Record]):
        newest_first = sorted(records, key=lambda record: record.header["started"], reverse=True)
        self.device: str | None = newest_first[0].header["device"]["name"] if newest_first else None
        self._factors: list[tuple[RunConfig, float]] = [
            (record.config, record.result["train_seconds"] / work(record.config))
            for record in newest_first
            if record.header["device"]["name"] == self.device
        ]

    def predict(self, config: RunConfig) -> float | None:
        """Seconds of training, or None where no run is recorded that tells."""
        same_kind = [(run, factor) for run, factor in self._factors if run.is_text == config.is_text]
        if config.is_text and config.model not in LAYER_PARAMETERS:
            same_kind = [(run, factor) for run, factor in same_kind if run.model == config.model]
        if not same_kind:
            return None
        same_model = [(run, factor) for run, factor in same_kind if run.model == config.model]
        alike = [(run, factor) for run, factor in same_model if run.dataset == config.dataset]
        return statistics.median(factor for _, factor in alike or same_model or same_kind) * work(config)


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


def total_seconds(predicted: Iterable[float | None]) -> float | None:
    """Their sum, or None where one of them is not known."""
    known = list(predicted)
    return None if None in known else sum(known)


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
