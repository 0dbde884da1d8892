import json
import re
import zipfile

import pytest
from invented import mismatched, reported, write_run

from mmel.study.records import write_atomically
from mmel.study.report import frames
from mmel.study.report.glue_submission import TEST_SETS, SubmissionError, enter_scores, submit, write_submission

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
    monkeypatch.setitem(TEST_SETS, "qqp", TEST_SETS["qqp"]._replace(rows=20))


def test_every_file_has_its_rows_and_labels(tmp_path):
    write_submission(predictions(), tmp_path / "new" / "glue.zip")
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


def test_the_same_predictions_give_the_same_bytes(tmp_path, monkeypatch, short_qqp):
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    write_submission(predictions(), first)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_submission(predictions(), second)
    assert first.read_bytes() == second.read_bytes()


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
        write_run(store, config, scores[config.seed], each=mismatched(config, 10.0))
        splits = {"test": config.dataset} | ({"test_mm": "mnli_mm"} if config.dataset == "mnli" else {})
        said = {split: [(config.seed + (split != "test")) % 2] * TEST_SETS[name].rows for split, name in splits.items()}
        write_atomically(store.predictions_path(config), json.dumps(said))


def first(dataset):
    return reported("table3", "paper", dataset=dataset, method="mmel_h")[0]


def said(path):
    """The one word of each file."""
    return {name: lines[0][1] for name, lines in read(path).items() if len({word for _, word in lines}) == 1}


def test_each_seed_has_a_zip_of_its_own_runs_and_an_incomplete_one_is_told(store, short_qqp):
    write_method(store)
    write_method(store, "mmel_s", scores=(99.0,))
    # A run that failed has nothing to submit.
    write_run(store, first("cola").replace(seed=2), error="loss is nan")
    paths, notes = submit(store, "paper", "mmel_h")
    assert paths == [store.report_dir("paper") / f"glue_mmel_h-s{seed}.zip" for seed in (0, 1)]
    # Each of MNLI's two splits goes into its own file.
    files = ("CoLA.tsv", "RTE.tsv", "STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv")
    assert [[said(path)[name] for name in files] for path in paths] == [
        ["0", "entailment", "0.000", "entailment", "neutral"],
        ["1", "not_entailment", "1.000", "neutral", "entailment"],
    ]
    assert [note.split()[0] for note in notes[:2]] == list(PLACEHOLDERS)
    assert [re.findall(r"seed \d|cola|rte", note) for note in notes[2:4]] == [
        ["seed 2", "cola"],
        ["seed 3", "cola", "rte"],
    ]


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


# What the server says of it.
SCORES = ["method,seed,task,score", "mmel_h,0,cola,52.1", "mmel_h,1,cola,54.1", "mmel_h,0,mnli_mm,83.4"]


def entered(store, *lines):
    (store.root / "new.csv").write_text("\n".join(lines) + "\n")
    return enter_scores(store, "paper", store.root / "new.csv")


def test_scores_of_the_server_are_kept_and_fill_the_test_part_of_table_3(store):
    entered(store, *SCORES)
    kept = entered(store, SCORES[0], "mmel_h,1,cola,56.1", "baseline,4,rte,-0.5")
    assert len(kept.read_text().splitlines()) == 1 + len(SCORES)
    found = frames.cells(frames.load("table3", store, "paper"), "test").dropna(subset="mean").set_index("place")
    assert found[["arm", "mean", "n"]].T.to_dict("list") == {
        "rte": ["Baseline", -0.5, 1],
        "cola": ["MMEL-H", pytest.approx(54.1), 2],
        "mnli_mm": ["MMEL-H", 83.4, 1],
    }


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], ":1 must have the fields method, seed, task, score"),
        (SCORES[:1], "got 1 rows"),
        ([*SCORES, "mmel_h,2,cola"], ":5 must have the fields"),
        ([*SCORES, "mmel_x,2,cola,50"], ":5: method must be one of baseline, .*mmel_s, got 'mmel_x'"),
        ([*SCORES, "mmel_h,99,cola,50"], ":5: seed must be one of 0, 1, .*, got '99'"),
        ([*SCORES, "mmel_h,2,mnli-mm,50"], ":5: task must be one of .*, got 'mnli-mm'"),
        ([*SCORES, "mmel_h,2,cola,nan"], ":5: score must be a percentage from -100 to 100, got 'nan'"),
        ([*SCORES, "mmel_h,2,cola,100.5"], ":5: score must be a percentage"),
        ([*SCORES, SCORES[1]], ":5: a row of this method, seed and task stands above"),
    ],
)
def test_scores_that_cannot_be_entered_name_their_line_and_change_nothing(store, lines, told):
    kept = entered(store, *SCORES)
    before = kept.read_bytes()
    with pytest.raises(SubmissionError, match=f"new.csv.*{told}"):
        entered(store, *lines)
    assert kept.read_bytes() == before
