"""Token sequences of many lengths, and a text classifier's outputs on them without much padding."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmel.study.train import machine, processes

# Tokens, padding included, that go through the network at once when no gradient is kept.
EVAL_TOKENS = {"cpu": 4096, "cuda": 131_072}
# Parts of like length into which a training batch is cut, as fewer padded tokens are less work, and the numbers (tokens
# times the encoder's width) that a part must have: with fewer its calls cost more than padding would. Less than 8,192
# tokens of width 768 do not fill a GPU.
TRAIN_PARTS = 4
PART_NUMBERS = {"cpu": 80_000, "cuda": 8192 * 768}


class Sequences:
    """N examples of V equally long sequences each.

    Args:
        ids: N lists of V lists of token ids, special ones included.
        token_types: N lists, the segment of each token, shared by an example's sequences.
        device: where batches go.

    Raises:
        ValueError: if the sequences of an example differ in length.
    """

    def __init__(self, ids: Sequence[Sequence[list[int]]], token_types: Sequence[list[int]], device: torch.device):
        self.lengths = torch.tensor([len(variants[0]) for variants in ids])
        self.num_variants = len(ids[0])
        self.device = device
        # (L, V) and (L,) of each example.
        self._ids = [torch.tensor(variants).T for variants in ids]
        self._types = [torch.tensor(types) for types in token_types]

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """The sequences of some examples, padded to the longest of them.

        Args:
            index: (n,) int64 on the CPU.

        Returns:
            `input_ids`, `token_type_ids` (n * V, L) and, unless all are equally long, `attention_mask` (n * V, L).
        """
        lengths = self.lengths[index, None]
        ids, types = (
            pad_sequence([rows[n] for n in index.tolist()], batch_first=True) for rows in (self._ids, self._types)
        )
        batch = {"input_ids": ids.mT.flatten(0, 1), "token_type_ids": types.repeat_interleave(self.num_variants, dim=0)}
        if (lengths < ids.shape[1]).any():
            mask = (torch.arange(ids.shape[1]) < lengths).long()
            batch["attention_mask"] = mask.repeat_interleave(self.num_variants, dim=0)
        return {name: machine.to_device(values, self.device) for name, values in batch.items()}

    def drawn(self, index: Tensor, views: Tensor) -> "Sequences":
        """One sequence of each of some examples: (n,) examples and (n,) indices of their sequences."""
        places = zip(index.tolist(), views.tolist(), strict=True)
        ids = [[self._ids[n][:, k].tolist()] for n, k in places]
        return Sequences(ids, [self._types[n].tolist() for n in index.tolist()], self.device)

    def digest(self) -> str:
        """SHA-256 of lengths and tokens."""
        return hashlib.sha256(self.lengths.numpy().tobytes() + torch.cat(self._ids).numpy().tobytes()).hexdigest()


def forward(model: nn.Module, sequences: Sequences, index: Tensor, noise: Tensor | None = None) -> Tensor:
    """A classifier's outputs on some examples: (n,) int64 on the CPU -> (n, V, C).

    Up to `TRAIN_PARTS` parts of like length, of equally many examples, go through one by one. Without BatchNorm they
    change nothing but the padding. With V = 1, `noise` (n, the longest length, D) is added to the word embeddings.
    """
    lengths, order = sequences.lengths[index].sort(descending=True, stable=True)
    numbers = int(lengths.sum()) * sequences.num_variants * model.config.hidden_size
    parts = min(TRAIN_PARTS, max(1, numbers // PART_NUMBERS[sequences.device.type]))
    found = [
        _outputs(model, sequences, index[part], None if noise is None else noise[part]) for part in order.chunk(parts)
    ]
    return torch.cat(found)[machine.to_device(order.argsort(), sequences.device)]


@torch.no_grad()
def predict(model: nn.Module, sequences: Sequences) -> Tensor:
    """A classifier's outputs on all examples, (N, V, C) float32 on the CPU, in evaluation mode.

    Of several processes each takes some of the groups of like length, and all get all outputs.
    """
    model.eval()
    shape = (len(sequences), sequences.num_variants, model.config.num_labels)
    outputs = torch.zeros(shape, device=sequences.device)
    left, turn = sequences.lengths.argsort(descending=True, stable=True), 0
    while len(left):
        longest = int(sequences.lengths[left[0]]) * sequences.num_variants
        index, left = left.tensor_split([max(1, EVAL_TOKENS[sequences.device.type] // longest)])
        if turn % processes.count() == processes.rank():
            outputs[machine.to_device(index, sequences.device)] = _outputs(model, sequences, index).float()
        turn += 1
    processes.add_up([outputs])
    return outputs.cpu()


def _outputs(model: nn.Module, sequences: Sequences, index: Tensor, noise: Tensor | None = None) -> Tensor:
    batch = sequences.batch(index)
    if getattr(model.config, "type_vocab_size", 0) < 2:
        batch.pop("token_type_ids")
    if noise is not None:
        embeddings = model.get_input_embeddings()(batch.pop("input_ids"))
        batch["inputs_embeds"] = embeddings + noise[:, : embeddings.shape[1]]
    return model(**batch).logits.view(len(index), sequences.num_variants, -1)
