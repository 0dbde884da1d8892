import os
from collections import Counter
from pathlib import Path

import pytest

from mmel.data import DataError
from mmel.data.glue import HUB_REVISION, Examples, TextData, load_text, subset
from mmel.data.glue_tasks import OFFICIAL_SIZES, TASKS

# The hub's features, from its data card, apart from the module: columns, and the classes in their integer order.
HUB = {
    "cola": (("sentence",), ["unacceptable", "acceptable"]),
    "sst2": (("sentence",), ["negative", "positive"]),
    "mrpc": (("sentence1", "sentence2"), ["not_equivalent", "equivalent"]),
    "stsb": (("sentence1", "sentence2"), None),
    "qqp": (("question1", "question2"), ["not_duplicate", "duplicate"]),
    "mnli": (("premise", "hypothesis"), ["entailment", "neutral", "contradiction"]),
    "qnli": (("question", "sentence"), ["entailment", "not_entailment"]),
    "rte": (("sentence1", "sentence2"), ["entailment", "not_entailment"]),
}
FOLDERS = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B"} | {
    name: name.upper() for name in ("qqp", "mnli", "qnli", "rte")
}
NLI = "promptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
STS = "genre\tfilename\tyear\told_index\tsource1\tsource2"
# The official files' columns: of train, dev, and the header of test. {} is a sentence, {y} the label.
OFFICIAL = {
    "cola": (None, "gj04\t{y}\t*\t{}", "index\tsentence", "{i}\t{}"),
    "sst2": ("sentence\tlabel", "{}\t{y}", "index\tsentence", "{i}\t{}"),
    "mrpc": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "{y}\t702\t703\t{}\t{}",
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "{i}\t702\t703\t{}\t{}",
    ),
    "stsb": (
        f"index\t{STS}\tsentence1\tsentence2\tscore",
        "{i}\tnews\tMSRvid\t2012\t1\tnone\tnone\t{}\t{}\t{y}",
        f"index\t{STS}\tsentence1\tsentence2",
        "{i}\tnews\tMSRvid\t2012\t1\tnone\tnone\t{}\t{}",
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "{i}\t1\t2\t{}\t{}\t{y}",
        "id\tquestion1\tquestion2",
        "{i}\t{}\t{}",
    ),
    "mnli": (
        f"index\t{NLI}\tsentence1\tsentence2\tlabel1\tgold_label",
        "{i}\t3\t3e\ttravel\tb1\tb2\tp1\tp2\t{}\t{}\tneutral\t{y}",
        f"index\t{NLI}\tsentence1\tsentence2",
        "{i}\t3\t3e\ttravel\tb1\tb2\tp1\tp2\t{}\t{}",
    ),
    "qnli": ("index\tquestion\tsentence\tlabel", "{i}\t{}\t{}\t{y}", "index\tquestion\tsentence", "{i}\t{}\t{}"),
    "rte": ("index\tsentence1\tsentence2\tlabel", "{i}\t{}\t{}\t{y}", "index\tsentence1\tsentence2", "{i}\t{}\t{}"),
}
# What the files say for the classes, and for some scores.
LABELS = dict.fromkeys(HUB, ("0", "1")) | {
    "stsb": ("0.000", "3.800", "2.917", "5.000"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
}
# Text as it comes: an open quote, doubled quotes, characters at which str.splitlines breaks, blanks at the end.
TEXTS = ('He said "no .', '"What is ""this""?"', "a\x85b\u2028c\x0cd", "hide new secretions ", "Straße, naïve 中文")
SPLITS = {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}
SPLITS_MNLI = {
    "train": "train.tsv",
    "dev": "dev_matched.tsv",
    "dev_mm": "dev_mismatched.tsv",
    "test": "test_matched.tsv",
    "test_mm": "test_mismatched.tsv",
}
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
HUB_SPLITS_MNLI = {
    "train": "train",
    "dev": "validation_matched",
    "dev_mm": "validation_mismatched",
    "test": "test_matched",
    "test_mm": "test_mismatched",
}
each_task = pytest.mark.parametrize("name", HUB)


def splits_of(name):
    return SPLITS_MNLI if name == "mnli" else SPLITS


def sentence(split, i, which):
    return f"{split} {i} {which} {TEXTS[i % len(TEXTS)]}"


def write_official(root, name, rows=6):
    """A task's official files, of a few rows."""
    folder = root / FOLDERS[name]
    folder.mkdir(parents=True)
    header, line, test_header, test_line = OFFICIAL[name]
    for split, file in splits_of(name).items():
        pattern, first = (test_line, test_header) if split.startswith("test") else (line, header)
        lines = [] if first is None else [first]
        for i in range(rows):
            label = LABELS[name][i % len(LABELS[name])]
            # A pattern of one sentence leaves the second one out.
            lines.append(pattern.format(sentence(split, i, 1), sentence(split, i, 2), i=i, y=label))
        (folder / file).write_bytes(("\n".join(lines) + "\n").encode())
    return folder


def expected(name, rows=6):
    """What `write_official` must be read as."""
    columns, classes = HUB[name]
    splits = {}
    for split in splits_of(name):
        values = [float(x) for x in LABELS["stsb"]] if classes is None else list(range(len(classes)))
        splits[split] = Examples(
            [sentence(split, i, 1) for i in range(rows)],
            [sentence(split, i, 2) for i in range(rows)] if len(columns) == 2 else None,
            None if split.startswith("test") else [values[i % len(values)] for i in range(rows)],
        )
    return splits


@pytest.fixture
def no_hub(monkeypatch):
    """Loading from the hub fails as without a network, at once; returns the calls."""
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        raise ConnectionError("no network")

    monkeypatch.setattr(pytest.importorskip("datasets"), "load_dataset", load_dataset)
    return calls


@pytest.fixture
def hub(monkeypatch):
    """A hub that has `expected`, as its parquet files would give it."""
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(path, name, revision):
        calls.append((path, name, revision))
        columns, classes = HUB[name]
        label = datasets.Value("float32") if classes is None else datasets.ClassLabel(names=classes)
        features = datasets.Features(
            {**{c: datasets.Value("string") for c in columns}, "label": label, "idx": datasets.Value("int32")}
        )
        parts = {}
        for split, part in expected(name).items():
            # MRPC's test labels are on the hub, though not in GLUE's files.
            hidden = [1 if name == "mrpc" else -1] * len(part)
            values = [part.sentences, part.pairs][: len(columns)]
            parts[(HUB_SPLITS_MNLI if name == "mnli" else HUB_SPLITS)[split]] = datasets.Dataset.from_dict(
                {
                    **dict(zip(columns, values, strict=True)),
                    "label": part.targets or hidden,
                    "idx": list(range(len(part))),
                },
                features=features,
            )
        return datasets.DatasetDict(parts)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


# Tasks.


def test_tasks_in_the_papers_order():
    assert list(TASKS) == ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"]
    assert list(OFFICIAL_SIZES) == list(TASKS)
    assert all(name == task.name for name, task in TASKS.items())


def test_training_sizes():
    sizes = [OFFICIAL_SIZES[name]["train"] for name in TASKS]
    assert sizes == [8551, 67349, 3668, 5749, 363846, 392702, 104743, 2490]


def test_metrics():
    metrics = {name: (task.metric, task.test_metric) for name, task in TASKS.items()}
    accuracy = ("accuracy_pct", "accuracy_pct")
    assert metrics == dict.fromkeys(TASKS, accuracy) | {
        "cola": ("matthews_pct", "matthews_pct"),
        "stsb": ("spearman_pct", "spearman_pct"),
        "mrpc": ("accuracy_pct", "f1_pct"),
        "qqp": ("accuracy_pct", "f1_pct"),
    }


@each_task
def test_columns_and_labels_are_the_hubs(name):
    columns, classes = HUB[name]
    task = TASKS[name]
    assert task.columns == columns
    assert list(task.labels) == (classes or [])
    assert task.is_pair == (name not in ("cola", "sst2"))
    assert task.is_regression == (name == "stsb")
    assert task.num_outputs == {"stsb": 1, "mnli": 3}.get(name, 2)


# TSV files and hub.


@each_task
@pytest.mark.parametrize("below", ["", "glue"])
def test_official_files(tmp_path, no_hub, name, below):
    write_official(tmp_path / below, name)
    data = load_text(name, tmp_path)
    assert data.task == TASKS[name]
    assert data.splits == expected(name)
    assert no_hub == []


@each_task
def test_hub_and_files_are_equal(tmp_path, hub, name):
    from_hub = load_text(name, tmp_path)
    assert hub == [("nyu-mll/glue", name, HUB_REVISION)]
    write_official(tmp_path, name)
    from_files = load_text(name, tmp_path)
    assert len(hub) == 1
    assert from_hub == from_files
    # Plain lists, of plain numbers.
    assert repr(from_hub) == repr(from_files)


def test_hub_revision_is_a_commit():
    assert len(HUB_REVISION) == 40
    assert int(HUB_REVISION, 16)


def test_other_classes_on_the_hub(tmp_path, hub, monkeypatch):
    monkeypatch.setitem(HUB, "rte", (HUB["rte"][0], ["not_entailment", "entailment"]))
    with pytest.raises(DataError, match=r"rte: want the classes \('entailment', 'not_entailment'\)"):
        load_text("rte", tmp_path)


def test_data_root_from_the_environment(tmp_path, no_hub, monkeypatch):
    write_official(tmp_path / "a", "rte")
    monkeypatch.setenv("MMEL_DATA", str(tmp_path / "a"))
    assert load_text("rte").splits == expected("rte")
    # The argument comes first.
    write_official(tmp_path / "b", "rte", rows=3)
    assert len(load_text("rte", tmp_path / "b").splits["train"]) == 3
    monkeypatch.delenv("MMEL_DATA")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").rename(tmp_path / "data")
    assert len(load_text("rte").splits["train"]) == 3


def test_reduced_mnli_columns(tmp_path, no_hub):
    folder = write_official(tmp_path, "mnli")
    for split, file in list(SPLITS_MNLI.items())[2:]:
        (folder / file).unlink()
        assert split
    (folder / "train.tsv").write_text("index\tsentence1\tsentence2\tgold_label\n0\tA.\tB.\tcontradiction\n")
    data = load_text("mnli", tmp_path)
    assert list(data.splits) == ["train", "dev"]
    assert data.splits["train"] == Examples(["A."], ["B."], [2])


def test_columns_are_found_by_name(tmp_path, no_hub):
    folder = write_official(tmp_path, "rte")
    (folder / "dev.tsv").write_text("label\tsentence2\tmore\tsentence1\nnot_entailment\tB.\tx\tA.\n")
    assert load_text("rte", tmp_path).splits["dev"] == Examples(["A."], ["B."], [1])


def test_windows_line_ends_blank_lines_and_a_byte_order_mark(tmp_path, no_hub):
    folder = write_official(tmp_path, "sst2")
    (folder / "train.tsv").write_bytes("\ufeffsentence\tlabel\r\nfine \t1\r\n\r\nbad\t0".encode())
    assert load_text("sst2", tmp_path).splits["train"] == Examples(["fine ", "bad"], None, [1, 0])


# What is missing or damaged.


def test_unknown_name(tmp_path):
    for name in ("wnli", "CoLA", "grammar_", "grammar_wnli", ""):
        with pytest.raises(ValueError, match="dataset must be one of cola, sst2") as error:
            load_text(name, tmp_path)
        assert repr(name) in str(error.value)


@each_task
def test_nothing_there_and_no_hub(tmp_path, no_hub, name):
    with pytest.raises(DataError) as error:
        load_text(name, tmp_path / "nowhere")
    message = str(error.value)
    for part in (name, str(tmp_path / "nowhere"), f"{FOLDERS[name]}/train.tsv", "--data-root", "MMEL_DATA", "hub"):
        assert part in message
    assert "ConnectionError: no network" in message
    assert len(no_hub) == 1


@pytest.mark.parametrize(("name", "file"), [("rte", "dev.tsv"), ("cola", "train.tsv"), ("mnli", "dev_matched.tsv")])
def test_file_missing(tmp_path, no_hub, name, file):
    path = write_official(tmp_path / "glue", name) / file
    path.unlink()
    with pytest.raises(DataError) as error:
        load_text(name, tmp_path)
    assert str(path) in str(error.value)
    assert "missing" in str(error.value)
    # A folder that is there is never mixed with the hub's data.
    assert no_hub == []


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("cola", "gj04\t1\t*", r"train.tsv:7 has 3 columns, want 4"),
        ("cola", "gj04\t2\t\tText.", r"train.tsv:7: label must be one of 0, 1, got '2'"),
        ("rte", "6\tA.\tB.", r"train.tsv:8 has 3 columns, want 4: index, sentence1, sentence2, label"),
        ("rte", "6\tA.\tB.\tentailment\t", r"train.tsv:8 has 5 columns, want 4"),
        ("rte", "6\tA.\tB.\tneutral", r"train.tsv:8: label must be one of entailment, not_entailment, got 'neutral'"),
        ("mnli", "6" + "\tx" * 10 + "\t-", r"train.tsv:8: label must be one of .*, got '-'"),
        ("sst2", "fine\t", r"train.tsv:8: label must be one of 0, 1, got ''"),
        ("stsb", "6" + "\tx" * 8 + "\t5.001", r"train.tsv:8: score must be a number from 0 to 5, got '5.001'"),
        ("stsb", "6" + "\tx" * 8 + "\tnan", r"train.tsv:8: score must be a number from 0 to 5, got 'nan'"),
        ("stsb", "6" + "\tx" * 8 + "\tgood", r"train.tsv:8: score must be a number from 0 to 5, got 'good'"),
        ("qqp", "6\t1\t2\tA?\tB?\tyes", r"train.tsv:8: label must be one of 0, 1, got 'yes'"),
        ("qqp", "6\t1\t2\tA?\tB?\t1\t1", r"train.tsv:8 has 7 columns, want 6"),
    ],
)
def test_malformed_row(tmp_path, no_hub, name, row, message):
    path = write_official(tmp_path, name) / "train.tsv"
    with path.open("a", encoding="utf-8") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match=message) as error:
        load_text(name, tmp_path)
    assert str(path) in str(error.value)


