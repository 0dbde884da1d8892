"""The zip that the GLUE server takes: one TSV per test set."""

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmel.study.datasets import DATASETS
from mmel.study.records import Store, write_atomically
from mmel.study.report.layout import COLUMNS
from mmel.study.tables import TABLES


@dataclass(frozen=True)
class ServerFile:
    """The server's form of one test set.

    Attributes:
        file: its name in the zip.
        rows: how many predictions.
        labels: the server's name of each class, in the hub's integer order; empty for scores from 0 to 5.
    """

    file: str
    rows: int
    labels: tuple[str, ...]


def _server_file(column: str) -> ServerFile:
    """The test set of a column of the GLUE tables; its words are those of GLUE's files."""
    task, _, mismatched = column.partition("_")
    data = DATASETS[task]
    return ServerFile(f"{COLUMNS[column]}.tsv", data.sizes["test_mm" if mismatched else "test"], data.labels)


TEST_SETS = {column: _server_file(column) for column in COLUMNS}
# The server wants these too, for which the study trains no model: one class fills them. It is the commoner class of
# WNLI's training examples; AX is scored by the Matthews correlation, which is 0 for any constant.
PLACEHOLDERS = {
    "wnli": ServerFile("WNLI.tsv", 146, ("0", "1")),
    "ax": ServerFile("AX.tsv", 1104, DATASETS["mnli"].labels),
}
HEADER = "index\tprediction"
# The earliest time a zip can hold: the same predictions give the same bytes.
TIMESTAMP = (1980, 1, 1, 0, 0, 0)


class SubmissionError(ValueError):
    """Predictions that make no submission."""


def write_submission(predictions: Mapping[str, Sequence[float]], path: Path) -> list[str]:
    """Write the zip of a submission, whole or not at all.

    Args:
        predictions: for each name in TEST_SETS one entry per test example in the test set's order: classes in the hub's
            integer order; for `stsb` scores, which are clipped to 0 to 5.
        path: where the zip goes.

    Returns:
        One line for each placeholder, to be shown beside the path.

    Raises:
        SubmissionError: if predictions of a test set are too few, too many or none at all, naming it.
    """
    content = io.BytesIO()
    # Not compressed, since another zlib gives other bytes.
    with zipfile.ZipFile(content, "w") as archive:
        for name, test_set in (TEST_SETS | PLACEHOLDERS).items():
            values = predictions[name] if name in TEST_SETS else [0] * test_set.rows
            info = zipfile.ZipInfo(test_set.file, TIMESTAMP)
            info.external_attr = 0o644 << 16
            archive.writestr(info, _tsv(name, test_set, values))
    write_atomically(path, content.getvalue())
    return [f"{one.file} is a placeholder: {one.labels[0]!r} in every row" for one in PLACEHOLDERS.values()]


def submit(store: Store, profile: str, method: str, text_model: str | None = None) -> tuple[Path, list[str]]:
    """Write the submission of one method: for each task the test predictions of its run with the best dev score.

    Args:
        store: where records and predictions are.
        profile: whose runs of Table 3.
        method: one for text, see `mmel.study.methods`.
        text_model: name of the text encoder; None for the profile's.

    Returns:
        The zip, `results/report/<profile>/glue_<method>.zip`, and its placeholders.

    Raises:
        SubmissionError: if a task has no finished run with predictions, naming the tasks, or if a file of predictions
            cannot be used.
    """
    predictions: dict[str, list] = {}
    best: dict[str, float] = {}
    for config in TABLES["table3"].reported(profile, text_model):
        record = store.read(config) if config.method == method else None
        path = store.predictions_path(config)
        if record is None or not record.finished or not path.exists():
            continue
        if record.score > best.get(config.dataset, float("-inf")):
            best[config.dataset] = record.score
            for split, values in _predicted(path).items():
                predictions[config.dataset + split.removeprefix("test")] = values
    if missing := [name for name in TEST_SETS if name not in predictions]:
        raise SubmissionError(
            f"profile {profile} has no finished {method} run with test predictions for {', '.join(missing)}: they are "
            "saved if a run is on a whole task whose test split is in the data root"
        )
    path = store.report_dir(profile) / f"glue_{method}.zip"
    return path, write_submission(predictions, path)


def _predicted(path: Path) -> dict[str, list]:
    try:
        found = json.loads(path.read_bytes())
        return {split: list(found[split]) for split in found.keys() & {"test", "test_mm"}}
    except (ValueError, TypeError, AttributeError) as error:
        raise SubmissionError(f"{path} holds no predictions, delete it and train the run again: {error}") from error


def _tsv(name: str, test_set: ServerFile, values: Sequence[float]) -> str:
    num = len(test_set.labels)
    # 1.0 is a class, 0.7 is a probability in the place of a class.
    if num:
        words = [test_set.labels[int(value)] for value in values if value in range(num)]
    else:
        numbers = (value for value in values if isinstance(value, int | float) and math.isfinite(value))
        words = [f"{min(max(value, 0.0), 5.0):.3f}" for value in numbers]
    if not len(words) == len(values) == test_set.rows:
        wanted = f"classes from 0 to {num - 1}" if num else "finite scores"
        got = f"{len(values)} entries of which {len(words)} are such"
        raise SubmissionError(f"predictions[{name!r}] must be {test_set.rows} {wanted}, got {got}")
    return "\n".join([HEADER, *(f"{index}\t{word}" for index, word in enumerate(words))]) + "\n"
