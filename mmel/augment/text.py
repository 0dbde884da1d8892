"""Masked-LM augmentation of sentences: Algorithm 2 of the paper (Appendix C), and its beam search."""

import hashlib
import math
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mmel.augment.text_cache import FillCache
from mmel.augment.text_encode import encode, rewrite, spans, strings
from mmel.augment.text_fill import Filler, Fills, Job

if TYPE_CHECKING:
    from tokenizers import Encoding

FILLS = ("greedy", "beam")
PAIR_MODES = ("separate", "joint")
Text = str | tuple[str, str]


class MaskedLMAugmenter:
    """Makes K - 1 variants of each sentence by masking some of its word pieces and letting a masked LM fill them in.

    Algorithm 2 (`fill="greedy"`): of the n word pieces that are not special, k = max(1, floor(mask_ratio * n + 0.5))
    are masked, drawn without repeats, and filled in the drawn order. Variant i takes the i-th most likely piece at the
    first position; every further position takes the most likely piece given what has been filled so far.
    `fill="beam"` keeps, at the same positions in the same order, the `beam_width` fills with the highest summed
    log-probability, and gives the K - 1 best of them.

    Special and unused pieces of the vocabulary are never filled in. The original piece may come back, and a variant
    equal to the original stays; one without a piece to mask (the empty one) has copies of itself. A word outside the
    vocabulary, [UNK], may be masked; a special piece written in the text, "[SEP]" say, is left as it is.

    The masked positions depend on `seed`, `mask_ratio` and the sentence's pieces alone; those of a smaller `mask_ratio`
    are the first ones of a larger. The fills do not depend on the batch either, but for rounding: where two pieces are
    about equally likely, another batch may pick the other one.

    Args:
        model: a masked LM of Hugging Face, on any device, in any precision (half precision on a CPU, which on most is
            several times slower, is warned of). It runs in eval mode and is left in the mode it was in. With a cache it
            must not be changed afterwards: its weights are digested here.
        tokenizer: its fast tokenizer.
        num_augmented: K = |B(x)| >= 2, the original included.
        mask_ratio: in (0, 1].
        fill: `greedy` or `beam`.
        pair_mode: `separate` (each sentence of a pair as an input of its own; variant i of one is joined with variant
            i of the other) or `joint` (both in one input, positions drawn over both).
        seed: of the masked positions.
        max_length: word pieces of an input, special ones included; text beyond is cut off before masking.
        cache: folder that keeps fills by content (weights, vocabulary, settings, pieces), or None. The next call reads
            them, also after a kill; several processes may share it.
        beam_width: of the beam search, at least K - 1, which is the default; None for greedy.
        batch_tokens: word pieces in one forward; the default depends on the device.
        bf16: run the forwards under bfloat16 autocast, but the last product, by whose logits pieces are chosen, in
            float32: in bfloat16 the best ones would tie. False: with whatever autocast is around the call.

    Raises:
        ValueError: on an argument out of range, a tokenizer without mask piece or of another vocabulary, or too few
            pieces for K - 1 different fills.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        num_augmented: int = 5,
        mask_ratio: float = 0.4,
        fill: str = "greedy",
        pair_mode: str = "separate",
        seed: int = 0,
        max_length: int = 128,
        cache: str | Path | None = None,
        beam_width: int | None = None,
        batch_tokens: int | None = None,
        bf16: bool = False,
    ):
        for name, value, choices in (("fill", fill, FILLS), ("pair_mode", pair_mode, PAIR_MODES)):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if not isinstance(num_augmented, int) or num_augmented < 2:
            raise ValueError(f"num_augmented must be an integer of at least 2, original included, got {num_augmented}")
        if not 0 < mask_ratio <= 1:
            raise ValueError(f"mask_ratio must be in (0, 1], got {mask_ratio}")
        if not isinstance(seed, int):
            raise ValueError(f"seed must be an integer, got {seed!r}")
        if beam_width is not None and (fill != "beam" or beam_width < num_augmented - 1):
            raise ValueError(
                f"beam_width must be None, or with fill='beam' at least num_augmented - 1 = {num_augmented - 1}, "
                f"got {beam_width} with fill={fill!r}"
            )
        for name, piece in (("mask", tokenizer.mask_token_id), ("padding", tokenizer.pad_token_id)):
            if piece is None:
                raise ValueError(f"tokenizer must have a {name} piece, got {type(tokenizer).__name__} without one")
        room = min(tokenizer.model_max_length, _positions(model))
        if max_length > room:
            raise ValueError(f"max_length must be at most {room}, what model and tokenizer take, got {max_length}")
        self.model = model
        self.tokenizer = tokenizer
        self.num_augmented = num_augmented
        self.mask_ratio = mask_ratio
        self.pair_mode = pair_mode
        self.seed = seed
        self.max_length = max_length
        self.bf16 = bf16

        self._unmaskable = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        (ends,) = encode(tokenizer, ["a"], max_length=max_length)
        (middle,) = spans(ends)
        self._prefix, self._suffix = ends.ids[: middle.start], ends.ids[middle.stop :]
        beam_width = None if fill == "greedy" else beam_width or num_augmented - 1
        self._filler = Filler(model, tokenizer, num_augmented - 1, beam_width, batch_tokens, bf16)
        if self._filler.device.type == "cpu" and (dtype := next(model.parameters()).dtype).itemsize < 4:
            warnings.warn(f"model is in {dtype}, on most CPUs several times slower than model.float()", stacklevel=2)
        settings = {"num_augmented": num_augmented, "mask_ratio": mask_ratio, "fill": fill, "width": self._filler.width}
        # Files that were filled before bf16 could be on keep their names.
        settings |= {"seed": seed} | ({"bf16": True} if bf16 else {})
        self._cache = None if cache is None else FillCache(cache, model, tokenizer, settings)

    def __call__(self, sentences: Sequence[str], pairs: Sequence[str] | None = None) -> list[list[Text]]:
        """Variants as text, for `datasets.map(batched=True)` too; arguments and errors as `ids`.

        Returns:
            N lists of K strings, or of K (first, second) tuples: at index 0 the untouched original, then the variants,
            cut to `max_length`. Pieces that did not change stand as in the original, with its case and its blanks.
        """
        sides = [strings("sentences", sentences), *([] if pairs is None else [strings("pairs", pairs)])]
        encodings, variants = self._augment(*sides)
        texts: list[list[Any]] = [
            [originals, *rewrite(self.tokenizer, encoding, originals, row[1:])]
            for encoding, row, originals in zip(encodings, variants, zip(*sides, strict=True), strict=True)
        ]
        return texts if pairs is not None else [[text for (text,) in row] for row in texts]

    def ids(self, sentences: Sequence[str], pairs: Sequence[str] | None = None) -> list[list[list[int]]]:
        """Variants as word pieces, which is what training uses: tokenizing a variant's text may change it.

        Args:
            sentences: N strings.
            pairs: the N second sentences, or None.

        Returns:
            N lists of K lists of pieces, special ones included, all as long as the one that `encode` gives, which
            comes first, and with its token types.

        Raises:
            ValueError: as `encode`.
        """
        return self._augment(sentences, pairs)[1]

    def positions(self, sentences: Sequence[str], pairs: Sequence[str] | None = None) -> list[list[int]]:
        """The masked places in `ids`, in the order of filling (`separate`: the first sentence's first); as `ids`."""
        encodings = encode(self.tokenizer, sentences, pairs, self.max_length)
        return [[place + offset for job, offset in self._jobs(one) for place in job.positions] for one in encodings]

    def _augment(
        self, sentences: Sequence[str], pairs: Sequence[str] | None = None
    ) -> tuple[list["Encoding"], list[list[list[int]]]]:
        encodings = encode(self.tokenizer, sentences, pairs, self.max_length)
        jobs = [self._jobs(one) for one in encodings]
        # A dict, not a set: sentences that occur twice are filled once, and the order is the same in each process.
        fills = self._fills(list(dict.fromkeys(job for row in jobs for job, _ in row)))
        variants = []
        for one, row in zip(encodings, jobs, strict=True):
            # Each access to `ids` gives a new list.
            copies = [one.ids for _ in range(self.num_augmented)]
            for job, offset in row:
                for variant, pieces in zip(copies[1:], fills[job], strict=True):
                    for place, piece in zip(job.positions, pieces, strict=True):
                        variant[place + offset] = piece
            variants.append(copies)
        return encodings, variants

    def _jobs(self, encoding: "Encoding") -> list[tuple[Job, int]]:
        """The inputs of the masked LM that an input asks for, each with what its places lie behind those of `ids`."""
        inputs = [(tuple(encoding.ids), tuple(encoding.type_ids), 0)]
        if self.pair_mode == "separate":
            inputs = []
            for span in spans(encoding):
                ids = (*self._prefix, *encoding.ids[span], *self._suffix)
                inputs.append((ids, (0,) * len(ids), span.start - len(self._prefix)))
        jobs = [(Job(ids, types, self._draw(ids)), offset) for ids, types, offset in inputs]
        return [(job, offset) for job, offset in jobs if job.positions]

    def _draw(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The positions to mask, in the order in which they are filled; none where no piece may be masked."""
        places = [place for place, piece in enumerate(ids) if piece not in self._unmaskable]
        if not places:
            return ()
        digest = hashlib.sha256(repr((self.seed, ids)).encode()).digest()
        # random() of an integer seed is the one draw that Python promises to keep as it is.
        generator = random.Random(int.from_bytes(digest[:8], "big"))
        order = sorted((generator.random(), place) for place in places)
        count = max(1, math.floor(self.mask_ratio * len(places) + 0.5))
        return tuple(place for _, place in order[:count])

    def _fills(self, jobs: list[Job]) -> dict[Job, Fills]:
        if self._cache is None:
            return {job: fills for batch in self._filler.batches(jobs) for job, fills in self._filler(batch)}
        known = self._cache.read(jobs)
        batches = list(self._filler.batches([job for job in jobs if job not in known]))
        # Processes that augment the same texts share the work: each takes the batches in an order of its own, the
        # longest still first, and leaves out those that another one has filled by then.
        for batch in [*batches[:1], *random.SystemRandom().sample(batches[1:], len(batches[1:]))]:
            known = self._cache.read(batch)
            if missing := [job for job in batch if job not in known]:
                self._cache.write(self._filler(missing))
        # Where two filled the same job, and two pieces were about equally likely, all take the fills that are kept.
        return self._cache.read(jobs)


def _positions(model: nn.Module) -> float:
    """How many pieces a model has positions for."""
    known = getattr(model.config, "max_position_embeddings", math.inf)
    for name, module in model.named_modules():
        # RoBERTa counts from behind the padding's index.
        if name.endswith("position_embeddings") and (padding := getattr(module, "padding_idx", None)) is not None:
            known -= padding + 1
    return known
