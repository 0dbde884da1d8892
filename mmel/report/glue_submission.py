"""The zip that the GLUE server takes: one TSV for each test set."""

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmel.grids import reported
from mmel.records import Store, write_atomically

_BINARY = ("0", "1")
_NLI = ("entailment", "neutral", "contradiction")
_ENTAILMENT = ("entailment", "not_entailment")


@dataclass(frozen=True)
class ServerFile:
    """What the server expects of one test set.

    Attributes:
        file: its name in the zip.
        rows: how many predictions.
        labels: what it calls each class, in the hub's integer order; empty for scores from 0 to 5.
        placeholder: the class that stands in where the study trains no model; None where it does.
    """

    file: str
    rows: int
    labels: tuple[str, ...] = _BINARY
    placeholder: int | None = None


TEST_SETS = {
    "cola": ServerFile("CoLA.tsv", 1063),
    "sst2": ServerFile("SST-2.tsv", 1821),
    "mrpc": ServerFile("MRPC.tsv", 1725),
    "stsb": ServerFile("STS-B.tsv", 1379, ()),
    "qqp": ServerFile("QQP.tsv", 390965),
    "mnli": ServerFile("MNLI-m.tsv", 9796, _NLI),
    "mnli_mm": ServerFile("MNLI-mm.tsv", 9847, _NLI),
    "qnli": ServerFile("QNLI.tsv", 5463, _ENTAILMENT),
    "rte": ServerFile("RTE.tsv", 3000, _ENTAILMENT),
    # 0 is the commoner class of WNLI's training examples (323 of 635). AX is scored by the Matthews correlation, which
    # is 0 for any constant.
    "wnli": ServerFile("WNLI.tsv", 146, _BINARY, placeholder=0),
    "ax": ServerFile("AX.tsv", 1104, _NLI, placeholder=0),
}
PREDICTED = tuple(name for name, test_set in TEST_SETS.items() if test_set.placeholder is None)
HEADER = "index\tprediction"
# The earliest time a zip can hold: the same predictions give the same bytes.
TIMESTAMP = (1980, 1, 1, 0, 0, 0)


class SubmissionError(ValueError):
    """Predictions that make no submission."""


def write_submission(predictions: Mapping[str, Sequence[int] | Sequence[float]], path: str | Path) -> list[str]:
    """Write the zip of a submission, whole or not at all.

    The study trains no model for WNLI and for the diagnostic set AX. Where no predictions of them are given, one class
    fills their files, since the server wants all eleven; their scores, and the server's own average with WNLI in it,
    then mean nothing.

    Args:
        predictions: for each name in PREDICTED, and for `wnli` and `ax` if there are some, one entry a test example in
            the test set's order: classes in the hub's integer order; for `stsb` scores, which are clipped to 0 to 5.
        path: where the zip goes.

    Returns:
        What to say beside the zip: one line for each placeholder.

    Raises:
        SubmissionError: if a test set is missing or unknown, or its predictions are too few, too many or no
            predictions, naming it.
    """
    unknown, missing = set(predictions) - set(TEST_SETS), [name for name in PREDICTED if name not in predictions]
    if unknown or missing:
        raise SubmissionError(
            f"predictions must have {', '.join(PREDICTED)} (and may have wnli and ax); "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(sorted(unknown)) or 'none'}"
        )
    notes, content = [], io.BytesIO()
    # Not compressed, since another zlib gives other bytes.
    with zipfile.ZipFile(content, "w") as archive:
        for name, test_set in TEST_SETS.items():
            if name in predictions:
                values = list(predictions[name])
            else:
                values = [test_set.placeholder] * test_set.rows
                notes.append(
                    f"{test_set.file} is a placeholder: {test_set.labels[test_set.placeholder]!r} in every row"
                )
            info = zipfile.ZipInfo(test_set.file, TIMESTAMP)
            info.external_attr = 0o644 << 16
            archive.writestr(info, _tsv(name, test_set, values))
    write_atomically(Path(path), content.getvalue())
    return notes


def submit(store: Store, profile: str, method: str) -> tuple[Path, list[str]]:
    """Write the submission of one method: for each task the test predictions of its run with the best dev score.

    Args:
        store: where records and predictions are.
        profile: whose runs of Table 3.
        method: of `mmel.config.TEXT_METHODS`.

    Returns:
        The zip, `results/report/<profile>/glue_<method>.zip`, and what to say beside it.

    Raises:
        SubmissionError: if a task has no finished run with predictions, naming the tasks, or a file of predictions
            cannot be read, naming it.
    """
    predictions: dict[str, list] = {}
    best: dict[str, float] = {}
    for config in reported("table3", profile):
        record = store.read(config) if config.method == method else None
        path = store.predictions_path(config)
        if record is None or not record.finished or not path.exists():
            continue
        if record.score > best.get(config.dataset, float("-inf")):
            best[config.dataset] = record.score
            for split, values in _read_predictions(path).items():
                predictions[config.dataset + split.removeprefix("test")] = values
    if missing := [name for name in PREDICTED if name not in predictions]:
        raise SubmissionError(
            f"profile {profile} has no finished {method} run with test predictions for {', '.join(missing)}: they are "
            "saved where a run is on a whole task whose test split is in the data root"
        )
    path = store.report_dir(profile) / f"glue_{method}.zip"
    return path, write_submission(predictions, path)


def _read_predictions(path: Path) -> dict[str, list]:
    try:
        said = json.loads(path.read_bytes())
    except ValueError:
        said = None
    if not isinstance(said, dict) or not all(isinstance(values, list) for values in said.values()):
        raise SubmissionError(
            f"{path} must be JSON with a list of predictions for each split; delete it and the record of its run to "
            "train it again"
        )
    return said


def _tsv(name: str, test_set: ServerFile, values: list) -> str:
    if len(values) != test_set.rows:
        raise SubmissionError(f"predictions[{name!r}] must have {test_set.rows} entries, got {len(values)}")
    lines = [HEADER]
    for index, value in enumerate(values):
        if not test_set.labels:
            if not _is_number(value):
                raise SubmissionError(f"predictions[{name!r}][{index}] must be a finite score, got {value!r}")
            text = f"{min(max(float(value), 0.0), 5.0):.3f}"
        else:
            if not _is_class(value, len(test_set.labels)):
                allowed = f"a class from 0 to {len(test_set.labels) - 1} ({', '.join(test_set.labels)})"
                raise SubmissionError(f"predictions[{name!r}][{index}] must be {allowed}, got {value!r}")
            text = test_set.labels[int(value)]
        lines.append(f"{index}\t{text}")
    return "\n".join(lines) + "\n"


def _is_number(value: object) -> bool:
    # float() would read strings too.
    return not isinstance(value, str | bytes | bool) and hasattr(value, "__float__") and math.isfinite(float(value))


def _is_class(value: object, num_classes: int) -> bool:
    # 1.0 is a class, 0.7 is a probability where a class belongs.
    return _is_number(value) and float(value) in range(num_classes)
