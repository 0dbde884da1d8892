"""The GLUE server: the zips that it takes, one TSV per test set, and the scores that it gives."""

import csv
import io
import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmel.study.datasets import DATASETS
from mmel.study.models import text_model_name
from mmel.study.records import Store, write_atomically
from mmel.study.report.layout import COLUMNS
from mmel.study.tables import TABLES


class TestSet(NamedTuple):
    """A test set as the server takes it: file in the zip, number of predictions, and the server's name of each class.

    The names are in the hub's integer order; there are none for scores from 0 to 5.
    """

    file: str
    rows: int
    labels: tuple[str, ...]


def _test_set(column: str) -> TestSet:
    task, _, mismatched = column.partition("_")
    data = DATASETS[task]
    return TestSet(f"{COLUMNS[column]}.tsv", data.sizes["test_mm" if mismatched else "test"], data.labels)


TEST_SETS = {column: _test_set(column) for column in COLUMNS}
# The server wants these too, for which the study trains no model: one class fills them. It is the commoner class of
# WNLI's training examples; AX is scored by the Matthews correlation, which is 0 for any constant.
PLACEHOLDERS = {
    "wnli": TestSet("WNLI.tsv", 146, ("0", "1")),
    "ax": TestSet("AX.tsv", 1104, DATASETS["mnli"].labels),
}
HEADER = "index\tprediction"
# A row of the server's scores; a task is a name in TEST_SETS.
SCORE_FIELDS = ("method", "seed", "task", "score")
# The earliest time a zip can hold: the same predictions give the same bytes.
TIMESTAMP = (1980, 1, 1, 0, 0, 0)


class SubmissionError(ValueError):
    """Predictions that make no submission, or scores that cannot be entered."""


def write_submission(predictions: Mapping[str, Sequence[float]], path: Path) -> None:
    """Write the zip of a submission, whole or not at all.

    Args:
        predictions: for each name in TEST_SETS one entry per test example in the test set's order: classes in the hub's
            integer order; for `stsb` scores, which are clipped to 0 to 5.
        path: where the zip goes.

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


def submit(store: Store, profile: str, method: str) -> tuple[list[Path], list[str]]:
    """Write a submission for each seed of a profile's Table 3 with one method; none is chosen by its dev score.

    Returns:
        The zips, `results/report/<profile>/glue_<method>-s<seed>.zip`, and notes: the placeholders, and the seeds that
        are left out with the tasks that they lack.

    Raises:
        SubmissionError: if no seed has a finished run with predictions for each task, naming the tasks, or if a file of
            predictions cannot be used.
    """
    seeds: dict[int, dict[str, list]] = {}
    for config in TABLES["table3"].reported(profile, text_model_name()):
        if config.method == method:
            predictions, path = seeds.setdefault(config.seed, {}), store.predictions_path(config)
            if (record := store.read(config)) and record.finished and path.exists():
                predictions |= _predicted(path, config.dataset)
    paths, left_out = [], []
    for seed, predictions in seeds.items():
        if missing := [name for name in TEST_SETS if name not in predictions]:
            left_out.append(f"seed {seed} has no finished {method} run with test predictions for {', '.join(missing)}")
        else:
            paths.append(store.report_dir(profile) / f"glue_{method}-s{seed}.zip")
            write_submission(predictions, paths[-1])
    if not paths:
        raise SubmissionError(
            f"profile {profile}: {next(iter(left_out), f'no runs of {method}')}: predictions are saved if a run is on "
            "a whole task whose test split is in the data root"
        )
    placeholders = [f"{one.file} is a placeholder: {one.labels[0]!r} in every row" for one in PLACEHOLDERS.values()]
    return paths, placeholders + left_out


def enter_scores(store: Store, profile: str, path: Path) -> Path:
    """Keep scores of the server beside the runs of a profile; a score of the same run and test set is replaced.

    Returns:
        The file that holds all scores of the profile.

    Raises:
        SubmissionError: as `read_scores`.
    """
    kept = store.glue_scores_path(profile)
    scores = (read_scores(kept, profile) if kept.exists() else {}) | read_scores(path, profile)
    lines = [SCORE_FIELDS, *((*run, score) for run, score in sorted(scores.items()))]
    write_atomically(kept, "".join(",".join(map(str, line)) + "\n" for line in lines))
    return kept


def read_scores(path: Path, profile: str) -> dict[tuple[str, int, str], float]:
    """Scores of the server in percent, by method, seed and test set; the file's columns are SCORE_FIELDS.

    Raises:
        SubmissionError: if a row has another form or is given twice, or is of no run of the profile, naming its line.
    """
    runs = TABLES["table3"].reported(profile)
    allowed = {
        "method": list(dict.fromkeys(run.method for run in runs)),
        "seed": list(dict.fromkeys(str(run.seed) for run in runs)),
        "task": list(TEST_SETS),
    }
    scores = {}
    try:
        rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SubmissionError(f"{path} must be a CSV file, got {error}") from error
    for number, row in enumerate(rows, start=1):
        where = f"{path}:{number}"
        if len(row) != len(SCORE_FIELDS) or (number == 1 and tuple(row) != SCORE_FIELDS):
            raise SubmissionError(f"{where} must have the fields {', '.join(SCORE_FIELDS)}, got {row}")
        if number == 1:
            continue
        for (name, options), value in zip(allowed.items(), row, strict=False):
            if value not in options:
                raise SubmissionError(f"{where}: {name} must be one of {', '.join(options)}, got {value!r}")
        method, seed, task, score = row
        if not re.fullmatch(r"-?(100|\d{1,2})(\.\d+)?", score) or abs(float(score)) > 100:
            raise SubmissionError(f"{where}: score must be a percentage from -100 to 100, got {score!r}")
        if (method, int(seed), task) in scores:
            raise SubmissionError(f"{where}: a row of this method, seed and task stands above")
        scores[method, int(seed), task] = float(score)
    if not scores:
        raise SubmissionError(f"{path} must have a row of fields and rows of scores, got {len(rows)} rows")
    return scores


def _predicted(path: Path, task: str) -> dict[str, list]:
    """The predictions in a file, by names in TEST_SETS."""
    try:
        found = json.loads(path.read_bytes())
        return {task + split.removeprefix("test"): list(found[split]) for split in found.keys() & {"test", "test_mm"}}
    except (ValueError, TypeError, AttributeError) as error:
        raise SubmissionError(f"{path} holds no predictions, delete it and train the run again: {error}") from error


def _tsv(name: str, test_set: TestSet, values: Sequence[float]) -> str:
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
