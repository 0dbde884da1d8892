"""`mmel augment` with a tiny encoder, in a folder that knows nothing of a study."""

import csv
import sqlite3

import pytest

pytest.importorskip("pandas")

from mmel.augment.text import MaskedLMAugmenter
from mmel.study.cli import main
from mmel.study.datasets import dataset
from mmel.study.models.encoder import load_masked_lm, load_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
SENTENCES = dataset("grammar_cola").load()["train"].sentences[:3]


@pytest.fixture
def folder(tmp_path, monkeypatch, text_model):
    """An empty working folder with a file to augment; the user's cache is elsewhere."""
    for name in ("MMEL_RESULTS", "MMEL_DATA", "MMEL_DEVICE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "somewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with (folder / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "stars"], *([sentence, "5"] for sentence in SENTENCES)])
    return folder


def augment(*options, source="reviews.csv", target="augmented.csv", column="text"):
    return main(["augment", source, target, "--column", column, "--device", "cpu", *options])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_file_is_augmented_in_any_folder(folder, tmp_path, capsys, small_bert):
    assert augment() == 0
    assert capsys.readouterr().out == "15 rows written to augmented.csv\n"
    augmenter = MaskedLMAugmenter(load_masked_lm(small_bert), load_tokenizer(small_bert))
    texts = [text for variants in augmenter(SENTENCES) for text in variants]
    head, *body = rows(folder / "augmented.csv")
    assert head == ["text", "stars", "variant"]
    assert body == [[text, "5", str(place % 5)] for place, text in enumerate(texts)]
    # The fills are kept for the next call, and nothing lies in the user's folder but the file.
    (cache,) = (tmp_path / "cache" / "mmel" / "augmentation").iterdir()
    with sqlite3.connect(cache) as database:
        assert database.execute("SELECT count(*) FROM fills").fetchone() == (3,)
    assert sorted(path.name for path in folder.iterdir()) == ["augmented.csv", "reviews.csv"]


def test_the_settings_reach_the_augmenter(folder, small_bert):
    assert augment("--num-augmented", "3", "--fill", "beam", "--mask-ratio", "0.2") == 0
    network, tokenizer = load_masked_lm(small_bert), load_tokenizer(small_bert)
    augmenter = MaskedLMAugmenter(network, tokenizer, 3, 0.2, "beam")
    texts = [text for variants in augmenter(SENTENCES) for text in variants]
    assert [row[0] for row in rows(folder / "augmented.csv")[1:]] == texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "none.csv"}, "none.csv"),
        ({"column": "review"}, "reviews.csv has no column 'review'; it has text, stars"),
        ({"target": "reviews.csv/augmented.csv"}, "reviews.csv"),
    ],
    ids=lambda value: "=".join(*value.items()) if isinstance(value, dict) else "",
)
def test_files_are_checked_before_any_work(changes, message, folder, capsys, monkeypatch):
    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr("mmel.study.train.encoder.build_augmenter", never)
    assert augment(**changes) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("mmel: ")
    assert message in err
    assert [path.name for path in folder.iterdir()] == ["reviews.csv"]
