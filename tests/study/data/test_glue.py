from collections import Counter

import pytest

from mmel.study.data import DataError
from mmel.study.data.glue import HUB_REVISION, Examples, subset
from mmel.study.datasets import DATASETS

# The hub's features, from its data card: sentence columns, and the classes in their integer order.
BINARY = ["entailment", "not_entailment"]
HUB = {
    "cola": (("sentence",), ["unacceptable", "acceptable"]),
    "sst2": (("sentence",), ["negative", "positive"]),
    "mrpc": (("sentence1", "sentence2"), ["not_equivalent", "equivalent"]),
    "stsb": (("sentence1", "sentence2"), None),
    "qqp": (("question1", "question2"), ["not_duplicate", "duplicate"]),
    "mnli": (("premise", "hypothesis"), ["entailment", "neutral", "contradiction"]),
    "qnli": (("question", "sentence"), BINARY),
    "rte": (("sentence1", "sentence2"), BINARY),
}
FOLDERS = dict(zip(HUB, ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE"), strict=True))
NLI = "promptID,pairID,genre,sentence1_binary_parse,sentence2_binary_parse,sentence1_parse,sentence2_parse"
STS = "genre,filename,year,old_index,source1,source2"
# The official files' columns: of train and dev, which have no header line for CoLA, and of test.
OFFICIAL = {
    "cola": ("source,label,mark,sentence", "index,sentence"),
    "sst2": ("sentence,label", "index,sentence"),
    "mrpc": ("Quality,#1 ID,#2 ID,#1 String,#2 String", "index,#1 ID,#2 ID,#1 String,#2 String"),
    "stsb": (f"index,{STS},sentence1,sentence2,score", f"index,{STS},sentence1,sentence2"),
    "qqp": ("id,qid1,qid2,question1,question2,is_duplicate", "id,question1,question2"),
    "mnli": (f"index,{NLI},sentence1,sentence2,label1,gold_label", f"index,{NLI},sentence1,sentence2"),
    "qnli": ("index,question,sentence,label", "index,question,sentence"),
    "rte": ("index,sentence1,sentence2,label", "index,sentence1,sentence2"),
}
TEXT_COLUMNS = {"sentence", "sentence1", "sentence2", "question", "question1", "question2", "#1 String", "#2 String"}
LABEL_COLUMNS = {"label", "Quality", "score", "is_duplicate", "gold_label"}
# What the files say for the classes, and for some scores.
LABELS = dict.fromkeys(HUB, ("0", "1")) | {
    "stsb": ("0.000", "3.800", "2.917", "5.000"),
    "mnli": tuple(HUB["mnli"][1]),
    "qnli": tuple(BINARY),
    "rte": tuple(BINARY),
}
# Text as it comes: an open quote, doubled quotes, characters at which str.splitlines breaks, blanks at the end.
TEXTS = ('He said "no .', '"What is ""this""?"', "a\x85b\u2028c\x0cd", "hide new secretions ", "Straße, naïve 中文")
# Split -> its name in GLUE's files; the hub says validation for dev.
SPLITS = {"train": "train", "dev": "dev", "test": "test"}
SPLITS_MNLI = {
    "train": "train",
    "dev": "dev_matched",
    "dev_mm": "dev_mismatched",
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
    for split, file in splits_of(name).items():
        columns = OFFICIAL[name][split.startswith("test")].split(",")
        lines = [] if columns[0] == "source" else [columns]
        for i in range(rows):
            # What nobody reads says how its column is called.
            row = dict(zip(columns, columns, strict=True))
            row |= dict.fromkeys(LABEL_COLUMNS & row.keys(), LABELS[name][i % len(LABELS[name])])
            texts = filter(TEXT_COLUMNS.__contains__, columns)
            row |= {column: sentence(split, i, number) for number, column in enumerate(texts, start=1)}
            lines.append(row.values())
        (folder / f"{file}.tsv").write_bytes("".join("\t".join(line) + "\n" for line in lines).encode())
    return folder


def expected(name, rows=6):
    """The examples that `write_official` stands for."""
    columns, classes = HUB[name]
    values = [float(x) for x in LABELS["stsb"]] if classes is None else list(range(len(classes)))
    return {
        split: Examples(
            [sentence(split, i, 1) for i in range(rows)],
            [sentence(split, i, 2) for i in range(rows)] if len(columns) == 2 else None,
            None if split.startswith("test") else [values[i % len(values)] for i in range(rows)],
        )
        for split in splits_of(name)
    }


@pytest.fixture
def hub(monkeypatch):
    """A hub that has `expected`, as its parquet files would give it; notes who asks, fails while `down`."""
    datasets = pytest.importorskip("datasets")

    class Hub(list):
        down = False

    calls = Hub()

    def load_dataset(path, name, revision):
        calls.append((path, name, revision))
        if calls.down:
            raise ConnectionError("no network")
        columns, classes = HUB[name]
        label = datasets.Value("float32") if classes is None else datasets.ClassLabel(names=classes)
        features = {**{c: datasets.Value("string") for c in columns}, "label": label, "idx": datasets.Value("int32")}
        parts = {}
        for split, part in expected(name).items():
            # MRPC's test labels are on the hub, though not in GLUE's files.
            targets = part.targets or [1 if name == "mrpc" else -1] * len(part)
            values = [*[part.sentences, part.pairs][: len(columns)], targets, range(len(part))]
            parts[splits_of(name)[split].replace("dev", "validation")] = datasets.Dataset.from_dict(
                dict(zip(features, values, strict=True)), features=datasets.Features(features)
            )
        return datasets.DatasetDict(parts)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


# The records.


def test_a_sample_is_not_the_task():
    cola, mnli = DATASETS["cola"], DATASETS["mnli"]
    # A folder may lack a split.
    assert cola.sampled({"train": 8551, "dev": 1043}) == []
    assert cola.sampled({"train": 8550, "dev": 1043, "test": 1063}) == ["train"]
    assert mnli.sampled({"train": 8999, "dev": 9815, "dev_mm": 9815}) == ["train", "dev_mm"]


# TSV files and hub.


@each_task
@pytest.mark.parametrize("below", ["", "glue"])
def test_hub_and_official_files_are_equal(tmp_path, hub, name, below):
    from_hub = DATASETS[name].load(tmp_path)
    assert hub == [("nyu-mll/glue", name, HUB_REVISION)]
    assert len(HUB_REVISION) == 40
    write_official(tmp_path / below, name)
    from_files = DATASETS[name].load(tmp_path)
    assert len(hub) == 1
    # Plain lists of plain numbers, too.
    assert repr(from_hub) == repr(from_files) == repr(expected(name))


def test_the_data_root_is_the_argument_or_a_variable_or_data(tmp_path, hub, monkeypatch):
    for rows, folder in enumerate(("data", "variable", "argument"), start=1):
        write_official(tmp_path / folder, "rte", rows=rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMEL_DATA", str(tmp_path / "variable"))
    assert len(DATASETS["rte"].load(tmp_path / "argument")["train"]) == 3
    assert len(DATASETS["rte"].load()["train"]) == 2
    monkeypatch.delenv("MMEL_DATA")
    assert len(DATASETS["rte"].load()["train"]) == 1
    assert hub == []


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        # Columns are found by name; a table of fewer will do.
        ("mnli", "index\tsentence1\tsentence2\tgold_label\n0\tA.\tB.\tcontradiction\n", (["A."], ["B."], [2])),
        ("rte", "label\tsentence2\tmore\tsentence1\nnot_entailment\tB.\tx\tA.\n", (["A."], ["B."], [1])),
        # A byte order mark, Windows' line ends, a blank line, no end of the last line.
        ("sst2", "\ufeffsentence\tlabel\r\nfine \t1\r\n\r\nbad\t0", (["fine ", "bad"], None, [1, 0])),
        # A question with a line break in it is two short rows of QQP; a row without a label is left out likewise.
        (
            "qqp",
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n6\t1\t2\tWhy?\tWhat\nfor?\t1\n7\t1\t2\tA\tB\t\n8\t1\t2\tWho?\tWhom?\t1\n",
            (["Who?"], ["Whom?"], [1]),
        ),
    ],
)
def test_files_that_differ_from_the_official_ones(tmp_path, hub, name, text, read):
    folder = write_official(tmp_path, name)
    (folder / "train.tsv").write_bytes(text.encode())
    for split, file in splits_of(name).items():
        if split not in ("train", "dev"):
            (folder / f"{file}.tsv").unlink()
    found = DATASETS[name].load(tmp_path)
    assert list(found) == ["train", "dev"]
    assert found["train"] == Examples(*read)
    assert hub == []


# What is missing or damaged.


@each_task
def test_nothing_there_and_no_hub(tmp_path, hub, name):
    hub.down = True
    with pytest.raises(DataError, match=rf"^{name}: .*{tmp_path}/nowhere.*no network.*MMEL_DATA.*{FOLDERS[name]}"):
        DATASETS[name].load(tmp_path / "nowhere")
    assert len(hub) == 1


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("rte", "dev", None),
        ("cola", "train", None),
        ("mnli", "dev_matched", None),
        ("rte", "train", b""),
        ("rte", "train", b"index\tsentence1\tlabel\n"),
        ("cola", "dev", b"gj04\t1\t*\n"),
        ("rte", "dev", b"index\tsentence1\tsentence2\tlabel\n"),
        ("sst2", "dev", "sentence\tlabel\nna\xefve\t1\n".encode("latin-1")),
    ],
)
def test_a_file_that_is_missing_empty_or_no_table_is_named(tmp_path, hub, name, file, content):
    path = write_official(tmp_path / "glue", name) / f"{file}.tsv"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        DATASETS[name].load(tmp_path)
    # A folder that is there is never mixed with the hub's data.
    assert hub == []


