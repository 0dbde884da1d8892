"""Sentences as word pieces, and filled-in pieces as sentences again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding


def encode(
    tokenizer: Any, sentences: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 128
) -> list["Encoding"]:
    """Word pieces of N sentences or pairs, as N encodings of the `tokenizers` library.

    Each has at most `max_length` pieces, special ones included; of a pair the longer sentence is cut first. All that
    follows, masks and variants, sees what is left here.

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
    return tokenizer(sentences, pairs, truncation="longest_first", max_length=max_length).encodings


def strings(name: str, texts: Sequence[str]) -> list[str]:
    """A list of what must be strings, or a ValueError that names `name` and the first that is none."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise ValueError(f"{name} must be a sequence of strings, got {texts!r}")
    texts = list(texts)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name} must be a sequence of strings, got {text!r} at place {place}")
    return texts


def spans(encoding: "Encoding") -> Iterator[slice]:
    """Where in its input each sentence lies, without special pieces; an empty slice if it has no piece."""
    sentence_of = encoding.sequence_ids
    for sentence in range(encoding.n_sequences):
        length = sentence_of.count(sentence)
        begin = sentence_of.index(sentence) if length else 0
        yield slice(begin, begin + length)


def rewrite(
    tokenizer: Any, encoding: "Encoding", texts: Sequence[str], variants: Sequence[Sequence[int]]
) -> list[tuple[str, ...]]:
    """Variants of an input as text: what was not replaced stays as it is written, with its case and its blanks.

    Args:
        tokenizer: made the encoding.
        encoding: of `texts`, a sentence or a pair.
        texts: as many as each variant has in the answer, where they end with the last piece and the blanks behind it.
        variants: lists of pieces like the encoding's `ids`.
    """
    ids, offsets = encoding.ids, encoding.offsets
    written = _surfaces(tokenizer, {*ids, *(piece for variant in variants for piece in variant)})
    parts = list(zip(texts, spans(encoding), strict=True))
    return [
        tuple(
            _rewritten(text, list(zip(offsets[span], ids[span], variant[span], strict=True)), written)
            # Such as bytes of one character: only the whole can be decoded.
            or tokenizer.decode(variant[span])
            for text, span in parts
        )
        for variant in variants
    ]


def _surfaces(tokenizer: Any, pieces: Iterable[int]) -> dict[int, str]:
    """Each of some pieces as it is written behind a word: " dog" for `dog`, "s" for `##s`, "." for `.`."""
    pieces, as_it_is = list(pieces), {"clean_up_tokenization_spaces": False}
    word = tokenizer("a", add_special_tokens=False).input_ids
    begin = len(tokenizer.decode(word, **as_it_is))
    texts = tokenizer.batch_decode([[*word, piece] for piece in pieces], **as_it_is)
    return {piece: text[begin:] for piece, text in zip(pieces, texts, strict=True)}


def _rewritten(text: str, pieces: Sequence[tuple[tuple[int, int], int, int]], written: Mapping[int, str]) -> str | None:
    """A text with its pieces, each ((begin, end) in it, old, new), replaced; None if they overlap in it."""
    result, end, changed = "", 0, False
    for (begin, stop), old, new in pieces:
        # Some tokenizers count the blank before a word to the word.
        begin = stop - len(text[begin:stop].lstrip())
        after_change, changed = changed, old != new
        piece = written[new].strip() if changed else text[begin:stop]
        if begin < end or "\N{REPLACEMENT CHARACTER}" in piece:
            return None
        gap, apart = text[end:begin], written[new][:1].isspace()
        if changed and not apart and result:
            gap = ""
        # A tokenizer sees blanks around punctuation that the text need not have, but two words must not become one.
        elif (changed or after_change) and apart and not gap and result[-1:].isalnum() and piece[:1].isalnum():
            gap = " "
        result, end = result + gap + piece, stop
    return result if pieces and text[end:].strip() else result + text[end:]
