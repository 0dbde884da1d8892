"""Token sequences of many lengths on one device, and a text classifier's outputs on them without much padding."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mmel.study.train import machine, processes

# Tokens, padding included, that go through the network at once when no gradient is kept.
EVAL_TOKENS = {"cpu": 4096, "cuda": 131_072}
# Parts of like length into which a training batch is cut on a CPU, where fewer padded tokens are less work, and the
# numbers (tokens times the encoder's width) that a part must have: with fewer its calls cost more than padding would.
TRAIN_PARTS = 4
CPU_PART_NUMBERS = 80_000
# On a GPU a part is worth a call of its own where it saves more than this share of the tokens in it, and only from
# this many tokens on: less does not fill the device, and one larger call is faster.
CUDA_PADDING = 0.1
CUDA_PART_TOKENS = 8192

Parts = Callable[[Tensor, int], list[int]]


class Sequences:
    """N examples of V equally long sequences each, stored end to end.

    Args:
        ids: N lists of V lists of token ids, special ones included.
        token_types: N lists, the segment of each token, shared by an example's sequences.
        device: where to keep them.

    Attributes:
        lengths: (N,) tokens of each example's sequences, on the CPU.
        num_variants: V.
    """

    def __init__(self, ids: Sequence[Sequence[list[int]]], token_types: Sequence[list[int]], device: torch.device):
        self.lengths = torch.tensor([len(variants[0]) for variants in ids])
        self.num_variants = len(ids[0])
        self.device = device
        tokens = [token for variants in ids for column in zip(*variants, strict=True) for token in column]
        self._tokens = torch.tensor(tokens, device=device).view(-1, self.num_variants)
        self._types = torch.tensor([kind for types in token_types for kind in types], device=device)
        self._lengths = self.lengths.to(device)
        self._starts = self._lengths.cumsum(0) - self._lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, index: Tensor, places: Tensor | None = None) -> dict[str, Tensor]:
        """The sequences of some examples, padded to the longest of them.

        Args:
            index: (n,) places on the CPU.
            places: the same on the device, where they are there already.

        Returns:
            `input_ids`, `token_type_ids` (n * V, L) and, unless all are equally long, `attention_mask` (n * V, L).
        """
        lengths = self.lengths[index]
        longest, shortest = int(lengths.max()), int(lengths.min())
        place = torch.arange(longest, device=self.device)
        if places is None:
            places = machine.to_device(index, self.device)
        mask = place < self._lengths[places][:, None]
        # Padding points at the example's first token, whose value no real token can see.
        source = self._starts[places][:, None] + place * mask
        batch = {
            "input_ids": self._tokens[source].transpose(1, 2).flatten(0, 1),
            "token_type_ids": self._spread(self._types[source]),
        }
        return batch if longest == shortest else {**batch, "attention_mask": self._spread(mask.long())}

    def digest(self) -> str:
        """SHA-256 of lengths and tokens."""
        return hashlib.sha256(self.lengths.numpy().tobytes() + self._tokens.cpu().numpy().tobytes()).hexdigest()

    def _spread(self, values: Tensor) -> Tensor:
        return values.repeat_interleave(self.num_variants, dim=0)


def forward(model: nn.Module, sequences: Sequences, index: Tensor, parts: Parts | None = None) -> Tensor:
    """A classifier's outputs on some examples: (n,) places -> (n, V, C); parts of like length go through one by one.

    Without BatchNorm the parts change nothing but the padding.

    Args:
        model: the classifier.
        sequences: where the examples are.
        index: (n,) places on the CPU.
        parts: cuts lengths (n,), longest first, into the numbers of examples that go through together; None for what
            is fast on the device.
    """
    lengths, order = sequences.lengths[index].sort(descending=True, stable=True)
    if parts is None:
        on_cpu = sequences.device.type == "cpu"
        parts = functools.partial(equal_parts, width=model.config.hidden_size) if on_cpu else parts_by_tokens
    sizes = parts(lengths, sequences.num_variants)
    # Moved once: of many small copies the device would wait for each. `back` undoes the order.
    places, back = machine.to_device(torch.stack([index[order], order.argsort()]), sequences.device)
    split = zip(index[order].split(sizes), places.split(sizes), strict=True)
    return torch.cat([_outputs(model, sequences, *part) for part in split])[back]


def equal_parts(lengths: Tensor, num_variants: int, width: int) -> list[int]:
    """Up to `TRAIN_PARTS` parts, as many examples in each, none of which is too small to be worth its calls.

    Args:
        lengths: (n,) tokens of an example's sequences, longest first, on the CPU.
        num_variants: V, sequences of each example.
        width: of the encoder.

    Returns:
        How many examples are in each part.
    """
    numbers = int(lengths.sum()) * num_variants * width
    return [len(part) for part in lengths.chunk(min(TRAIN_PARTS, max(1, numbers // CPU_PART_NUMBERS)))]


def parts_by_tokens(lengths: Tensor, num_variants: int) -> list[int]:
    """Parts in which little is padding: each ends where the next example would bring it above `CUDA_PADDING`.

    A part grows while it has fewer than `CUDA_PART_TOKENS`, so padding is bounded in all that are worth it.

    Args:
        lengths: (n,) tokens of an example's sequences, longest first, on the CPU.
        num_variants: V, sequences of each example.

    Returns:
        How many examples are in each part.
    """
    sizes, count, tokens, longest = [], 0, 0, 0
    for length in lengths.tolist():
        padded = (count + 1) * longest
        if count * longest * num_variants >= CUDA_PART_TOKENS and padded - tokens - length > CUDA_PADDING * padded:
            sizes.append(count)
            count, tokens = 0, 0
        if count == 0:
            longest = length
        count, tokens = count + 1, tokens + length
    return [*sizes, count]


@torch.no_grad()
def predict(model: nn.Module, sequences: Sequences) -> Tensor:
    """A classifier's outputs on all examples, (N, V, C) float32 on the CPU, in evaluation mode.

    Of several processes each takes some of the groups of like length, and all get all outputs.
    """
    model.eval()
    order = sequences.lengths.argsort(descending=True, stable=True)
    shape = (len(sequences), sequences.num_variants, model.config.num_labels)
    outputs = torch.zeros(shape, device=sequences.device)
    for number, index in enumerate(_by_tokens(sequences, order)):
        if number % processes.count() == processes.rank():
            places = machine.to_device(index, sequences.device)
            outputs[places] = _outputs(model, sequences, index, places).float()
    processes.add_up([outputs])
    return outputs.cpu()


def _by_tokens(sequences: Sequences, order: Tensor) -> Iterator[Tensor]:
    """`order`, longest first, in groups of a bounded number of tokens."""
    budget = EVAL_TOKENS[sequences.device.type]
    while len(order):
        count = max(1, budget // (int(sequences.lengths[order[0]]) * sequences.num_variants))
        yield order[:count]
        order = order[count:]


def _outputs(model: nn.Module, sequences: Sequences, index: Tensor, places: Tensor) -> Tensor:
    batch = sequences.batch(index, places)
    if getattr(model.config, "type_vocab_size", 0) < 2:
        batch.pop("token_type_ids")
    return model(**batch).logits.view(len(index), sequences.num_variants, -1)
