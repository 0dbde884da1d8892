"""Batches of sequences of many lengths: neither padding nor the parts they go in change what a network says."""

import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmel.study.models.encoder import load_classifier
from mmel.study.train import sequences as module
from mmel.study.train.sequences import Sequences, forward, predict

CPU = torch.device("cpu")
LENGTHS = (5, 9, 3, 9, 4, 12, 7, 3, 6, 5)
V = 3

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(lengths=LENGTHS, num_variants=V):
    """Random tokens and segments: N lists of V lists, N lists."""
    draw = random.Random(0)
    ids = [[[draw.randrange(5, 50) for _ in range(length)] for _ in range(num_variants)] for length in lengths]
    types = [[0] * (length // 2) + [1] * (length - length // 2) for length in lengths]
    return ids, types


@pytest.fixture(scope="module")
def sequences():
    return Sequences(*drawn(), CPU)


@pytest.fixture(scope="module")
def networks(small_bert):
    """Three kinds of encoder: segments, none but positions counted from the padding token, neither."""
    from transformers import (
        DistilBertConfig,
        DistilBertForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    torch.manual_seed(0)
    small = {"vocab_size": 60, "num_labels": 3, "initializer_range": 0.2}
    bert = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    roberta = RobertaConfig(**small, **bert, type_vocab_size=1, max_position_embeddings=40, pad_token_id=1)
    distilbert = DistilBertConfig(**small, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=40)
    return {
        "bert": load_classifier(small_bert, 3, 0.1, 0.1).eval(),
        "roberta": RobertaForSequenceClassification(roberta).eval(),
        "distilbert": DistilBertForSequenceClassification(distilbert).eval(),
    }


@torch.no_grad()
def one_by_one(network, ids, types, name="bert"):
    """(N, V, C): each sequence by itself, with nothing to pad."""
    outputs = []
    for variants, kinds in zip(ids, types, strict=True):
        extra = {"token_type_ids": torch.tensor([kinds])} if name == "bert" else {}
        outputs.append([network(input_ids=torch.tensor([one]), **extra).logits[0] for one in variants])
    return torch.stack([torch.stack(rows) for rows in outputs])


def test_a_batch_is_padded_to_its_longest_sample_major(sequences):
    ids, types = drawn()
    batch = sequences.batch(torch.tensor([4, 6, 2]))
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask"}
    assert {tuple(part.shape) for part in batch.values()} == {(3 * V, 7)}
    for row, (place, variant) in enumerate((place, variant) for place in (4, 6, 2) for variant in range(V)):
        length = LENGTHS[place]
        assert batch["input_ids"][row, :length].tolist() == ids[place][variant]
        assert batch["token_type_ids"][row, :length].tolist() == types[place]
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (7 - length)


def test_a_batch_of_equally_long_texts_needs_no_mask(sequences):
    batch = sequences.batch(torch.tensor([1, 3]))
    assert set(batch) == {"input_ids", "token_type_ids"}
    assert batch["input_ids"].shape == (2 * V, 9)


def test_variants_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="length"):
        Sequences([[[1, 2, 3], [1, 2]]], [[0, 0, 0]], CPU)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("parts", [1, 4])
@torch.no_grad()
def test_neither_padding_nor_parts_change_an_output(name, parts, networks, sequences, monkeypatch):
    monkeypatch.setattr(module, "TRAIN_PARTS", parts)
    monkeypatch.setitem(module.PART_NUMBERS, "cpu", 1)
    expected = one_by_one(networks[name], *drawn(), name)
    # Far enough apart that outputs in a wrong place would be seen.
    assert torch.pdist(expected.flatten(0, 1)).min() > 1e-3
    for index in (torch.arange(len(LENGTHS)), torch.tensor([7, 5, 0, 2, 1]), torch.tensor([4])):
        outputs = forward(networks[name], sequences, index)
        torch.testing.assert_close(outputs, expected[index], rtol=1e-4, atol=1e-5)


class Watched(nn.Module):
    """A network that notes the inputs it is given."""

    def __init__(self, network):
        super().__init__()
        self.network, self.config, self.seen = network, network.config, []

    def forward(self, **inputs):
        self.seen.append({name: tuple(part.shape) for name, part in inputs.items()})
        return self.network(**inputs)


def test_parts_hold_texts_of_like_length(networks, sequences, monkeypatch):
    monkeypatch.setitem(module.PART_NUMBERS, "cpu", 1)
    watched = Watched(networks["bert"])
    forward(watched, sequences, torch.arange(len(LENGTHS)))
    # Longest first: 12 9 9 | 7 6 5 | 5 4 3 | 3.
    assert [seen["input_ids"] for seen in watched.seen] == [(9, 12), (9, 7), (9, 5), (3, 3)]


@pytest.mark.parametrize(("width", "sizes"), [(64, [16]), (128, [8, 8]), (384, [4, 4, 4, 4]), (1024, [4, 4, 4, 4])])
def test_parts_are_worth_their_calls(width, sizes):
    config = SimpleNamespace(hidden_size=width)
    seen = []

    def network(input_ids, **_):
        seen.append(len(input_ids) // 5)
        return SimpleNamespace(logits=torch.zeros(len(input_ids), 2))

    network.config = config
    forward(network, Sequences(*drawn([16] * 16, 5), CPU), torch.arange(16))
    assert seen == sizes


def test_prediction_takes_a_bounded_number_of_tokens_at_once(networks, sequences, monkeypatch):
    expected = one_by_one(networks["bert"], *drawn())
    # The longest text alone has more: it goes by itself.
    for budget in (30, 60, 90, 10_000):
        monkeypatch.setitem(module.EVAL_TOKENS, "cpu", budget)
        watched = Watched(networks["bert"])
        torch.testing.assert_close(predict(watched, sequences), expected, rtol=1e-4, atol=1e-5)
        sizes = [seen["input_ids"] for seen in watched.seen]
        assert all(rows == V or rows * longest <= budget for rows, longest in sizes)
        assert (len(sizes) == 1) == (budget == 10_000)


def test_prediction_is_without_dropout(small_bert, sequences):
    network = load_classifier(small_bert, 3, 0.5, 0.5).train()
    outputs = predict(network, sequences)
    assert not outputs.requires_grad
    torch.testing.assert_close(outputs, one_by_one(network.eval(), *drawn()), rtol=1e-4, atol=1e-5)


def test_predictions_are_float32_whatever_autocast_says(networks, sequences):
    with torch.autocast("cpu", torch.bfloat16):
        assert predict(networks["bert"], sequences).dtype == torch.float32


def test_a_digest_tells_sequences_apart():
    ids, types = drawn()
    changed = [[list(one) for one in variants] for variants in ids]
    changed[3][1][0] += 1
    # The last two hold the same tokens, cut otherwise.
    one, two = ([[[7, 8, 9]], [[7]]], [[0] * 3, [0]]), ([[[7, 8]], [[9, 7]]], [[0] * 2] * 2)
    digests = [
        Sequences(*each, CPU).digest() for each in ((ids, types), (changed, types), (ids[::-1], types[::-1]), one, two)
    ]
    assert len(set(digests)) == 5
    assert Sequences(*drawn(), CPU).digest() == digests[0]
