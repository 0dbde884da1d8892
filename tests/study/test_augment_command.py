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


@pytest.mark.parametrize(
    ("options", "settings"),
    [((), ()), (("--num-augmented", "3", "--fill", "beam", "--mask-ratio", "0.2"), (3, 0.2, "beam"))],
)
def test_a_file_is_augmented_in_any_folder(folder, tmp_path, capsys, small_bert, options, settings):
    assert main(["augment", "reviews.csv", "augmented.csv", "--column", "text", "--device", "cpu", *options]) == 0
    augmenter = MaskedLMAugmenter(load_masked_lm(small_bert), load_tokenizer(small_bert), *settings)
    k = augmenter.num_augmented
    assert capsys.readouterr().out == f"{3 * k} rows written to augmented.csv\n"
    texts = [text for variants in augmenter(SENTENCES) for text in variants]
    with (folder / "augmented.csv").open(newline="") as file:
        head, *body = csv.reader(file)
    assert head == ["text", "stars", "variant"]
    assert body == [[text, "5", str(place % k)] for place, text in enumerate(texts)]
    # The fills are kept for the next call, and nothing lies in the user's folder but the file.
    (cache,) = (tmp_path / "cache" / "mmel" / "augmentation").iterdir()
    with sqlite3.connect(cache) as database:
        assert database.execute("SELECT count(*) FROM fills").fetchone() == (3,)
    assert sorted(path.name for path in folder.iterdir()) == ["augmented.csv", "reviews.csv"]
