import multiprocessing
import os
import signal
from pkgutil import resolve_name

import pytest
import torch

from mmel import RunConfig
from mmel.data.glue import load_text
from mmel.records import Store

SMALL_BERT = "small-bert"
# The embedded tasks that are trained on here.
TASKS = ("grammar_cola", "grammar_mrpc", "grammar_stsb", "grammar_mnli", "grammar_rte")


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory):
    """Folder of a BERT with random weights that knows the words of the embedded data."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    folder = tmp_path_factory.mktemp("models") / SMALL_BERT
    parts = [load_text(task).splits["train"] for task in TASKS]
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


@pytest.fixture
def text_config(text_model):
    """A run on 24 sentences with 3 samples each."""
    return RunConfig(
        dataset="grammar_cola",
        model=SMALL_BERT,
        method="mmel_h",
        num_augmented=3,
        train_size=24,
        batch_size=8,
        epochs=2,
        lr=1e-3,
        weight_decay=0.0,
        precision="fp32",
    )


@pytest.fixture
def few_texts(monkeypatch):
    """Cuts every split to 24 texts, so that whole splits are cheap too; the test splits' labels can be taken away."""
    hidden = set()

    def load(dataset, data_root=None):
        data = load_text(dataset, data_root)
        for name, part in data.splits.items():
            part = part.take(range(24))
            if name in hidden:
                part = type(part)(part.sentences, part.pairs, None)
            data.splits[name] = part
        return data

    monkeypatch.setattr("mmel.train.text.load_text", load)
    return hidden


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    return Store(folder)


@pytest.fixture(scope="session")
def start():
    """Calls a function in a process that has torch and transformers imported already, and returns its exit code.

    `kill` is (owner, function, at which call, before or after it): where the process dies.
    """
    context = multiprocessing.get_context("forkserver")
    # What a run imports, and what the modules of these tests do.
    context.set_forkserver_preload(
        ["mmel.train", "sklearn.datasets", "torch._dynamo", "transformers.models.bert.modeling_bert", "pytest"]
    )

    def begin(target, *arguments, kill=None, environment=None):
        process = context.Process(target=_call, args=(target, arguments, kill, environment or {}))
        process.start()
        process.join(600)
        assert process.exitcode is not None, "the run hangs"
        return process.exitcode

    return begin


def _call(target, arguments, kill, environment):
    torch.set_num_threads(1)
    os.environ.update(environment)
    if kill is not None:
        _die_at(*kill)
    target(*arguments)


def _die_at(owner, name, count, when):
    owner = resolve_name(owner)
    original, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(None)
        if len(calls) == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)
