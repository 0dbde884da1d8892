import contextlib
import copy
import csv
import itertools
import os
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from random_bert import PIECES, SHAPE, SPECIAL, UNUSED, VOCABULARY, WORDS, make_masked_lm, make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertModel,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from mmel.augment import text_cache, text_fill
from mmel.augment.text import MaskedLMAugmenter, encode
from mmel.augment.text_cache import FillCache, weights_digest
from mmel.augment.text_encode import rewrite, spans
from mmel.augment.text_fill import Filler

# Two logits as close as this may be ranked otherwise in another batch.
TIE = 1e-4

pytestmark = pytest.mark.usefixtures("one_thread")


def make_sentences(count, seed=0, most=20):
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, most))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def model():
    return make_masked_lm()


@pytest.fixture
def build(model, tokenizer):
    return partial(MaskedLMAugmenter, model, tokenizer)


# Algorithm 2 once more, as plainly as it is written: one sentence at a time, a forward for each variant and fill, the
# logits of all positions. Positions are given, as the paper draws them at random.


def plain_logits(model, ids, types, place):
    inputs = {"input_ids": torch.tensor([ids])}
    if types is not None:
        inputs["token_type_ids"] = torch.tensor([types])
    with torch.no_grad():
        return model(**inputs).logits[0, place]


def plain_greedy(model, banned, masked, types, positions, num_variants):
    """K - 1 filled inputs, and for each fill the gap to the pieces ranked beside the one that was taken."""
    variants, gaps = [], []
    for number in range(num_variants):
        variant, gap = list(masked), []
        for step, place in enumerate(positions):
            logits = plain_logits(model, variant, types, place)
            logits[banned] = -torch.inf
            ranked = logits.sort(descending=True)
            rank = number if step == 0 else 0
            near = ranked.values[max(rank - 1, 0) : rank + 2]
            gap.append(float((near[:-1] - near[1:]).min()))
            variant[place] = int(ranked.indices[rank])
        variants.append(variant)
        gaps.append(gap)
    return variants, gaps


def plain_beam(model, banned, masked, types, positions, num_variants, width):
    """K - 1 filled inputs, and for each fill the smallest gap between two beams that had to be ranked."""
    beams, gaps = [(0.0, masked)], []
    for place in positions:
        longer = []
        for score, beam in beams:
            for piece, value in enumerate(plain_logits(model, beam, types, place).log_softmax(0).tolist()):
                if piece not in banned:
                    longer.append((score + value, [*beam[:place], piece, *beam[place + 1 :]]))
        longer.sort(key=lambda beam: -beam[0])
        gaps.append(min(a[0] - b[0] for a, b in itertools.pairwise(longer[: width + 1])))
        beams = longer[:width]
    return [beam for _, beam in beams[:num_variants]], [gaps] * num_variants


def same_as_plain(augment, sentences, pairs=None, types=True):
    """Compare with the plain one: of all fills at most 1 % differ, and these after a near tie. Gives their number."""
    model, tokenizer, beam_width = augment.model, augment.tokenizer, augment._filler.beam_width
    encoded = encode(tokenizer, sentences, pairs, augment.max_length)
    banned = [number for piece, number in tokenizer.get_vocab().items() if piece.startswith("[") and len(piece) > 1]
    fills = different = 0
    for one, positions, variants in zip(
        encoded, augment.positions(sentences, pairs), augment.ids(sentences, pairs), strict=True
    ):
        assert variants[0] == one.ids
        inputs = [(0, one.ids, one.type_ids, positions)]
        if pairs is not None and augment.pair_mode == "separate":
            inputs = []
            for span in spans(one):
                own = [tokenizer.cls_token_id, *one.ids[span], tokenizer.sep_token_id]
                places = [place - span.start + 1 for place in positions if span.start <= place < span.stop]
                inputs.append((span.start - 1, own, [0] * len(own), places))
        for offset, ids, token_types, places in inputs:
            token_types = token_types if types else None
            if not places:
                continue
            masked = [tokenizer.mask_token_id if place in places else piece for place, piece in enumerate(ids)]
            arguments = (model, banned, masked, token_types, places, augment.num_augmented - 1)
            plain, gaps = plain_beam(*arguments, beam_width) if beam_width else plain_greedy(*arguments)
            for variant, expected, gap in zip(variants[1:], plain, gaps, strict=True):
                assert [a for n, a in enumerate(variant) if n not in positions] == [
                    a for n, a in enumerate(one.ids) if n not in positions
                ]
                found = [variant[place + offset] for place in places]
                wanted = [expected[place] for place in places]
                fills += len(places)
                if found != wanted:
                    first = next(step for step in range(len(places)) if found[step] != wanted[step])
                    different += len(places) - first
                    assert min(gap[: first + 1]) < TIE, (found, wanted, gap)
    assert different <= 0.01 * fills
    return fills


