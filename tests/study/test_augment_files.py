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


@pytest.mark.parametrize("target", ["out.csv", "out.tsv", "out.parquet", "new/folder/out.TSV"])
@pytest.mark.parametrize("source", ["in.csv", "in.tsv", "in.parquet"])
def test_rows_and_variants(tmp_path, source, target):
    path = write(tmp_path / source)
    before = path.read_bytes()
    written = augment_file(path, tmp_path / target, "sentence", Shouter())
    target = tmp_path / target
    if target.suffix == ".TSV":
        target = target.rename(target.with_suffix(".tsv"))
    expected = [
        (number, sentence if k == 0 else sentence.upper() + "!" * k, second, label, str(k))
        for number, sentence, second, label in ROWS
        for k in range(3)
    ]
    assert read(target) == expected
    assert written == 9
    assert path.read_bytes() == before
    # Nothing else is left in the folder.
    assert not [other for other in target.parent.iterdir() if other.name.startswith(".")]


def test_pairs(tmp_path):
    augment_file(write(tmp_path / "in.csv"), tmp_path / "out.csv", "second", Shouter(), pair_column="sentence")
    rows = read(tmp_path / "out.csv")
    assert [row[1:3] for row in rows[3:6]] == [
        ("", "it\u2028is 日本"),
        ("!", "IT\u2028IS 日本!"),
        ("!!", "IT\u2028IS 日本!!"),
    ]


def test_batches_and_progress(tmp_path, capsys):
    path = write(tmp_path / "in.csv", ROWS * 3)
    shouter = Shouter()
    augment_file(path, tmp_path / "out.csv", "sentence", shouter, batch_rows=4)
    assert shouter.calls == [4, 4, 1]
    whole = augment_file(path, tmp_path / "whole.csv", "sentence", Shouter())
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert whole == 27
    assert "in.csv: 100%" in capsys.readouterr().err


def test_an_empty_table(tmp_path):
    assert augment_file(write(tmp_path / "in.csv", []), tmp_path / "out.csv", "sentence", Shouter()) == 0
    assert read(tmp_path / "out.csv") == []
    pair = augment_file(
        write(tmp_path / "in.csv", []), tmp_path / "out.csv", "sentence", Shouter(), pair_column="second"
    )
    assert pair == 0


def test_byte_order_mark(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("sentence\na dog\n", encoding="utf-8-sig")
    assert augment_file(path, tmp_path / "out.csv", "sentence", Shouter()) == 3


def test_no_tab_or_line_end_in_a_tsv(tmp_path):
    path = tmp_path / "in.csv"
    pd.DataFrame([("1", "a\tb\r\nc", "x", "y")], columns=COLUMNS).to_csv(path, index=False)
    augment_file(path, tmp_path / "out.tsv", "sentence", Shouter())
    assert [row[1] for row in read(tmp_path / "out.tsv")] == ["a b c", "A B C!", "A B C!!"]


def test_other_columns_of_parquet_keep_their_types(tmp_path):
    path = tmp_path / "in.parquet"
    pd.DataFrame({"text": ["a", "b"], "score": [1.5, 2.0], "index": [3, 1]}, index=[5, 5]).to_parquet(path)
    augment_file(path, tmp_path / "out.parquet", "text", Shouter())
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert frame["score"].tolist() == [1.5] * 3 + [2.0] * 3
    assert frame["index"].tolist() == [3] * 3 + [1] * 3
    assert frame["text"].tolist() == ["a", "A!", "A!!", "b", "B!", "B!!"]
    assert frame["variant"].tolist() == [0, 1, 2] * 2


def test_a_named_index_of_parquet_is_a_column(tmp_path):
    path = tmp_path / "in.parquet"
    pd.DataFrame({"text": ["a", "b"], "id": [7, 4]}).set_index("id").to_parquet(path)
    augment_file(path, tmp_path / "out.csv", "text", Shouter())
    assert pd.read_csv(tmp_path / "out.csv")["id"].tolist() == [7, 7, 7, 4, 4, 4]


def test_a_killed_call_leaves_the_old_target(tmp_path):
    class Killed(Shouter):
        def __call__(self, sentences, pairs=None):
            if self.calls:
                raise KeyboardInterrupt
            return super().__call__(sentences, pairs)

    target = tmp_path / "out.csv"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        augment_file(write(tmp_path / "in.csv"), target, "sentence", Killed(), batch_rows=2)
    assert target.read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"column": "text"}, r"in\.csv has no column 'text'; there are id, sentence, second, label"),
        ({"pair_column": "other"}, r"in\.csv has no column 'other'; there are id, "),
        ({"pair_column": ""}, r"in\.csv has no column ''"),
        ({"pair_column": "sentence"}, "pair_column .* 'sentence'"),
        ({"target": "out.json"}, r"target must end in \.csv, \.tsv, \.parquet, got .*out\.json"),
        ({"source": "in.xlsx"}, r"source must end in .* got .*in\.xlsx"),
        ({"batch_rows": 0}, "batch_rows must be at least 1, got 0"),
    ],
)
def test_bad_arguments(tmp_path, changes, message):
    write(tmp_path / "in.csv")
    arguments = {"source": "in.csv", "target": "out.csv", "column": "sentence", "augmenter": Shouter(), **changes}
    arguments.update({name: tmp_path / arguments[name] for name in ("source", "target")})
    with pytest.raises(ValueError, match=message):
        augment_file(**arguments)


