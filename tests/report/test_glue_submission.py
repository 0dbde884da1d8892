import json
import math
import zipfile
from dataclasses import replace

import pytest
from invented import write_run

from mmel.grids import reported
from mmel.records import Store, write_atomically
from mmel.report.glue_submission import (
    PREDICTED,
    TEST_SETS,
    SubmissionError,
    submit,
    write_submission,
)

# As the server has them, written down apart from the module.
ROWS = {
    "CoLA.tsv": 1063,
    "SST-2.tsv": 1821,
    "MRPC.tsv": 1725,
    "STS-B.tsv": 1379,
    "QQP.tsv": 390965,
    "MNLI-m.tsv": 9796,
    "MNLI-mm.tsv": 9847,
    "QNLI.tsv": 5463,
    "RTE.tsv": 3000,
    "WNLI.tsv": 146,
    "AX.tsv": 1104,
}
NLI = ["entailment", "neutral", "contradiction"]
TWO = ["entailment", "not_entailment"]
BINARY = ["0", "1"]
WORDS = {
    "CoLA.tsv": BINARY,
    "SST-2.tsv": BINARY,
    "MRPC.tsv": BINARY,
    "QQP.tsv": BINARY,
    "MNLI-m.tsv": NLI,
    "MNLI-mm.tsv": NLI,
    "QNLI.tsv": TWO,
    "RTE.tsv": TWO,
    "WNLI.tsv": BINARY,
    "AX.tsv": NLI,
}


