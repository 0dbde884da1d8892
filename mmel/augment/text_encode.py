"""Sentences as word pieces, with the place of each sentence in its input."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Encoded:
    """A sentence, or a pair of them, as the model reads it.

    Attributes:
        ids: word pieces, special ones included.
        token_type_ids: 0 for the first sentence and 1 for the second, or what else the tokenizer says; a model may
            take none.
        spans: (begin, end) in `ids` of each sentence, without special pieces; (0, 0) of one that has no piece.
    """

    ids: list[int]
    token_type_ids: list[int]
    spans: tuple[tuple[int, int], ...]


def encode(
    tokenizer: Any, sentences: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 128
) -> list[Encoded]:
    """Word pieces of sentences or of pairs, at most `max_length` of them, special ones included.

    Of a pair the longer sentence is cut first. All that follows, masks and variants, sees what is left here.

    Args:
        tokenizer: a fast tokenizer of Hugging Face.
        sentences: N strings.
        pairs: the N second sentences, or None.
        max_length: word pieces.

    Raises:
        ValueError: if `sentences` or `pairs` is not a sequence of strings, their lengths differ, `max_length` leaves
            no room for a piece, or the tokenizer is not a fast one.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"tokenizer must be a fast one, which knows where a sentence lies, got {type(tokenizer)}")
    sentences = strings("sentences", sentences)
    pairs = None if pairs is None else strings("pairs", pairs)
    if pairs is not None and len(pairs) != len(sentences):
        raise ValueError(f"pairs must be as many as sentences, got {len(pairs)} and {len(sentences)}")
    special = tokenizer.num_special_tokens_to_add(pair=pairs is not None)
    if max_length <= special:
        raise ValueError(f"max_length must be more than {special}, the special pieces of an input, got {max_length}")
    if not sentences:
        return []
    encodings = tokenizer(
        sentences, pairs, truncation="longest_first", max_length=max_length, return_token_type_ids=True
    ).encodings
    return [
        Encoded(encoding.ids, encoding.type_ids, tuple(_spans(encoding.sequence_ids, 1 if pairs is None else 2)))
        for encoding in encodings
    ]


def strings(name: str, texts: Sequence[str]) -> list[str]:
    """A list of what must be strings.

    Raises:
        ValueError: naming `name` and the first that is none.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise ValueError(f"{name} must be a sequence of strings, got {texts!r}")
    texts = list(texts)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name} must be a sequence of strings, got {text!r} at place {place}")
    return texts


def _spans(sequence_ids: list[int | None], count: int) -> Iterator[tuple[int, int]]:
    """Where each of `count` sentences begins and ends."""
    for sentence in range(count):
        length = sequence_ids.count(sentence)
        begin = sequence_ids.index(sentence) if length else 0
        yield begin, begin + length
