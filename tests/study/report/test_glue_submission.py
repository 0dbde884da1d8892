import json
import zipfile
from dataclasses import replace

import pytest
from invented import reported, write_run

from mmel.study.records import Store, write_atomically
from mmel.study.report.glue_submission import TEST_SETS, SubmissionError, submit, write_submission

# As the server has them, written down apart from the module: rows and labels of each file, in order.
NLI, TWO, BINARY = ["entailment", "neutral", "contradiction"], ["entailment", "not_entailment"], ["0", "1"]
FILES = {
    "CoLA.tsv": (1063, BINARY),
    "SST-2.tsv": (1821, BINARY),
    "MRPC.tsv": (1725, BINARY),
    "STS-B.tsv": (1379, None),
    "QQP.tsv": (390965, BINARY),
    "MNLI-m.tsv": (9796, NLI),
    "MNLI-mm.tsv": (9847, NLI),
    "QNLI.tsv": (5463, TWO),
    "RTE.tsv": (3000, TWO),
    "WNLI.tsv": (146, BINARY),
    "AX.tsv": (1104, NLI),
}
PLACEHOLDERS = ("WNLI.tsv", "AX.tsv")


def predictions(**changed):
    """Class i mod C for example i; scores from -1 up, so that clipping shows."""
    usual = {
        name: [i % len(one.labels) if one.labels else i / 200 - 1 for i in range(one.rows)]
        for name, one in TEST_SETS.items()
    }
    return usual | changed


def read(path):
    """File -> its lines as (index, prediction)."""
    with zipfile.ZipFile(path) as archive:
        texts = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    assert {lines[0] for lines in texts.values()} == {"index\tprediction"}
    return {name: [tuple(line.split("\t")) for line in lines[1:]] for name, lines in texts.items()}


@pytest.fixture
def short_qqp(monkeypatch):
    """The largest test set cut to 20 rows, to save time."""
    monkeypatch.setitem(TEST_SETS, "qqp", replace(TEST_SETS["qqp"], rows=20))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_every_file_has_its_rows_and_labels(tmp_path):
    told = write_submission(predictions(), tmp_path / "new" / "glue.zip")
    found = read(tmp_path / "new" / "glue.zip")
    assert list(found) == list(FILES)
    for name, (rows, labels) in FILES.items():
        indices, said = zip(*found[name], strict=True)
        assert indices == tuple(map(str, range(rows)))
        if labels is None:
            # -1 up to 5.89 in steps of 0.005, clipped.
            assert (said[0], said[201], said[-1]) == ("0.000", "0.005", "5.000")
        else:
            assert said == tuple(labels[0 if name in PLACEHOLDERS else i % len(labels)] for i in range(rows))
    assert [line.split()[0] for line in told] == list(PLACEHOLDERS)


def test_the_same_predictions_give_the_same_bytes(tmp_path, short_qqp):
    for name in ("a.zip", "b.zip"):
        write_submission(predictions(), tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rte", lambda values: values[:-1]),
        ("rte", lambda values: [2, *values[1:]]),
        ("rte", lambda values: [0.7, *values[1:]]),
        ("cola", lambda values: ["1", *values[1:]]),
        ("stsb", lambda values: [float("nan"), *values[1:]]),
    ],
)
def test_bad_predictions_name_their_test_set_and_write_nothing(tmp_path, short_qqp, name, change):
    bad = predictions(**{name: change(predictions()[name])})
    with pytest.raises(SubmissionError, match=name):
        write_submission(bad, tmp_path / "glue.zip")
    assert list(tmp_path.iterdir()) == []


# One method's submission, from its recorded runs.


def write_method(store, method="mmel_h", scores=(70.0, 72.0, 71.0), without=()):
    """Runs of Table 3 in `paper`, one per score, and test predictions that tell seed and split."""
    for config in reported("table3", "paper", method=method):
        if config.seed >= len(scores) or config.dataset in without:
            continue
        write_run(store, config, scores[config.seed], mm=10.0 if config.dataset == "mnli" else None)
        splits = {"test": config.dataset} | ({"test_mm": "mnli_mm"} if config.dataset == "mnli" else {})
        said = {split: [(config.seed + (split != "test")) % 2] * TEST_SETS[name].rows for split, name in splits.items()}
        write_atomically(store.predictions_path(config), json.dumps(said))


def first(dataset):
    return reported("table3", "paper", dataset=dataset, method="mmel_h")[0]


def said(path):
    """The one word of each file."""
    return {name: lines[0][1] for name, lines in read(path).items() if len({word for _, word in lines}) == 1}


def test_each_task_takes_its_run_that_is_best_on_dev(store, short_qqp):
    write_method(store)
    write_method(store, "mmel_s", scores=(99.0,))
    write_run(store, first("cola"), 99.0)
    path, _ = submit(store, "paper", "mmel_h")
    assert path == store.report_dir("paper") / "glue_mmel_h.zip"
    found = said(path)
    # Seed 0 of CoLA, elsewhere seed 1; each of MNLI's two splits goes into its own file.
    assert (found["CoLA.tsv"], found["RTE.tsv"], found["STS-B.tsv"]) == ("0", "not_entailment", "1.000")
    assert (found["MNLI-m.tsv"], found["MNLI-mm.tsv"]) == ("neutral", "entailment")


def test_a_failed_run_is_not_submitted(store, short_qqp):
    write_method(store, scores=(70.0, 72.0))
    write_run(store, first("cola").replace(seed=1), error="loss is nan")
    assert said(submit(store, "paper", "mmel_h")[0])["CoLA.tsv"] == "0"


def test_tasks_without_predictions_are_named(store, short_qqp):
    write_method(store, without=("rte", "mnli"))
    with pytest.raises(SubmissionError, match="mnli, mnli_mm, rte"):
        submit(store, "paper", "mmel_h")
    assert not store.report_dir("paper").exists()


@pytest.mark.parametrize("content", ["no JSON", "[1, 2]", '{"test": 3}'])
def test_a_file_that_holds_no_predictions_is_named(store, short_qqp, content):
    write_method(store, scores=(70.0,))
    path = store.predictions_path(first("cola"))
    path.write_text(content)
    with pytest.raises(SubmissionError, match=path.name):
        submit(store, "paper", "mmel_h")