@pytest.mark.parametrize("mask_ratio", [0.2, 0.4, 1.0])
@pytest.mark.parametrize("num_augmented", [2, 5])
def test_greedy_is_algorithm_2(build, mask_ratio, num_augmented):
    augment = build(mask_ratio=mask_ratio, num_augmented=num_augmented)
    # In the first two the order in which a batch is cut is not the one in which its sentences are done.
    sentences = ["[SEP] " * 9 + "dog cat", "a man sings , she reads .", *make_sentences(12)]
    assert same_as_plain(augment, sentences) > 50 * mask_ratio * (num_augmented - 1)


@pytest.mark.parametrize("pair_mode", ["separate", "joint"])
@pytest.mark.parametrize("fill", ["greedy", "beam"])
def test_pairs_are_algorithm_2(build, fill, pair_mode):
    augment = build(fill=fill, pair_mode=pair_mode)
    assert same_as_plain(augment, make_sentences(5, 1, 9), make_sentences(5, 2, 5)) > 60


@pytest.mark.parametrize("beam_width", [None, 9])
def test_beam_is_plain_beam_search(build, beam_width):
    augment = build(fill="beam", beam_width=beam_width)
    assert same_as_plain(augment, make_sentences(6, most=12)) > 50


CONFIGS = {
    "distilbert": lambda: DistilBertConfig(vocab_size=len(VOCABULARY), dim=24, hidden_dim=48, n_layers=2, n_heads=2),
    "roberta": lambda: RobertaConfig(**SHAPE, pad_token_id=0, type_vocab_size=2),
    "electra": lambda: ElectraConfig(**SHAPE, embedding_size=12),
    "albert": lambda: AlbertConfig(**SHAPE, embedding_size=12),
    "deberta": lambda: DebertaV2Config(**SHAPE),
    "modernbert": lambda: transformers.ModernBertConfig(
        **SHAPE, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_other_encoders(tokenizer, name):
    if name == "modernbert" and not hasattr(transformers, "ModernBertConfig"):
        pytest.skip("needs transformers 4.48")
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.initializer_range = 0.5
    model = AutoModelForMaskedLM.from_config(config).eval()
    augment = MaskedLMAugmenter(model, tokenizer, num_augmented=3)
    assert same_as_plain(augment, make_sentences(6), types=name not in ("distilbert", "modernbert")) > 40


def test_minilm_on_cola():
    root = Path(os.environ.get("MMEL_DATA", "nowhere"))
    folder, table = root / "minilm-l6-mlm", root / "glue" / "CoLA" / "dev.tsv"
    if not folder.is_dir() or not table.is_file():
        pytest.skip("needs minilm-l6-mlm and glue/CoLA in the folder that MMEL_DATA names")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    with table.open(encoding="utf-8", newline="") as file:
        sentences = [row[3] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][:6]
    augment = MaskedLMAugmenter(model, tokenizer)
    assert same_as_plain(augment, sentences) > 60


# Which positions.


@pytest.mark.parametrize(
    ("mask_ratio", "pieces", "masked"),
    [(0.4, 1, 1), (0.4, 2, 1), (0.4, 4, 2), (0.4, 6, 2), (0.4, 10, 4), (0.2, 12, 2), (0.5, 5, 3), (1.0, 7, 7)],
)
def test_how_many_are_masked(build, mask_ratio, pieces, masked):
    (places,) = build(mask_ratio=mask_ratio).positions(["dog " * pieces])
    assert len(places) == len({*places} & {*range(1, pieces + 1)}) == masked


def test_positions_depend_on_seed_and_sentence_alone(build):
    sentences = make_sentences(30, most=15)
    augment = build()
    places = augment.positions(sentences)
    assert augment.positions(sentences[::-1]) == places[::-1]
    assert [augment.positions([sentence])[0] for sentence in sentences] == places
    assert build(num_augmented=2, fill="beam", batch_tokens=1).positions(sentences) == places
    assert build(seed=1).positions(sentences) != places
    # The smaller ratio takes the first of the same draw.
    few = build(mask_ratio=0.2).positions(sentences)
    assert few == [long[: len(short)] for long, short in zip(places, few, strict=True)]
    # Long sentences of one word: not the same draw for each, nor always in order, and each place comes up.
    long = build(mask_ratio=0.2).positions([f"{'dog ' * 9}{word}" for word in WORDS])
    assert len({tuple(one) for one in long if one != sorted(one)}) > 10
    assert {place for one in long for place in one} == set(range(1, 11))


def test_positions_stay_as_they_are(build):
    # Written down: caches and committed records stand on them.
    assert build().positions(["the dog sleeps under the big table and she reads a book ."]) == [[8, 1, 4, 13, 12]]


def test_joint_pairs_share_their_positions(build):
    pairs = ["dog " * 6] * 20, [f"{'cat ' * 4}{word}" for word in WORDS[:20]]
    joint, separate = (build(pair_mode=pair_mode).positions(*pairs) for pair_mode in ("joint", "separate"))
    # Now and then few of the first sentence are masked, which `separate` never does.
    assert len({sum(place <= 6 for place in places) for places in joint}) > 1
    assert {sum(place <= 6 for place in places) for places in separate} == {2}


# Batches.


def test_batch_and_order_do_not_matter(build):
    sentences, pairs = make_sentences(25), make_sentences(25, 3)
    whole = build().ids(sentences, pairs)
    assert build(batch_tokens=1).ids(sentences, pairs) == whole
    assert build(batch_tokens=100).ids(sentences[::-1], pairs[::-1]) == whole[::-1]


def test_forwards(build, model, monkeypatch):
    augment, read, projected = build(), [], []
    forward = model.forward

    def watched(input_ids, **inputs):
        read.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(model, "forward", watched)
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda module, arguments: projected.append(tuple(arguments[0].shape[:2]))
    )
    # 10 and 9 pieces, 4 masked each; then one of 4 with 2 masked, which waits for nobody. Equal ones are filled once.
    variants = augment.ids(["dog " * 10, "cat " * 9, "dog " * 4, "Dog  " * 4])
    handle.remove()
    assert read == [(3, 12), (12, 12), (8, 12), (8, 12)]
    assert projected == [(3, 1), (12, 1), (8, 1), (8, 1)]
    assert variants[2] == variants[3]


@pytest.mark.parametrize(("batch_tokens", "padding"), [(1, 1.0), (300, 1.6), (4096, 1.2)])
def test_batches_keep_to_their_limit_with_little_padding(build, batch_tokens, padding):
    filler = build(batch_tokens=batch_tokens)._filler
    jobs = [text_fill.Job((1,) * length, (0,) * length, (0,)) for length in range(3, 60) for _ in range(5)]
    batches = list(filler.batches(jobs))
    assert sorted(len(job.ids) for batch in batches for job in batch) == [len(job.ids) for job in jobs]
    longest = [max(len(job.ids) for job in batch) for batch in batches]
    # The longest first, where memory fails if it fails.
    assert longest == sorted(longest, reverse=True)
    sizes = [len(batch) * length for batch, length in zip(batches, longest, strict=True)]
    assert all(len(batch) == 1 or size * 4 <= batch_tokens for batch, size in zip(batches, sizes, strict=True))
    assert sum(sizes) <= padding * sum(len(job.ids) for job in jobs)


def test_a_model_has_as_many_positions_as_it_can_take(tokenizer):
    # RoBERTa's first position is behind that of the padding: 18 rows are 17 positions.
    config = RobertaConfig(**SHAPE, pad_token_id=0, max_position_embeddings=18)
    model = AutoModelForMaskedLM.from_config(config)
    (variants,) = MaskedLMAugmenter(model, tokenizer, max_length=17).ids([" ".join(WORDS[:30])])
    assert len(variants[0]) == 17
    with pytest.raises(ValueError, match=r"max_length must be at most 17, .* got 18"):
        MaskedLMAugmenter(model, tokenizer, max_length=18)


def test_the_model_is_left_as_it_was(build, model):
    sentences = make_sentences(5)
    expected = build().ids(sentences)
    model.train()
    # A part that somebody has frozen.
    model.bert.embeddings.eval()
    modes = [module.training for module in model.modules()]
    try:
        # Dropout is off meanwhile.
        assert build(bf16=True).ids(sentences[:1])
        assert build().ids(sentences) == expected
        assert [module.training for module in model.modules()] == modes
    finally:
        model.eval()
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def forbid(model, monkeypatch):
    def forward(*_, **__):
        raise AssertionError("the model was asked")

    monkeypatch.setattr(model, "forward", forward)


# Which pieces.


@pytest.mark.parametrize("fill", ["greedy", "beam"])
def test_special_unused_and_unknown_pieces_are_never_filled_in(tokenizer, fill):
    # The model has eight rows more than the vocabulary.
    eager = make_masked_lm(vocab_size=len(VOCABULARY) + 8)
    banned = [*(VOCABULARY[piece] for piece in SPECIAL + UNUSED), *range(len(VOCABULARY), len(VOCABULARY) + 8)]
    with torch.no_grad():
        eager.cls.predictions.bias[banned] = 1e4
    for variants in MaskedLMAugmenter(eager, tokenizer, fill=fill, mask_ratio=1.0).ids(make_sentences(5)):
        assert not set(banned) & {piece for ids in variants[1:] for piece in ids[1:-1]}


def test_as_many_fills_as_the_vocabulary_has(tokenizer, model):
    allowed = len(WORDS) + len(PIECES)
    augment = MaskedLMAugmenter(model, tokenizer, num_augmented=allowed + 1)
    (variants,) = augment.ids(["dog"])
    assert sorted(ids[1] for ids in variants[1:]) == sorted(VOCABULARY[piece] for piece in WORDS + PIECES)
    for settings in ({"num_augmented": allowed + 2}, {"fill": "beam", "beam_width": allowed + 1}):
        with pytest.raises(ValueError, match=f"at most the {allowed} pieces .* got {allowed + 1}"):
            MaskedLMAugmenter(model, tokenizer, **settings)


def test_long_sentences_are_cut_before_masking(build):
    text = " ".join(random.Random(0).choices(WORDS, k=200))
    (places,) = build().positions([text])
    assert len(places) == 50  # of 126, not of 200
    # The part that is cut off has no say in the draw.
    assert build().positions([text + " dog dog"]) == [places]
    short = build(max_length=10)
    assert {(len(ids), ids[-1]) for ids in short.ids([text])[0]} == {(10, VOCABULARY["[SEP]"])}
    original, variant, *_ = short([text])[0]
    assert original == text
    assert len(variant.split()) <= 8


@pytest.mark.parametrize(
    ("first", "second", "cut"),
    [
        (30, 5, [slice(1, 9), slice(10, 15)]),
        (5, 30, [slice(1, 6), slice(7, 15)]),
        # The second keeps the odd piece.
        (30, 30, [slice(1, 7), slice(8, 15)]),
    ],
)
def test_long_pairs_lose_of_the_longer(build, tokenizer, first, second, cut):
    pair = ["dog " * first], ["cat " * second]
    (one,) = encode(tokenizer, *pair, max_length=16)
    assert list(spans(one)) == cut
    for pair_mode in ("separate", "joint"):
        (variants,) = build(max_length=16, pair_mode=pair_mode).ids(*pair)
        assert {len(ids) for ids in variants} == {16}
        assert variants[0] == one.ids


@pytest.mark.parametrize("text", ["", "   ", "[SEP]", "[MASK] [CLS]"])
def test_nothing_to_mask(build, model, monkeypatch, text):
    augment = build(mask_ratio=1.0)
    # A special piece in a text stays.
    (variants,) = augment.ids([f"dog {text} cat"])
    (one,) = encode(augment.tokenizer, [text])
    assert {tuple(ids[2:-2]) for ids in variants} == {tuple(one.ids[1:-1])}
    forbid(model, monkeypatch)
    assert augment([text]) == [[text] * 5]
    assert augment.ids([text]) == [[one.ids] * 5]
    assert augment.positions([text]) == [[]]
    assert augment([text], [text]) == [[(text, text)] * 5]
    assert augment([]) == augment.ids([]) == augment.positions([]) == augment([], []) == []


def test_text_outside_the_vocabulary(build):
    # Each of its words is [UNK], a piece like another: masked and filled; where it stays, so does the word.
    text = "日 本 語 です ок"
    (texts,) = build()([text])
    assert texts[0] == text
    for variant in texts[1:]:
        assert [a != b for a, b in zip(text.split(), variant.split(), strict=True)].count(True) == 2
        assert "[UNK]" not in variant


# Text in, text out.


def test_call_gives_the_original_and_the_variants_of_ids(build, tokenizer):
    sentences = ["The Dog  sleeps, she sings.", "NOT very old"]
    augment = build()
    for sentence, row, variants in zip(sentences, augment(sentences), augment.ids(sentences), strict=True):
        assert row[0] == sentence
        assert tokenizer(row).input_ids == variants
    assert augment(sentences, sentences) == [[(text, text) for text in row] for row in augment(sentences)]


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("The dog won't  SLEEP, Café (old)!", {}, "The dog won't  SLEEP, Café (old)!"),
        ("The dog won't sleep.", {1: "cat"}, "The cat won't sleep."),
        ("The dog won't sleep.", {4: "s"}, "The dog won's sleep."),
        ("The dog won't sleep.", {1: "."}, "The. won't sleep."),
        ("The dog won't sleep.", {6: "cat"}, "The dog won't sleep cat"),
        ("The (old) cat.", {2: "new"}, "The (new) cat."),
        ("The (old) cat.", {1: "a"}, "The a old) cat."),
        ("Two dogs run ", {2: "cat"}, "Two dog cat run "),
        ("Two dogs run ", {1: "cat"}, "Two cats run "),
        ("Two dogs run ", {3: "##s"}, "Two dogss "),
        ("Two dogs run ", {0: "##s", 1: "."}, "s.s run "),
    ],
)
def test_what_is_not_replaced_stays_as_it_is_written(text, changes, expected):
    pieces = f"{' '.join(SPECIAL)} the dog won ' t sleep , cafe ( old ) ! cat s . new a two run ##s".split()
    tokenizer = make_tokenizer({piece: place for place, piece in enumerate(pieces)})
    (encoding,) = encode(tokenizer, [text])
    variant = encoding.ids
    for place, piece in changes.items():
        variant[place + 1] = tokenizer.convert_tokens_to_ids(piece)
    assert rewrite(tokenizer, encoding, [text], [variant]) == [(expected,)]


