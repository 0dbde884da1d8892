"""How much faster than in the plain Algorithm 2 are sentences augmented? CoLA's lengths, K = 5, mask ratio 0.4."""

import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

import torch

from benchmarks.common import Side, alternate, ratio, table
from mmel.augment.text import MaskedLMAugmenter, encode

# Name, number of sentences, target, and the shape of a BERT with random weights, which cost what trained ones do.
TINY = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
MODELS = (("2 layers, width 128", 128, 15, TINY), ("12 layers, width 768", 24, 3, BASE))
VOCABULARY = 30522
# The 5th, 15th, ... 95th percentile of CoLA's training sentences, in bert-base-uncased's pieces without special ones.
LENGTHS = (4, 6, 7, 7, 8, 9, 10, 11, 13, 18)

# Seconds, and all pieces that were filled in.
Answer = tuple[float, list[int]]


def make_augmenter(shape: dict[str, int]) -> MaskedLMAugmenter:
    """An augmenter whose vocabulary is as large as BERT's: 30,522 words that are one piece each."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = special + [f"w{number}" for number in range(VOCABULARY - len(special))]
    words = Tokenizer(models.WordLevel({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{piece[1:-1].lower()}_token": piece for piece in special}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=512, **names)
    torch.manual_seed(0)
    # Weights this large make a fill depend on the others.
    model = BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, initializer_range=0.2, **shape)).eval()
    return MaskedLMAugmenter(model, tokenizer)


def make_sentences(count: int) -> list[str]:
    """Sentences of random words, as long as CoLA's, in random order."""
    draw = random.Random(0)
    lengths = [LENGTHS[place % len(LENGTHS)] for place in range(count)]
    draw.shuffle(lengths)
    return [" ".join(f"w{draw.randrange(VOCABULARY - 5)}" for _ in range(length)) for length in lengths]


def ours(count: int, shape: dict[str, int]) -> Iterator[Answer]:
    """`MaskedLMAugmenter`."""
    augment = make_augmenter(shape)
    sentences = make_sentences(count)
    positions = augment.positions(sentences)
    while True:
        begin = time.perf_counter()
        answer = augment.ids(sentences)
        seconds = time.perf_counter() - begin
        rows = zip(answer, positions, strict=True)
        yield seconds, [ids[place] for variants, places in rows for ids in variants[1:] for place in places]


def plain(count: int, shape: dict[str, int]) -> Iterator[Answer]:
    """Algorithm 2 as it is written: each fill of each variant of each sentence is a forward of its own.

    The positions are ours, since the variants are compared.
    """
    augment = make_augmenter(shape)
    sentences = make_sentences(count)
    positions = augment.positions(sentences)
    model = augment.model
    mask = augment.tokenizer.mask_token_id
    special = augment.tokenizer.all_special_ids
    while True:
        begin = time.perf_counter()
        filled = []
        for one, places in zip(encode(augment.tokenizer, sentences), positions, strict=True):
            for number in range(augment.num_augmented - 1):
                ids = torch.tensor([one.ids])
                ids[0, places] = mask
                for step, place in enumerate(places):
                    with torch.no_grad():
                        logits = model(input_ids=ids).logits[0, place]
                    logits[special] = -torch.inf
                    ids[0, place] = logits.topk(number + 1).indices[-1] if step == 0 else logits.argmax()
                filled += ids[0, places].tolist()
        yield time.perf_counter() - begin, filled


def measure(rounds: int = 3) -> str:
    """Ours beside the plain one for each model, and how many of the filled pieces differ."""
    rows = []
    for name, count, target, shape in MODELS:
        with ExitStack() as stack:
            sides = {side.__name__: stack.enter_context(Side(side, count, shape)) for side in (ours, plain)}
            answers = alternate(sides, rounds)
        seconds = {side: [answer[0] for answer in values] for side, values in answers.items()}
        (_, found), (_, expected) = answers["ours"][0], answers["plain"][0]
        different = sum(a != b for a, b in zip(found, expected, strict=True))
        rows.append(
            (
                name,
                f"{count / statistics.median(seconds['ours']):.1f}",
                f"{count / statistics.median(seconds['plain']):.1f}",
                ratio(seconds["plain"], seconds["ours"]),
                target,
                f"{different} of {len(expected)}",
            )
        )
    head = (
        "BERT",
        "ours, sentences/s",
        "plain, sentences/s",
        "ours over plain",
        "target: at least",
        "fills that differ",
    )
    return table(head, *rows)