def test_qqps_broken_rows_are_left_out(tmp_path, no_hub):
    folder = write_official(tmp_path, "qqp")
    with (folder / "train.tsv").open("a", encoding="utf-8") as file:
        # A question with a line break in it is two short rows; and a row without a label.
        file.write("6\t1\t2\tWhy?\tWhat\nfor?\t1\n7\t1\t2\tWho?\tWhom?\t\n8\t1\t2\tWho?\tWhom?\t1\n")
    train = load_text("qqp", tmp_path).splits["train"]
    assert len(train) == 7
    assert (train.sentences[-1], train.pairs[-1], train.targets[-1]) == ("Who?", "Whom?", 1)
    # In a test set no row may get lost.
    with (folder / "test.tsv").open("a", encoding="utf-8") as file:
        file.write("6\tWhy?\n")
    with pytest.raises(DataError, match=r"test.tsv:8 has 2 columns, want 3"):
        load_text("qqp", tmp_path)


@pytest.mark.parametrize(("text", "got"), [("", "none"), ("index\tsentence1\tlabel\n", "index, sentence1, label")])
def test_wrong_header(tmp_path, no_hub, text, got):
    path = write_official(tmp_path, "rte") / "train.tsv"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        load_text("rte", tmp_path)
    assert str(error.value) == f"{path}: want the columns sentence1, sentence2, label, got {got}"