@pytest.mark.parametrize(
    ("text", "piece", "expected"),
    [("dog, Dog cat", "Ġdog", "dog, Dog dog"), ("dog, Dog cat", "s", "dog, Dogs"), ("dog é cat", "Ġdog", "dog é dog")],
)
def test_tokenizers_that_mark_blanks_and_split_characters(text, piece, expected):
    """Pieces of bytes as RoBERTa has them: its own decoding serves where a character has several."""
    merges = [("d", "o"), ("do", "g"), ("c", "a"), ("ca", "t"), ("Ġ", "dog"), ("Ġ", "cat")]
    pieces = ["<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    backend = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")
    (encoding,) = encode(tokenizer, [text])
    variant = [*encoding.ids[:-1], tokenizer.convert_tokens_to_ids(piece)]
    assert rewrite(tokenizer, encoding, [text], [variant]) == [(expected,)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_cpu_is_warned_of(tokenizer, dtype):
    with pytest.warns(UserWarning, match=str(dtype)) as warned:
        MaskedLMAugmenter(make_masked_lm().to(dtype), tokenizer)
    assert [one.filename for one in warned] == [__file__]


def test_sequences_of_other_kinds(build):
    expected = build()(["a dog", "my cat"], ["it is red", "he runs"])
    assert build()(("a dog", "my cat"), iter(["it is red", "he runs"])) == expected
    assert build()(np.array(["a dog", "my cat"]), np.array(["it is red", "he runs"])) == expected


def test_inside_datasets_map(build):
    datasets = pytest.importorskip("datasets")
    sentences, augment = make_sentences(12), build()
    table = datasets.Dataset.from_dict({"sentence": sentences})
    mapped = table.map(lambda batch: {"variants": augment(batch["sentence"])}, batched=True, batch_size=5)
    assert mapped["variants"][:] == augment(sentences)
    # The same augmenter has the same fingerprint, so that datasets finds what it has mapped; another has another.
    digest = datasets.fingerprint.Hasher.hash
    assert digest(augment) == digest(build()) != digest(build(seed=1))
    assert digest(augment) != digest(MaskedLMAugmenter(make_masked_lm(seed=1), augment.tokenizer))


# Precision.


@pytest.mark.parametrize("fill", ["greedy", "beam"])
def test_in_bf16_the_encoder_is_bf16_and_the_choice_is_not(build, model, monkeypatch, fill):
    sentences, dtypes, found = make_sentences(40), [], []
    exact = build(fill=fill).ids(sentences)
    layer = model.bert.encoder.layer[0].output.dense
    handle = layer.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    original = Filler._logits

    def watched(self, *args):
        found.append(original(self, *args))
        return found[-1].clone()

    monkeypatch.setattr(Filler, "_logits", watched)
    rough = build(fill=fill, bf16=True).ids(sentences)
    handle.remove()
    assert set(dtypes) == {torch.bfloat16}
    logits = torch.cat(found)
    # Not bfloat16's values in another type: those would tie.
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16()).float().mean() > 0.9
    same = [ours == theirs for ours, theirs in zip(chain(*rough), chain(*exact), strict=True)]
    assert sum(same) > 0.8 * len(same)
    # The call leaves nothing behind.
    assert build(fill=fill).ids(sentences) == exact