@pytest.mark.parametrize(
    ("name", "file", "row"),
    [
        ("cola", "train", "gj04\t2\t\tText."),
        ("rte", "train", "6\tA.\tB.\tentailment\t"),
        ("rte", "dev", "6\tA.\tB.\tneutral"),
        ("mnli", "train", "6" + "\tx" * 10 + "\t-"),
        *(("stsb", "train", "6" + "\tx" * 8 + f"\t{score}") for score in ("5.001", "-0.5", "nan", "good")),
        # No row of a test set is left out: its predictions are matched by their order.
        ("qqp", "test", "6\tWhy?"),
    ],
)
def test_a_row_that_is_damaged_is_named(tmp_path, hub, name, file, row):
    path = write_official(tmp_path, name) / f"{file}.tsv"
    path.write_bytes(path.read_bytes() + row.encode() + b"\n")
    with pytest.raises(DataError, match=f"^{path}:{7 if name == 'cola' else 8}\\b"):
        DATASETS[name].load(tmp_path)


# Examples and their subsets.


def examples(targets):
    return Examples([str(index) for index in range(len(targets))], None, targets)


def test_a_subset_keeps_proportions_and_order_and_lies_in_a_larger_one():
    whole = examples([0 if index % 10 < 3 else 1 if index % 10 < 9 else 2 for index in range(1000)])
    part = subset(whole, 100)
    assert Counter(part.targets) == {0: 30, 1: 60, 2: 10}
    chosen = [int(text) for text in part.sentences]
    assert chosen == sorted(set(chosen))
    assert part.targets == [whole.targets[index] for index in chosen]
    assert set(part.sentences) < set(subset(whole, 500).sentences)
    # Scores, and examples without targets, are drawn at random.
    scores = examples([float(index % 6) for index in range(600)])
    assert set(Counter(subset(scores, 60).targets).values()) != {10}
    assert subset(Examples(scores.sentences, None, None), 60).sentences == subset(scores, 60).sentences


def test_a_subset_is_pinned_and_has_a_size():
    # Of 7, 2 and 1 in 10 each loses by rounding: 3.5, 1 and 0.5 of 5. Of equal losses the lowest class gains.
    assert subset(examples([0] * 7 + [1, 1, 2]), 5).targets == [0, 0, 0, 0, 1]
    # Recorded runs trained on this very choice.
    whole = examples([index % 2 for index in range(50)])
    assert [int(text) for text in subset(whole, 8).sentences] == [4, 8, 9, 10, 39, 46, 47, 49]
    assert subset(whole, 0) == subset(whole, 50) == whole
    with pytest.raises(ValueError, match=r"^size must be .*51$"):
        subset(whole, 51)
