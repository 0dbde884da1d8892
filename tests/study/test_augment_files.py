import csv
import io

import pytest

pd = pytest.importorskip("pandas")

from mmel.study.augment_files import augment_file  # noqa: E402

ROWS = [
    ("007", 'She said "no", twice', "A dog", "NA"),
    ("8", "", "it\u2028is 日本", "1"),
    ("9", "null", "NA", ""),
]
COLUMNS = ["id", "sentence", "second", "label"]


class Shouter:
    """Stands for an augmenter: variant i of a text is the text in capitals and i exclamation marks."""

    num_augmented = 3

    def __init__(self):
        self.calls = []

    def __call__(self, sentences, pairs=None):
        self.calls.append(len(sentences))
        sides = [
            [[text, text.upper() + "!", text.upper() + "!!"] for text in side] for side in (sentences, pairs or [])
        ]
        return sides[0] if pairs is None else [list(zip(a, b, strict=True)) for a, b in zip(*sides, strict=True)]


def write(path, rows=ROWS):
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        path.write_text("".join("\t".join(row) + "\n" for row in [COLUMNS, *rows]), encoding="utf-8")
    return path


def read(path):
    """The rows of a written file, read by something else than pandas where that is possible."""
    if path.suffix == ".parquet":
        return [tuple(map(str, row)) for row in pd.read_parquet(path).itertuples(index=False)]
    text = path.read_text(encoding="utf-8")
    quoting = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    head, *rows = csv.reader(io.StringIO(text), **quoting)
    assert head == [*COLUMNS, "variant"]
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("target", ["out.csv", "out.tsv", "new/folder/out.parquet"])
@pytest.mark.parametrize("source", ["in.csv", "in.tsv", "in.parquet"])
def test_rows_and_variants(tmp_path, source, target):
    source, target = write(tmp_path / source), tmp_path / target
    before = source.read_bytes()
    assert augment_file(source, target, ["sentence"], Shouter) == 9
    assert read(target) == [
        (number, sentence if k == 0 else sentence.upper() + "!" * k, second, label, str(k))
        for number, sentence, second, label in ROWS
        for k in range(3)
    ]
    assert source.read_bytes() == before
    # Nothing else is left in the folder.
    assert not [other for other in target.parent.iterdir() if other.name.startswith(".")]


def test_pairs(tmp_path):
    augment_file(write(tmp_path / "in.csv"), tmp_path / "out.csv", ["second", "sentence"], Shouter)
    rows = read(tmp_path / "out.csv")
    assert [row[1:3] for row in rows[3:6]] == [
        ("", "it\u2028is 日本"),
        ("!", "IT\u2028IS 日本!"),
        ("!!", "IT\u2028IS 日本!!"),
    ]


def test_a_byte_order_mark_and_a_long_field_are_read(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text(f"sentence\n{'a' * 200_000}\n", encoding="utf-8-sig")
    assert augment_file(path, tmp_path / "out.csv", ["sentence"], Shouter) == 3


def test_no_tab_or_line_end_in_a_tsv(tmp_path):
    path = write(tmp_path / "in.csv", [("1", "a\tb\r\nc", "x", "y")])
    augment_file(path, tmp_path / "out.tsv", ["sentence"], Shouter)
    assert [row[1] for row in read(tmp_path / "out.tsv")] == ["a b c", "A B C!", "A B C!!"]


def test_parquet_keeps_types_and_a_named_index(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b"], "score": [1.5, 2.0], "id": [7, 4]})
    for index in (frame.set_index("id"), frame.set_axis([5, 5])):
        index.to_parquet(tmp_path / "in.parquet")
        augment_file(tmp_path / "in.parquet", tmp_path / "out.parquet", ["text"], Shouter)
        written = pd.read_parquet(tmp_path / "out.parquet")
        assert written["score"].tolist() == [1.5] * 3 + [2.0] * 3
        assert written["id"].tolist() == [7] * 3 + [4] * 3
        assert written["text"].tolist() == ["a", "A!", "A!!", "b", "B!", "B!!"]
        assert written["variant"].tolist() == [0, 1, 2] * 2


def test_a_killed_call_leaves_the_old_target(tmp_path):
    class Killed(Shouter):
        def __call__(self, sentences, pairs=None):
            if self.calls:
                raise KeyboardInterrupt
            return super().__call__(sentences, pairs)

    target = tmp_path / "out.csv"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        augment_file(write(tmp_path / "in.csv"), target, ["sentence"], Killed, batch_rows=2)
    assert target.read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


# Refused before the augmenter is made, which is None here.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": ["text"]}, r"in\.csv has no column 'text'; it has id, sentence, second, label"),
        ({"columns": ["sentence", ""]}, r"in\.csv has no column ''"),
        ({"target": "out.json"}, r"target must end in \.csv, \.tsv, \.parquet, got .*out\.json"),
        ({"target": "in.csv/out.csv"}, r"in\.csv"),
        ({"source": "in.xlsx"}, r"source must end in .* got .*in\.xlsx"),
        ({"source": "none.csv"}, r"none\.csv"),
    ],
)
def test_bad_arguments(tmp_path, changes, message):
    write(tmp_path / "in.csv")
    arguments = {"source": "in.csv", "target": "out.csv", "columns": ["sentence"], **changes}
    files = [tmp_path / arguments[name] for name in ("source", "target")]
    with pytest.raises((ValueError, OSError), match=message):
        augment_file(*files, arguments["columns"], None)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", b"text,label\n\na dog, runs,1\n", r"in\.csv.* line 3: 3 fields"),
        ("in.csv", b"text,label\na cat,0\na dog\n", r"in\.csv.* line 3: 1 fields"),
        ("in.tsv", b"text\tlabel\na dog\t runs\t1\n", r"in\.tsv.* line 2: 3 fields"),
        ("in.csv", b'text,label\n"a\ndog",1\n"a cat,0\na bird,1\n', r"in\.csv.* line 5: "),
        ("in.csv", b'text,label\n"a" dog,1\n', r"in\.csv.* line 2: "),
        ("in.csv", "text,label\na dog,1\ncafé,0\n".encode("latin-1"), r"in\.csv.* line .*0xe9"),
        ("in.csv", b"text,text\na dog,1\n", r"in\.csv .* each column once .*'text', 'text'"),
        ("in.csv", b"text,variant\na dog,1\n", r"in\.csv .* none named 'variant'"),
        ("in.csv", b"", r"in\.csv has no column 'text'"),
        ("in.parquet", b"", r"in\.parquet"),
        ("in.parquet", b"PAR1 no parquet PAR1", r"in\.parquet"),
    ],
    ids=[
        *("more fields", "fewer fields", "TSV", "unclosed", "half quoted", "latin-1", "two columns", "variant"),
        *("empty", "empty Parquet", "no Parquet"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        augment_file(tmp_path / name, tmp_path / "out.csv", ["text"], None)
    assert not (tmp_path / "out.csv").exists()


def test_a_column_must_hold_text(tmp_path):
    pd.DataFrame({"sentence": ["a", None], "label": [1, 2]}).to_parquet(tmp_path / "in.parquet")
    for column, got in (("sentence", "(None|nan) in row 1"), ("label", "1 in row 0")):
        with pytest.raises(ValueError, match=f"{column}.* must hold text, got {got}"):
            augment_file(tmp_path / "in.parquet", tmp_path / "out.csv", [column], None)