# The cache.


@pytest.fixture
def batches(monkeypatch):
    """The batches that have been filled, each as its jobs."""
    fill, found = Filler.__call__, []

    def watched(self, jobs):
        answer = fill(self, jobs)
        found.append(jobs)
        return answer

    monkeypatch.setattr(Filler, "__call__", watched)
    return found


@pytest.mark.parametrize("fill", ["greedy", "beam"])
def test_a_second_call_reads(build, model, tmp_path, monkeypatch, fill):
    sentences, pairs = make_sentences(700, most=8), make_sentences(700, 1, most=8)
    augment = build(fill=fill, cache=tmp_path / "new" / "folder", num_augmented=3)
    first = augment.ids(sentences, pairs)
    forbid(model, monkeypatch)
    # By another augmenter, in another order, cut differently, alone or in pairs; pickled.
    again = build(fill=fill, cache=tmp_path / "new" / "folder", num_augmented=3, max_length=100, batch_tokens=7)
    assert again.ids(sentences[::-1], pairs[::-1]) == first[::-1]
    assert again.ids(sentences[:50]) == copy.deepcopy(augment).ids(sentences[:50])
    with pytest.raises(AssertionError, match="the model was asked"):
        again.ids(["she never reads the very old book under the big table in the park"])


def test_a_killed_call_resumes(build, model, tmp_path, monkeypatch, batches):
    sentences = make_sentences(30)
    expected = build().ids(sentences)
    batches.clear()
    forward, calls = model.forward, itertools.count()

    def killed(**inputs):
        if next(calls) == 12:
            raise KeyboardInterrupt
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", killed)
    with pytest.raises(KeyboardInterrupt):
        build(cache=tmp_path, batch_tokens=100).ids(sentences)
    before = len(batches)
    monkeypatch.setattr(model, "forward", forward)
    assert build(cache=tmp_path, batch_tokens=100).ids(sentences) == expected
    # The part that the killed one filled is not filled again.
    jobs = [job for batch in batches for job in batch]
    assert 0 < before < len(batches)
    assert len(jobs) == len(set(jobs))