@pytest.mark.parametrize("fields", [["a dog", " runs", "1"], ["a dog"]], ids=["more", "fewer"])
@pytest.mark.parametrize("every_row", [True, False])
@pytest.mark.parametrize("name", ["in.csv", "in.tsv"])
def test_rows_as_long_as_the_head(tmp_path, name, every_row, fields):
    separator = "," if name == "in.csv" else "\t"
    rows = [["text", "label"], [] if every_row else ["a cat", "0"], fields, fields if every_row else ["a cat", "0"]]
    (tmp_path / name).write_text("".join(separator.join(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=rf"{name}:3 has {len(fields)} fields"):
        augment_file(tmp_path / name, tmp_path / "out.csv", "text", Shouter())
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'text,label\n"a\ndog",1\n"a cat,0\na bird,1\n', r"in\.csv:4 "),
        (b'text,label\n"a" dog,1\n', r"in\.csv:2 "),
        ("text,label\na dog,1\ncafé,0\n".encode("latin-1"), r"in\.csv:3 "),
        ("text,label\na dog,1\n".encode("utf-16"), r"in\.csv:1 "),
        (b"text,text\na dog,1\n", r"in\.csv .*'text'"),
        (b"", r"in\.csv "),
    ],
    ids=["unclosed", "half quoted", "latin-1", "utf-16", "two columns", "empty"],
)
def test_a_damaged_csv_is_named_with_its_line(tmp_path, content, where):
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(ValueError, match=where):
        augment_file(tmp_path / "in.csv", tmp_path / "out.csv", "text", Shouter())


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet PAR1"])
def test_a_damaged_parquet_is_named(tmp_path, content):
    (tmp_path / "in.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"in\.parquet"):
        augment_file(tmp_path / "in.parquet", tmp_path / "out.csv", "text", Shouter())


def test_a_long_field(tmp_path):
    (tmp_path / "in.csv").write_text(f"text,label\n{'a' * 200_000},1\n")
    assert augment_file(tmp_path / "in.csv", tmp_path / "out.csv", "text", Shouter()) == 3


def test_bad_tables(tmp_path):
    with pytest.raises(FileNotFoundError):
        augment_file(tmp_path / "none.csv", tmp_path / "out.csv", "sentence", Shouter())
    augment_file(write(tmp_path / "in.csv"), tmp_path / "once.csv", "sentence", Shouter())
    with pytest.raises(ValueError, match="has a column 'variant' already"):
        augment_file(tmp_path / "once.csv", tmp_path / "twice.csv", "sentence", Shouter())
    pd.DataFrame({"sentence": ["a", None], "label": [1, 2]}).to_parquet(tmp_path / "in.parquet")
    for column, message in (
        ("sentence", "must hold text, got (None|nan) in row 1"),
        ("label", "must hold text, got 1 in row 0"),
    ):
        with pytest.raises(ValueError, match=message):
            augment_file(tmp_path / "in.parquet", tmp_path / "out.csv", column, Shouter())