@pytest.mark.parametrize(("name", "text"), [("cola", ""), ("rte", "index\tsentence1\tsentence2\tlabel\n")])
def test_no_examples(tmp_path, no_hub, name, text):
    path = write_official(tmp_path, name) / "dev.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"^{path} "):
        load_text(name, tmp_path)


def test_not_utf8(tmp_path, no_hub):
    path = write_official(tmp_path, "sst2") / "dev.tsv"
    path.write_bytes("sentence\tlabel\nnaïve\t1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"dev.tsv is not UTF-8"):
        load_text("sst2", tmp_path)


# Samples and subsets.


def test_a_sample_is_not_the_task():
    def data(name, **sizes):
        return TextData(TASKS[name], {split: Examples(["a"] * n, None, [0] * n) for split, n in sizes.items()})

    assert not data("cola", train=8551, dev=1043, test=1063).is_sample
    assert not data("cola", train=8551, dev=1043).is_sample
    assert data("cola", train=8550, dev=1043).sampled == ("train",)
    assert data("cola", train=8551, dev=1000).sampled == ("dev",)
    assert data("cola", train=8551, dev=1000).is_sample
    assert not data("mnli", train=392702, dev=9815, dev_mm=9832, test=9796, test_mm=9847).is_sample
    assert data("mnli", train=8999, dev=9815, dev_mm=9815).sampled == ("train", "dev_mm")


def test_examples_must_be_equally_many():
    with pytest.raises(ValueError, match=r"pairs must have one entry a sentence \(2\), got 1"):
        Examples(["a", "b"], ["c"], None)
    with pytest.raises(ValueError, match=r"targets must have one entry a sentence \(1\), got 2"):
        Examples(["a"], None, [0, 1])


def test_take():
    pair = Examples(["a", "b", "c"], ["d", "e", "f"], [0.5, 1.5, 2.5])
    assert pair.take([2, 0]) == Examples(["c", "a"], ["f", "d"], [2.5, 0.5])
    assert pair.take([]) == Examples([], [], [])
    assert Examples(["a", "b"], None, None).take(range(1)) == Examples(["a"], None, None)


def examples(targets):
    return Examples([str(place) for place in range(len(targets))], None, targets)


def test_subset_keeps_proportions_and_order():
    whole = examples([0 if place % 10 < 3 else 1 if place % 10 < 9 else 2 for place in range(1000)])
    part = subset(whole, 100)
    assert Counter(part.targets) == {0: 30, 1: 60, 2: 10}
    places = [int(text) for text in part.sentences]
    assert places == sorted(set(places))
    assert part.targets == [whole.targets[place] for place in places]
    # Not the first ones, nor every tenth.
    assert places[50] not in range(100)
    assert len({place % 10 for place in places}) == 10


@pytest.mark.parametrize(
    ("counts", "size", "shares"),
    [([5, 5], 3, [2, 1]), ([3, 3, 3], 4, [2, 1, 1]), ([7, 2, 1], 5, [4, 1, 0]), ([1, 99], 10, [0, 10])],
)
def test_subset_rounds_to_the_size(counts, size, shares):
    # 7, 2, 1 of 10: 3.5, 1 and 0.5 of 5; of equal losses the lowest class gains.
    whole = examples([label for label, count in enumerate(counts) for _ in range(count)])
    part = subset(whole, size)
    assert [part.targets.count(label) for label in range(len(counts))] == shares


def test_subset_is_the_same_in_every_run():
    # Recorded runs trained on this very choice.
    whole = examples([place % 2 for place in range(50)])
    assert [int(text) for text in subset(whole, 8).sentences] == [4, 8, 9, 10, 39, 46, 47, 49]
    assert len(set(subset(whole, 8).sentences) - set(subset(whole, 20).sentences)) == 0


def test_subset_of_scores():
    whole = examples([float(place % 6) for place in range(600)])
    part = subset(whole, 60)
    assert len(part) == 60
    # Plainly random: equally many of each score would be a coincidence.
    assert set(Counter(part.targets).values()) != {10}
    assert part.targets == [whole.targets[int(text)] for text in part.sentences]
    assert subset(Examples(whole.sentences, None, None), 60).sentences == part.sentences


def test_subset_sizes():
    whole = examples([0, 1, 1])
    assert subset(whole, 0) == subset(whole, 3) == whole
    for size in (-1, 4):
        with pytest.raises(ValueError, match=rf"size must be from 0 \(all\) to the 3 examples there are, got {size}"):
            subset(whole, size)


# The embedded miniatures.


@each_task
def test_grammar(name):
    data = load_text(f"grammar_{name}")
    task = TASKS[name]
    assert data.task.name == f"grammar_{name}"
    assert (data.task.columns, data.task.labels, data.task.metric) == (task.columns, task.labels, task.metric)
    assert set(data.splits) == set(splits_of(name))
    for part in data.splits.values():
        assert (part.pairs is not None) == task.is_pair
        assert part.targets is not None
        assert {type(target) for target in part.targets} == {float if task.is_regression else int}
    assert not data.is_sample


# The real files, where they are.


@pytest.mark.parametrize("name", HUB)
def test_real_glue(name):
    root = os.environ.get("MMEL_DATA")
    folders = [Path(root or "") / below / FOLDERS[name] for below in ("glue", "")]
    if not root or not any(folder.is_dir() for folder in folders):
        pytest.skip(f"needs {FOLDERS[name]} in the folder that MMEL_DATA names (MMEL_DATA={root!r})")
    data = load_text(name, root)
    for split, part in data.splits.items():
        # A sample may be smaller; nothing is read twice.
        assert len(part) <= OFFICIAL_SIZES[name][split]
        assert (split in data.sampled) == (len(part) < OFFICIAL_SIZES[name][split])
        assert (part.targets is None) == split.startswith("test")
    # Every class is there, and the commoner ones are those of the literature.
    counts = Counter(data.splits["dev"].targets)
    if not data.task.is_regression:
        assert set(counts) == set(range(data.task.num_outputs))
    known = {"cola": {0: 322, 1: 721}, "sst2": {0: 428, 1: 444}, "mrpc": {0: 129, 1: 279}, "rte": {0: 146, 1: 131}}
    if "dev" not in data.sampled and name in known:
        assert counts == known[name]