def test_other_settings_models_and_precisions_are_filled_anew(build, tokenizer, model, tmp_path):
    sentences = make_sentences(6)

    def fill(model, **settings):
        """How many files the cache has after a call."""
        cached = MaskedLMAugmenter(model, tokenizer, cache=tmp_path, **settings).ids(sentences, sentences[::-1])
        assert cached == MaskedLMAugmenter(model, tokenizer, **settings).ids(sentences, sentences[::-1])
        return len(list(tmp_path.glob("*.sqlite")))

    assert fill(model) == fill(make_masked_lm()) == fill(model, pair_mode="joint") == fill(model, batch_tokens=9) == 1
    changed = make_masked_lm()
    with torch.no_grad():
        changed.bert.encoder.layer[1].output.dense.bias[3] += 0.5
    # The same parameters, put together otherwise.
    heads = make_masked_lm(num_attention_heads=3)
    heads.load_state_dict(model.state_dict())
    assert weights_digest(heads) == weights_digest(model) != weights_digest(changed)
    assert (fill(changed), fill(heads)) == (2, 3)
    others = [{"seed": 1}, {"mask_ratio": 0.2}, {"num_augmented": 3}, {"fill": "beam"}]
    others += [{"fill": "beam", "beam_width": 6}, {"bf16": True}]
    assert [fill(model, **settings) for settings in others] == list(range(4, 10))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fill(model) == 10
    # Files that were filled before there was a choice of bf16 keep their names.
    settings = {"num_augmented": 5, "mask_ratio": 0.4, "fill": "greedy", "width": 4, "seed": 0}
    assert FillCache(tmp_path, model, tokenizer, settings).path.exists()


