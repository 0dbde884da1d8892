import os
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

from mmel.models import ModelError
from mmel.models import text as models

TEXTS = [
    (f"the {a} {b}", None if a == "cat" else f"a {b} {a}") for a in ("cat", "dog") for b in ("sits", "runs", "eats")
]
MINILM = Path(os.environ.get("MMEL_DATA") or "data") / "minilm-l6-mlm"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(models, "PRETRAIN_STEPS", 150)
    monkeypatch.setattr(models, "PRETRAIN_BATCH", 8)


@pytest.fixture
def folder(tmp_path, quick):
    return models.tiny_bert(TEXTS, tmp_path / "deep" / "tiny")


def test_tiny_bert_has_every_word_as_a_piece(folder):
    tokenizer = models.load_tokenizer(folder)
    assert set(tokenizer.get_vocab()) == {*models.SPECIAL_PIECES, *["the", "a", "cat", "dog", "sits", "runs", "eats"]}
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("The cat sits")["input_ids"])
    assert pieces == ["[CLS]", "the", "cat", "sits", "[SEP]"]
    # Nothing of the work is left beside it.
    assert list(folder.parent.iterdir()) == [folder]


def test_tiny_bert_learns_what_may_stand_where(folder):
    tokenizer, model = models.load_tokenizer(folder), models.load_masked_lm(folder)
    assert not model.training
    batch = tokenizer("the [MASK] runs", return_tensors="pt")
    with torch.no_grad():
        likely = model(**batch).logits[0, 2].topk(2).indices.tolist()
    assert set(tokenizer.convert_ids_to_tokens(likely)) == {"cat", "dog"}


def test_tiny_bert_is_made_once_and_alike(folder, tmp_path, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()
    again = models.tiny_bert(TEXTS, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == before
    assert (models.tiny_bert(TEXTS, tmp_path / "other", seed=1) / "model.safetensors").read_bytes() != before
    monkeypatch.setattr(models, "_pretrain", lambda *_: pytest.fail("trained again"))
    assert models.tiny_bert(TEXTS, folder) == folder


def test_tiny_bert_leaves_the_callers_generator_alone(tmp_path, quick):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    models.tiny_bert(TEXTS, tmp_path / "tiny")
    assert torch.equal(torch.rand(3), expected)


def test_a_killed_build_leaves_nothing_half_written(tmp_path, quick, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(BertForMaskedLM, "save_pretrained", killed)
    with pytest.raises(KeyboardInterrupt):
        models.tiny_bert(TEXTS, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_classifier_takes_the_encoder_and_a_head_from_the_generator(folder, outputs):
    torch.manual_seed(0)
    first = models.load_classifier(folder, outputs, 0.0, 0.0)
    torch.manual_seed(0)
    second = models.load_classifier(folder, outputs, 0.0, 0.0)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert first.classifier.out_features == outputs
    assert first.dtype == torch.float32
    embeddings = models.load_masked_lm(folder).get_input_embeddings().weight
    assert torch.equal(first.get_input_embeddings().weight, embeddings)


def dropouts(model):
    return sorted({module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)})


def test_dropout_rates_reach_every_layer(folder):
    model = models.load_classifier(folder, 2, 0.25, 0.5)
    assert dropouts(model) == [0.25, 0.5]
    assert model.dropout.p == 0.25
    assert {layer.attention.self.dropout.p for layer in model.bert.encoder.layer} == {0.5}
    assert dropouts(models.load_classifier(folder, 2, 0.0, 0.0)) == [0.0]


def test_dropout_rates_of_an_architecture_with_other_names(tmp_path):
    config = DistilBertConfig(vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    DistilBertForMaskedLM(config).save_pretrained(tmp_path)
    assert dropouts(models.load_classifier(tmp_path, 2, 0.25, 0.5)) == [0.25, 0.5]


def test_an_architecture_without_known_dropouts_is_refused(folder, monkeypatch):
    monkeypatch.setattr(models, "ATTENTION_DROPOUTS", ("attention_noise",))
    with pytest.raises(ModelError, match="bert has none of the dropouts attention_noise"):
        models.load_classifier(folder, 2, 0.0, 0.0)


@pytest.mark.parametrize("load", [models.load_tokenizer, models.load_masked_lm])
def test_a_folder_without_a_model_is_named(tmp_path, load):
    with pytest.raises(ModelError, match=rf"{tmp_path} is no text encoder that can be loaded .*--text-model"):
        load(tmp_path)


def test_loading_says_nothing(folder, capfd):
    models.load_classifier(folder, 2, 0.1, 0.1)
    models.load_masked_lm(folder)
    assert capfd.readouterr() == ("", "")


def test_a_head_in_half_precision_is_loaded_in_float32(tmp_path):
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForMaskedLM(config).half().save_pretrained(tmp_path)
    assert models.load_masked_lm(tmp_path).dtype == torch.float32
    assert models.load_classifier(tmp_path, 2, 0.1, 0.1).dtype == torch.float32


@pytest.mark.skipif(not MINILM.is_dir(), reason="no minilm-l6-mlm in MMEL_DATA")
def test_a_real_encoder():
    tokenizer, model = models.load_tokenizer(MINILM), models.load_masked_lm(MINILM)
    batch = tokenizer("paris is the [MASK] of france .", return_tensors="pt")
    with torch.no_grad():
        likely = model(**batch).logits[0, 4].topk(5).indices.tolist()
    assert "capital" in tokenizer.convert_ids_to_tokens(likely)
