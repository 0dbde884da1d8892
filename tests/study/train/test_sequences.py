"""Batches of sequences of many lengths: neither padding nor the parts they go in change a network's outputs."""

import random
from types import SimpleNamespace

import pytest
import torch
import transformers
from tiny import CPU, one_by_one
from torch import nn

from mmel.study.models.encoder import load_classifier
from mmel.study.train import sequences as module
from mmel.study.train.sequences import Sequences, forward, predict

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


class Watched(nn.Module):
    """A network that notes the shapes of the sequences that it is given."""

    def __init__(self, network):
        super().__init__()
        self.network, self.config, self.seen = network, network.config, []

    def forward(self, **inputs):
        self.seen.append(tuple(inputs["input_ids"].shape))
        return self.network(**inputs)


@pytest.fixture(params=["bert", "roberta", "distilbert"])
def network(request, small_bert):
    """Three kinds of encoder: segments, positions from the padding token on, neither; with dropout."""
    torch.manual_seed(0)
    if request.param == "bert":
        return Watched(load_classifier(small_bert, 3, 0.5, 0.5))
    small = {"vocab_size": 60, "num_labels": 3, "initializer_range": 0.2, "max_position_embeddings": 40}
    if request.param == "distilbert":
        config = transformers.DistilBertConfig(**small, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    else:
        small |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        config = transformers.RobertaConfig(**small, type_vocab_size=1, pad_token_id=1)
    return Watched(transformers.AutoModelForSequenceClassification.from_config(config))


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
    assert set(sequences.batch(torch.tensor([1, 3]))) == {"input_ids", "token_type_ids"}


def test_variants_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="length"):
        Sequences([[[1, 2, 3], [1, 2]]], [[0, 0, 0]], CPU)


@torch.no_grad()
def test_neither_padding_nor_parts_change_an_output(network, sequences, monkeypatch):
    expected = one_by_one(network, *drawn())
    # Far enough apart that outputs in a wrong place would be seen.
    assert torch.pdist(expected.flatten(0, 1)).min() > 1e-3
    monkeypatch.setitem(module.PART_NUMBERS, "cpu", 1)
    for parts in (1, 4):
        monkeypatch.setattr(module, "TRAIN_PARTS", parts)
        for index in (torch.arange(len(LENGTHS)), torch.tensor([7, 5, 0, 2, 1]), torch.tensor([4])):
            outputs = forward(network, sequences, index)
            torch.testing.assert_close(outputs, expected[index], rtol=1e-4, atol=1e-5)
    # Parts of like length, longest first: 12 9 9 | 7 6 5 | 5 4 3 | 3.
    network.seen.clear()
    forward(network, sequences, torch.arange(len(LENGTHS)))
    assert network.seen == [(9, 12), (9, 7), (9, 5), (3, 3)]
    # The longest text alone has more than 30 tokens: it goes by itself.
    for budget in (30, 60, 90, 10_000):
        monkeypatch.setitem(module.EVAL_TOKENS, "cpu", budget)
        network.seen.clear()
        torch.testing.assert_close(predict(network.train(), sequences), expected, rtol=1e-4, atol=1e-5)
        assert all(rows == V or rows * longest <= budget for rows, longest in network.seen)
        assert (len(network.seen) == 1) == (budget == 10_000)
    with torch.autocast("cpu", torch.bfloat16):
        assert predict(network, sequences).dtype == torch.float32


@pytest.mark.parametrize(("width", "sizes"), [(64, [16]), (128, [8, 8]), (384, [4, 4, 4, 4]), (1024, [4, 4, 4, 4])])
def test_parts_are_worth_their_calls(width, sizes):
    seen = []

    def network(input_ids, **_):
        seen.append(len(input_ids) // 5)
        return SimpleNamespace(logits=torch.zeros(len(input_ids), 2))

    network.config = SimpleNamespace(hidden_size=width)
    forward(network, Sequences(*drawn([16] * 16, 5), CPU), torch.arange(16))
    assert seen == sizes


def test_a_digest_tells_sequences_apart():
    ids, types = drawn()
    changed = [[list(one) for one in variants] for variants in ids]
    changed[3][1][0] += 1
    # The last two hold the same tokens, cut otherwise.
    one, two = ([[[7, 8, 9]], [[7]]], [[0] * 3, [0]]), ([[[7, 8]], [[9, 7]]], [[0] * 2] * 2)
    told_apart = ((ids, types), (changed, types), (ids[::-1], types[::-1]), one, two)
    digests = [Sequences(*each, CPU).digest() for each in told_apart]
    assert len(set(digests)) == 5
    assert Sequences(*drawn(), CPU).digest() == digests[0]
