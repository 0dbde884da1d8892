"""Filling masked positions with a masked LM, batched over sentences: the forwards of Algorithm 2."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Word pieces in one forward. On a CPU more than this falls out of its caches. On a GPU the logits set the limit, a
# row of the vocabulary for each variant: 1 GB for sentences of eight pieces.
CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 65536

Fills = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Job:
    """One input of the masked LM. Equal jobs have equal fills.

    Attributes:
        ids: the pieces, special ones included, none masked.
        types: their token types.
        positions: the places in `ids` to mask, in the order in which they are filled; at least one.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]
    positions: tuple[int, ...]


class Filler:
    """Fills masked positions, greedily or by beam search.

    The first forward sees each sentence once, each later one all its variants; the vocabulary projection is computed
    at the position that is filled, and nowhere else.

    Args:
        model: a masked LM of Hugging Face. Where its logits at a position depend on the encoder's output at that
            position alone, which is tried once, only that is projected; else all positions are, which is slower.
        mask_id: what stands at a masked position.
        pad_id: what fills a batch up to its longest sentence.
        allowed: the pieces that may be filled in.
        num_variants: K - 1 >= 1.
        beam_width: None for greedy, else at least `num_variants`.
        batch_tokens: word pieces in one forward.
        bf16: run the forwards under bfloat16 autocast, with float32 logits.
    """

    def __init__(
        self,
        model: nn.Module,
        mask_id: int,
        pad_id: int,
        allowed: Sequence[int],
        num_variants: int,
        beam_width: int | None = None,
        batch_tokens: int | None = None,
        bf16: bool = False,
    ):
        self.model = model
        self.mask_id = mask_id
        self.pad_id = pad_id
        self.forbidden = sorted(set(range(model.config.vocab_size)) - set(allowed))
        self.num_variants = num_variants
        self.beam_width = beam_width
        self.batch_tokens = batch_tokens
        self.bf16 = bf16
        # Some encoders know no token types, some only type 0, whatever the tokenizer says.
        self._takes_types = getattr(model.config, "type_vocab_size", 0) > 1
        self._projects_one: bool | None = None

    def __call__(self, jobs: Sequence[Job]) -> list[tuple[Job, Fills]]:
        """The fills of some jobs, filled in one batch: K - 1 times the pieces at a job's `positions`, in that order."""
        with _evaluating(self.model), torch.inference_mode(), self._precision():
            fills = self._fill(jobs).tolist()
        # The rows are as long as the batch's longest.
        return [
            (job, tuple(tuple(row[: len(job.positions)]) for row in rows))
            for job, rows in zip(jobs, fills, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        # What was found out on the way is not part of it: `datasets` takes objects of one state for the same.
        return {**self.__dict__, "_projects_one": None}

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        if not self.bf16:
            yield
            return
        head = self.model.get_output_embeddings()
        # A head of another kind keeps what autocast makes of it.
        handle = head.register_forward_hook(_in_float32) if isinstance(head, nn.Linear) else None
        try:
            with torch.autocast(self.device.type, torch.bfloat16):
                yield
        finally:
            if handle is not None:
                handle.remove()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def batches(self, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Jobs of similar length together, never more than `batch_tokens` (except of a single job).

        The longest come first, so that a batch that does not fit in memory is the first.
        """
        limit = self.batch_tokens or (CPU_BATCH_TOKENS if self.device.type == "cpu" else GPU_BATCH_TOKENS)
        rows = self.beam_width or self.num_variants
        batch: list[Job] = []
        for job in sorted(jobs, key=lambda job: (len(job.ids), len(job.positions), job.ids, job.types), reverse=True):
            longest = len(batch[0].ids) if batch else 0
            full = (len(batch) + 1) * longest * rows > limit
            # A forward costs something by itself: a batch is closed for padding's sake only when it is worth one.
            padded = len(batch) * longest * rows > limit // 8 and len(job.ids) < 0.7 * longest
            if batch and (full or padded):
                yield batch
                batch = []
            batch.append(job)
        if batch:
            yield batch

    def _fill(self, batch: Sequence[Job]) -> Tensor:
        """(n, K - 1, most positions of a job) pieces; what is beyond a job's own positions means nothing."""
        # By falling number of positions: the jobs that have one left to fill are always the first ones.
        order = sorted(range(len(batch)), key=lambda place: -len(batch[place].positions))
        jobs = [batch[place] for place in order]
        ids, types, attention, positions = self._tensors(jobs)
        n, width = len(jobs), self.beam_width or self.num_variants
        forbidden = torch.tensor(self.forbidden, device=ids.device)

        logits = self._logits(ids, types, attention, positions[:, 0])
        scores, pieces = self._scores(logits, forbidden).topk(width)
        ids = ids[:, None].repeat(1, width, 1)
        ids.scatter_(2, positions[:, :1, None].expand(n, width, 1), pieces[..., None])

        for step in range(1, positions.shape[1]):
            n = sum(len(job.positions) > step for job in jobs)
            length = max(len(job.ids) for job in jobs[:n])
            place = positions[:n, step]
            rows = [tensor[:n, None, :length].expand(n, width, length).flatten(0, 1) for tensor in (types, attention)]
            logits = self._logits(ids[:n, :, :length].flatten(0, 1), *rows, place.repeat_interleave(width))
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

        filled = ids[:, : self.num_variants].gather(2, positions[:, None].expand(-1, self.num_variants, -1))
        # Back to the order of the batch.
        return filled[torch.tensor(order).argsort().to(filled.device)]

    def _tensors(self, jobs: Sequence[Job]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Masked ids, token types, attention and positions, each padded on the right."""

        def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
            longest = max(map(len, rows))
            return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], device=self.device)

        masked = [list(job.ids) for job in jobs]
        for job, row in zip(jobs, masked, strict=True):
            for place in job.positions:
                row[place] = self.mask_id
        attention = padded([[1] * len(row) for row in masked], 0)
        positions = padded([job.positions for job in jobs], 0)
        return padded(masked, self.pad_id), padded([job.types for job in jobs], 0), attention, positions

    def _scores(self, logits: Tensor, forbidden: Tensor) -> Tensor:
        """Scores that rank the pieces: logits, or log-probabilities for a beam; -inf for pieces never filled in."""
        scores = logits.log_softmax(1) if self.beam_width else logits
        return scores.index_fill_(1, forbidden, -torch.inf)

    def _logits(self, ids: Tensor, types: Tensor, attention: Tensor, places: Tensor) -> Tensor:
        """(rows, V) float32 logits at one place of each row of ids, types and attention (rows, length)."""
        inputs = {"input_ids": ids, "attention_mask": attention}
        if self._takes_types:
            inputs["token_type_ids"] = types
        if self._projects_one is None:
            one = {name: tensor[:1] for name, tensor in inputs.items()}
            every = _project_everywhere(self.model, one, places[:1])
            if every.shape[1] != self.model.config.vocab_size:
                raise ValueError(
                    f"model must be a masked LM with a logit for each of {self.model.config.vocab_size} pieces, "
                    f"got {type(self.model).__name__} with an output of {tuple(every.shape)}"
                )
            only = _project_at(self.model, one, places[:1])
            # Rounding of bf16 passes, a head that looks at other positions too does not.
            self._projects_one = only.shape == every.shape and bool((only - every).norm() < 0.02 * every.norm())
        project = _project_at if self._projects_one else _project_everywhere
        return project(self.model, inputs, places).float()


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Module by module: somebody may have put a part of it into eval mode.
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _in_float32(linear: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """A layer's output once more, in float32; it has a row for each text, so it costs little beside the encoder."""
    bias = None if linear.bias is None else linear.bias.float()
    with torch.autocast(output.device.type, enabled=False):
        return F.linear(inputs[0].float(), linear.weight.float(), bias)


def _project_everywhere(model: nn.Module, inputs: dict[str, Tensor], places: Tensor) -> Tensor:
    logits = model(**inputs)[0]
    return logits[torch.arange(len(places), device=places.device), places]


def _project_at(model: nn.Module, inputs: dict[str, Tensor], places: Tensor) -> Tensor:
    """As `_project_everywhere`, with the head given the encoder's output at `places` alone, as a sequence of one."""

    def keep(module: nn.Module, arguments: tuple, output: object) -> object:
        hidden = output[0][torch.arange(len(places), device=places.device), places][:, None]
        if isinstance(output, tuple):
            return (hidden, *output[1:])
        output["last_hidden_state"] = hidden
        return output

    handle = model.base_model.register_forward_hook(keep)
    try:
        return model(**inputs)[0][:, 0]
    finally:
        handle.remove()
