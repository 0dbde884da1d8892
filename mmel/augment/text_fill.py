"""Filling masked positions with a masked LM, batched over sentences: the forwards of Algorithm 2."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

# Word pieces in one forward. On a CPU more than this falls out of its caches. On a GPU the logits set the limit, a
# row of the vocabulary for each variant: 1 GB for sentences of eight pieces.
CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 65536

# Pieces that a vocabulary holds and no text contains.
_UNUSED = re.compile(r"[\[<]unused_?\d+[\]>]|madeupword\d+")

Fills = tuple[tuple[int, ...], ...]


class Job(NamedTuple):
    """One input of the masked LM: its pieces, none masked yet, their token types, and where to mask, in that order."""

    ids: tuple[int, ...]
    types: tuple[int, ...]
    positions: tuple[int, ...]


class Filler:
    """Fills masked positions, greedily or, with a `beam_width`, by beam search; arguments as `MaskedLMAugmenter`.

    The first forward sees each sentence once, each later one all its variants. The vocabulary projection is computed
    at the position that is filled alone, which takes a model whose logits there depend on the encoder's output there
    alone, as those of all masked LMs in `transformers` do.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        num_variants: int,
        beam_width: int | None = None,
        batch_tokens: int | None = None,
        bf16: bool = False,
    ):
        vocabulary, size = tokenizer.get_vocab(), model.config.vocab_size
        if (largest := max(vocabulary.values())) >= size:
            raise ValueError(f"tokenizer must be the model's: it has piece {largest}, the model {size} pieces")
        special = set(tokenizer.all_special_ids)
        allowed = {place for piece, place in vocabulary.items() if place not in special and not _UNUSED.match(piece)}
        self.width = beam_width or num_variants
        if len(allowed) < self.width:
            raise ValueError(
                f"num_augmented - 1 and beam_width must be at most the {len(allowed)} pieces of the vocabulary that "
                f"may be filled in, got {self.width}"
            )
        self.model = model
        self.mask_id = tokenizer.mask_token_id
        self.pad_id = tokenizer.pad_token_id
        # Those of the model that the vocabulary lacks, too.
        self.forbidden = sorted(set(range(size)) - allowed)
        self.num_variants = num_variants
        self.beam_width = beam_width
        self.batch_tokens = batch_tokens
        self.bf16 = bf16
        # Some encoders know no token types, some only type 0, whatever the tokenizer says.
        self._takes_types = getattr(model.config, "type_vocab_size", 0) > 1

    def __call__(self, jobs: Sequence[Job]) -> list[tuple[Job, Fills]]:
        """Jobs and their fills, filled in one batch: K - 1 times the pieces at a job's `positions`, in that order."""
        # By falling number of positions: the jobs that have one left to fill are always the first ones.
        jobs = sorted(jobs, key=lambda job: -len(job.positions))
        with self._evaluating():
            fills = self._fill(jobs).tolist()
        # The rows are as long as the batch's longest.
        rows = zip(jobs, fills, strict=True)
        return [(job, tuple(tuple(fill[: len(job.positions)]) for fill in row)) for job, row in rows]

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        # Module by module: somebody may have put a part of it into eval mode.
        training = [module for module in self.model.modules() if module.training]
        head = self.model.get_output_embeddings() if self.bf16 else None
        # A head of another kind keeps what autocast makes of it.
        handle = head.register_forward_hook(_in_float32) if isinstance(head, nn.Linear) else None
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        self.model.eval()
        try:
            with torch.inference_mode(), autocast:
                yield
        finally:
            for module in training:
                module.training = True
            if handle is not None:
                handle.remove()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def batches(self, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Jobs of similar length together, at most `batch_tokens` unless it is one; the longest come first."""
        limit = self.batch_tokens or (CPU_BATCH_TOKENS if self.device.type == "cpu" else GPU_BATCH_TOKENS)
        batch: list[Job] = []
        for job in sorted(jobs, key=lambda job: (len(job.ids), len(job.positions), job.ids, job.types), reverse=True):
            longest = len(batch[0].ids) if batch else 0
            full = (len(batch) + 1) * longest * self.width > limit
            # A forward costs something by itself: a batch is closed for padding's sake only when it is worth one.
            padded = len(batch) * longest * self.width > limit // 8 and len(job.ids) < 0.7 * longest
            if batch and (full or padded):
                yield batch
                batch = []
            batch.append(job)
        if batch:
            yield batch

    def _fill(self, jobs: Sequence[Job]) -> Tensor:
        """(n, K - 1, most positions of a job) pieces; what is beyond a job's own positions means nothing."""
        ids, types, attention, positions = self._tensors(jobs)
        n, width = len(jobs), self.width
        forbidden = torch.tensor(self.forbidden, device=ids.device)

        logits = self._logits(positions[:, 0], ids, types, attention)
        scores, pieces = self._scores(logits, forbidden).topk(width)
        ids = ids[:, None].repeat(1, width, 1)
        ids.scatter_(2, positions[:, :1, None].expand(n, width, 1), pieces[..., None])

        for step in range(1, positions.shape[1]):
            n = sum(len(job.positions) > step for job in jobs)
            length = max(len(job.ids) for job in jobs[:n])
            place = positions[:n, step]
            rows = [tensor[:n, None, :length].expand(n, width, length).flatten(0, 1) for tensor in (types, attention)]
            logits = self._logits(place.repeat_interleave(width), ids[:n, :, :length].flatten(0, 1), *rows)
            if self.beam_width:
                # Of the width * width best continuations of a sentence's beams, the best: (n, width).
                best, pieces = self._scores(logits, forbidden).view(n, width, -1).topk(width)
                scores[:n], chosen = (scores[:n, :, None] + best).flatten(1).topk(width)
                pieces = pieces.flatten(1).gather(1, chosen)
                ids[:n] = ids[:n].gather(1, (chosen // width)[..., None].expand(-1, -1, ids.shape[2]))
            else:
                # On a CPU argmax() takes twice as long.
                pieces = self._scores(logits, forbidden).max(1).indices.view(n, width)
            ids[:n].scatter_(2, place[:, None, None].expand(n, width, 1), pieces[..., None])

        return ids[:, : self.num_variants].gather(2, positions[:, None].expand(-1, self.num_variants, -1))

    def _tensors(self, jobs: Sequence[Job]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Masked ids, token types, attention and positions, each padded on the right."""

        def padded(rows: Iterable[Sequence[int]], value: int = 0) -> Tensor:
            return pad_sequence([torch.tensor(row) for row in rows], True, value).to(self.device)

        masked = [[self.mask_id if n in job.positions else piece for n, piece in enumerate(job.ids)] for job in jobs]
        attention = padded([1] * len(job.ids) for job in jobs)
        types, positions = padded(job.types for job in jobs), padded(job.positions for job in jobs)
        return padded(masked, self.pad_id), types, attention, positions

    def _scores(self, logits: Tensor, forbidden: Tensor) -> Tensor:
        """Scores that rank the pieces: logits, or log-probabilities for a beam; -inf for pieces never filled in."""
        scores = logits.log_softmax(1) if self.beam_width else logits
        return scores.index_fill_(1, forbidden, -torch.inf)

    def _logits(self, places: Tensor, ids: Tensor, types: Tensor, attention: Tensor) -> Tensor:
        """(rows, V) float32 logits at one place of each row of ids, types and attention (rows, length)."""
        inputs = {"input_ids": ids, "attention_mask": attention}
        if self._takes_types:
            inputs["token_type_ids"] = types
        handle = self.model.base_model.register_forward_hook(partial(_keep, places))
        try:
            logits = self.model(**inputs)[0]
        finally:
            handle.remove()
        if logits.shape[1:] != (1, self.model.config.vocab_size):
            raise ValueError(
                f"model must be a masked LM with a logit for each of {self.model.config.vocab_size} pieces, "
                f"got {type(self.model).__name__} with an output of {tuple(logits.shape)}"
            )
        return logits[:, 0].float()


def _keep(places: Tensor, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """The output of an encoder with the states at `places` alone, each a sequence of one."""
    hidden = output[0][torch.arange(len(places), device=places.device), places][:, None]
    if isinstance(output, tuple):
        return (hidden, *output[1:])
    output["last_hidden_state"] = hidden
    return output


def _in_float32(linear: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """A layer's output once more, in float32; it has a row for each text, so it costs little beside the encoder."""
    bias = None if linear.bias is None else linear.bias.float()
    with torch.autocast(output.device.type, enabled=False):
        return F.linear(inputs[0].float(), linear.weight.float(), bias)
