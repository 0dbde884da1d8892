import pytest
import torch

from mmel.study.datasets import dataset

SMALL_BERT = "small-bert"
# The embedded tasks that are trained on here.
TASKS = ("grammar_cola", "grammar_mrpc", "grammar_stsb", "grammar_mnli", "grammar_rte")


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory):
    """Folder of a BERT with random weights that knows the words of the embedded data."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    folder = tmp_path_factory.mktemp("models") / SMALL_BERT
    parts = [dataset(task).load()["train"] for task in TASKS]
    texts = [text for part in parts for text in (*part.sentences, *(part.pairs or ()))]
    words = {word for text in texts for word in text.lower().split() if word.isalpha()}
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,?'", *sorted(words)]
    tokenizer = BertTokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, model_max_length=128)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Ten times the usual spread, so that an untrained network tells its inputs apart.
        model = BertForMaskedLM(
            BertConfig(vocab_size=len(pieces), max_position_embeddings=128, initializer_range=0.2, **shape)
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def text_model(small_bert, monkeypatch):
    """Names `small-bert` as MMEL_TEXT_MODEL does for a user."""
    monkeypatch.setenv("MMEL_TEXT_MODEL", str(small_bert))
    return small_bert