def test_batches_that_another_process_has_filled_meanwhile_are_left_out(build, tmp_path, monkeypatch, batches):
    sentences, write = make_sentences(40), FillCache.write

    def overtaken(self, batch):
        monkeypatch.setattr(FillCache, "write", write)
        write(self, batch)
        build(cache=tmp_path, batch_tokens=100).ids(sentences)

    monkeypatch.setattr(FillCache, "write", overtaken)
    found = build(cache=tmp_path, batch_tokens=100).ids(sentences)
    jobs = [job for batch in batches for job in batch]
    assert len(jobs) == len(set(jobs)) > max(map(len, batches))
    assert found == build(batch_tokens=100).ids(sentences)


def test_processes_that_share_texts_begin_at_different_batches(build, tmp_path, batches):
    orders = []
    for name in ("one", "other"):
        # As in processes that were forked or seeded alike.
        random.seed(0)
        build(cache=tmp_path / name, batch_tokens=100).ids(make_sentences(60))
        orders.append([tuple(job.ids for job in batch) for batch in batches])
        batches.clear()
    one, other = orders
    assert one != other
    assert sorted(one) == sorted(other)
    # A batch that does not fit in memory is still the first.
    assert one[0] == other[0]
    assert max(map(len, one[0])) == max(len(ids) for batch in one for ids in batch)


