import pytest
from pretend import write_bert

from mmel.study.datasets import dataset
from mmel.study.records import Store

SMALL_BERT = "small-bert"
# The embedded tasks that are trained on here.
TASKS = ("grammar_cola", "grammar_mrpc", "grammar_stsb", "grammar_mnli", "grammar_rte")


@pytest.fixture
def store(tmp_path):
    """An empty results folder."""
    (tmp_path / "results").mkdir()
    return Store(tmp_path / "results")


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory):
    """Folder of a BERT with random weights that knows the words of the embedded data."""
    parts = [dataset(task).load()["train"] for task in TASKS]
    texts = [text for part in parts for text in (*part.sentences, *(part.pairs or ()))]
    words = {word for text in texts for word in text.lower().split() if word.isalpha()}
    # Ten times the usual spread, so that an untrained network tells its inputs apart.
    shape = {"num_hidden_layers": 2, "max_position_embeddings": 128, "initializer_range": 0.2}
    return write_bert(tmp_path_factory.mktemp("models") / SMALL_BERT, [*".,?'", *sorted(words)], **shape)


@pytest.fixture
def text_model(small_bert, monkeypatch):
    """Names `small-bert` as MMEL_TEXT_MODEL does for a user."""
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(small_bert))
    return small_bert