def predictions():
    """Class i mod C for example i; scores from -1 up, so that clipping shows."""
    return {
        name: [i % len(TEST_SETS[name].labels) if TEST_SETS[name].labels else i / 200 - 1 for i in range(rows)]
        for name in PREDICTED
        for rows in [TEST_SETS[name].rows]
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("submission") / "new" / "submission.zip"
    return path, write_submission(predictions(), path)


@pytest.fixture(scope="module")
def files(written):
    with zipfile.ZipFile(written[0]) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture
def short_qqp(monkeypatch):
    """The largest test set cut to 20 rows, to save time."""
    monkeypatch.setitem(TEST_SETS, "qqp", replace(TEST_SETS["qqp"], rows=20))


@pytest.fixture
def short(files, short_qqp):
    return files | {"QQP.tsv": "".join(files["QQP.tsv"].splitlines(keepends=True)[:21])}


# What is written.


def test_files_and_row_counts(files):
    counts = {name: len(text.splitlines()) - 1 for name, text in files.items()}
    assert counts == ROWS
    assert {text.splitlines()[0] for text in files.values()} == {"index\tprediction"}


def test_every_row_counts_on_and_says_a_label(files):
    for name, words in WORDS.items():
        given = name not in ("WNLI.tsv", "AX.tsv")
        expected = [f"{i}\t{words[i % len(words) if given else 0]}" for i in range(ROWS[name])]
        assert files[name].splitlines()[1:] == expected, name


def test_scores_have_three_decimals_and_are_clipped(files):
    rows = files["STS-B.tsv"].splitlines()[1:]
    assert rows[0] == "0\t0.000"  # -1
    assert rows[199] == "199\t0.000"
    assert rows[201] == "201\t0.005"
    assert rows[999] == "999\t3.995"
    assert rows[1199] == "1199\t4.995"
    assert rows[-1] == "1378\t5.000"  # 5.89


def test_placeholders_are_told(written):
    _, notes = written
    assert [note.split()[0] for note in notes] == ["WNLI.tsv", "AX.tsv"]
    assert all("placeholder" in note for note in notes)


def test_given_wnli_is_no_placeholder(short_qqp, tmp_path):
    notes = write_submission(predictions() | {"wnli": [1] * 146}, tmp_path / "a.zip")
    assert [note.split()[0] for note in notes] == ["AX.tsv"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.read("WNLI.tsv").decode().splitlines()[1:3] == ["0\t1", "1\t1"]


def test_same_predictions_same_bytes(written, tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_submission(predictions(), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == written[0].read_bytes()


def test_numpy_predictions(short, tmp_path):
    numpy = pytest.importorskip("numpy")
    write_submission({name: numpy.array(values) for name, values in predictions().items()}, tmp_path / "numpy.zip")
    with zipfile.ZipFile(tmp_path / "numpy.zip") as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == short


# What is refused, leaving the old file alone.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rte": [0] * 2999}, r"predictions\['rte'\] must have 3000 entries, got 2999"),
        ({"mnli_mm": [0] * 9796}, r"predictions\['mnli_mm'\] must have 9847 entries, got 9796"),
        ({"cola": [0] * 1062 + [2]}, r"predictions\['cola'\]\[1062\] must be a class from 0 to 1 \(0, 1\), got 2"),
        ({"cola": [-1] + [0] * 1062}, r"predictions\['cola'\]\[0\] .*got -1"),
        ({"cola": [0.7] * 1063}, r"predictions\['cola'\]\[0\] .*got 0.7"),
        ({"cola": ["1"] * 1063}, r"predictions\['cola'\]\[0\] .*got '1'"),
        ({"cola": [None] * 1063}, r"predictions\['cola'\]\[0\] .*got None"),
        ({"cola": [[0.2, 0.8]] * 1063}, r"predictions\['cola'\]\[0\] .*got \[0.2, 0.8\]"),
        ({"cola": [math.nan] * 1063}, r"predictions\['cola'\]\[0\] .*got nan"),
        ({"stsb": [1.0, math.nan] + [1.0] * 1377}, r"predictions\['stsb'\]\[1\] must be a finite score, got nan"),
        ({"stsb": [math.inf] * 1379}, r"predictions\['stsb'\]\[0\] .*got inf"),
        ({"mnli": [3] * 9796}, r"from 0 to 2 \(entailment, neutral, contradiction\), got 3"),
        ({"sst-2": [0] * 1821}, "unknown: sst-2"),
    ],
)
def test_bad_predictions(short_qqp, tmp_path, change, message):
    path = tmp_path / "old.zip"
    path.write_text("old")
    with pytest.raises(SubmissionError, match=message):
        write_submission(predictions() | change, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_predictions(tmp_path):
    with pytest.raises(SubmissionError, match="missing: qqp, rte; unknown: none"):
        write_submission({k: v for k, v in predictions().items() if k not in ("rte", "qqp")}, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


# One method's submission, from its recorded runs.


def write_method(store, method="mmel_h", scores=(70.0, 72.0, 71.0), without=()):
    """Runs of Table 3 in `paper`, one a score, and test predictions that tell seed and split."""
    for config in reported("table3", "paper"):
        if config.method != method or config.seed >= len(scores) or config.dataset in without:
            continue
        mismatched = {"mm": 10.0} if config.dataset == "mnli" else {}
        write_run(store, config, scores[config.seed], **mismatched)
        splits = {"test": config.dataset} | ({"test_mm": "mnli_mm"} if config.dataset == "mnli" else {})
        said = {split: [said_by(config.seed, name)] * TEST_SETS[name].rows for split, name in splits.items()}
        write_atomically(store.predictions_path(config), json.dumps(said))


def said_by(seed, name):
    """What a run predicts in every row: another class for another seed, and for the mismatched split."""
    if not TEST_SETS[name].labels:
        return float(seed)
    return (seed + (name == "mnli_mm")) % len(TEST_SETS[name].labels)


def words(path):
    """The one word of each file that the study predicts."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(TEST_SETS[name].file).decode().splitlines()[1:] for name in PREDICTED}
    found = {name: {line.split("\t")[1] for line in lines} for name, lines in contents.items()}
    assert {len(said) for said in found.values()} == {1}
    return {name: said.pop() for name, said in found.items()}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_a_submission_takes_the_run_that_is_best_on_dev(store, short_qqp):
    write_method(store)
    path, notes = submit(store, "paper", "mmel_h")
    assert path == store.report_dir("paper") / "glue_mmel_h.zip"
    assert [note.split()[0] for note in notes] == ["WNLI.tsv", "AX.tsv"]
    found = words(path)
    # Seed 1 has 72.0.
    assert (found["cola"], found["rte"], found["stsb"]) == ("1", "not_entailment", "1.000")
    # Each of MNLI's two splits goes into its own file.
    assert (found["mnli"], found["mnli_mm"]) == ("neutral", "contradiction")


def test_the_best_run_is_chosen_task_by_task(store, short_qqp):
    write_method(store)
    first = next(run for run in reported("table3", "paper") if (run.dataset, run.method) == ("cola", "mmel_h"))
    write_run(store, first, 99.0)
    found = words(submit(store, "paper", "mmel_h")[0])
    assert (found["cola"], found["sst2"]) == ("0", "1")


def test_what_another_method_or_a_failed_run_says_is_not_submitted(store, short_qqp):
    write_method(store, scores=(70.0,))
    write_method(store, "mmel_s", scores=(10.0, 99.0))
    failed = next(
        run for run in reported("table3", "paper") if (run.dataset, run.method, run.seed) == ("cola", "mmel_h", 1)
    )
    write_run(store, failed, error="loss is nan")
    write_atomically(store.predictions_path(failed), json.dumps({"test": [1] * TEST_SETS["cola"].rows}))
    assert words(submit(store, "paper", "mmel_h")[0])["cola"] == "0"


def test_tasks_without_predictions_are_named(store, short_qqp):
    write_method(store, without=("rte", "mnli"))
    with pytest.raises(SubmissionError, match=r"no finished mmel_h run with test predictions for mnli, mnli_mm, rte:"):
        submit(store, "paper", "mmel_h")
    assert not store.report_dir("paper").exists()


def test_a_damaged_file_of_predictions_is_named(store, short_qqp):
    write_method(store, scores=(70.0,))
    path = next(store.predictions_path(run) for run in reported("table3", "paper") if run.method == "mmel_h")
    for content in (b"", b"torn", b"\xff", b"[1]", b'{"test": 1}'):
        path.write_bytes(content)
        with pytest.raises(SubmissionError, match=path.name):
            submit(store, "paper", "mmel_h")