def test_several_writers(build, tmp_path):
    expected = build().ids(make_sentences(40))
    writers = [
        MaskedLMAugmenter(make_masked_lm(), make_tokenizer(), cache=tmp_path, batch_tokens=100) for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda one: one.ids(make_sentences(40)), writers)) == [expected] * 4


def test_a_cache_that_is_damaged_or_in_use_is_named(build, tmp_path, monkeypatch):
    expected = build(cache=tmp_path).ids(["dog"])
    (path,) = tmp_path.glob("*.sqlite")
    monkeypatch.setattr(text_cache, "PATIENCE_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ValueError, match=rf"{path.name} cannot be used \(database is locked\): another process"):
            build(cache=tmp_path).ids(["cat"])
    assert build(cache=tmp_path).ids(["dog"]) == expected
    path.write_bytes(b"not a database, whatever else it may be" * 100)
    with pytest.raises(ValueError, match=f"cache file .*{path.name} cannot be read .*delete it"):
        build(cache=tmp_path).ids(["dog"])


# Bad input.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_augmented": 1}, "num_augmented must be an integer of at least 2, .* got 1"),
        ({"mask_ratio": 0}, r"mask_ratio must be in \(0, 1\], got 0"),
        ({"mask_ratio": float("nan")}, "mask_ratio must be in .* got nan"),
        ({"fill": "sample"}, "fill must be one of greedy, beam, got 'sample'"),
        ({"pair_mode": "both"}, "pair_mode must be one of separate, joint, got 'both'"),
        ({"seed": 0.5}, "seed must be an integer, got 0.5"),
        ({"beam_width": 4}, "beam_width must be None, .* got 4 with fill='greedy'"),
        ({"beam_width": 3, "fill": "beam"}, "beam_width must be .* at least num_augmented - 1 = 4, got 3"),
        ({"max_length": 2}, "max_length must be more than 2, .* got 2"),
    ],
)
def test_bad_settings(build, settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a dog",), "sentences must be a sequence of strings, got 'a dog'"),
        ((None,), "sentences must be a sequence of strings, got None"),
        ((["a dog", None],), "sentences must be a sequence of strings, got None at place 1"),
        ((["a dog", float("nan")],), "sentences must be a sequence of strings, got nan at place 1"),
        ((["a dog"], "a cat"), "pairs must be a sequence of strings, got 'a cat'"),
        ((["a dog"], [3]), "pairs must be a sequence of strings, got 3 at place 0"),
        ((["a dog"], ["a cat", "it"]), "pairs must be as many as sentences, got 2 and 1"),
    ],
)
def test_bad_sentences(build, tokenizer, arguments, message):
    for function in (build(), build().ids, build().positions, partial(encode, tokenizer)):
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_bad_tokenizers_and_models(model, tokenizer):
    for lacks, has in (("mask", {"pad_token": "[PAD]"}), ("padding", {"mask_token": "[MASK]"})):
        with pytest.raises(ValueError, match=f"tokenizer must have a {lacks} piece"):
            MaskedLMAugmenter(model, PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **has))
    with pytest.raises(ValueError, match=f"tokenizer must be the model's: it has piece {len(VOCABULARY)}"):
        MaskedLMAugmenter(model, make_tokenizer({**VOCABULARY, "more": len(VOCABULARY)}))
    with pytest.raises(ValueError, match="tokenizer must be a fast one"):
        encode(object(), ["a dog"])
    with pytest.raises(ValueError, match=r"model must be a masked LM .* got BertModel"):
        MaskedLMAugmenter(BertModel(model.config), tokenizer).ids(["a dog"])
