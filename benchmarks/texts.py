"""Questions about texts: Algorithm 2 and fine-tuning, with BERTs of random weights, which cost what trained ones do."""

import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.benchmark import timer
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from benchmarks.common import compare, eager_lines, ratio, seconds_of, speeds, training_lines
from mmel import MMELHardLoss
from mmel.augment.text import MaskedLMAugmenter, encode
from mmel.losses import LossTerms
from mmel.study.config import TextRun
from mmel.study.records import Line, Store
from mmel.study.train.texts import TextTask

TINY = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
# The shape of minilm-l6-mlm.
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
# Of `text_augmentation`: name, number of sentences, target, shape.
MODELS = (("2 layers, width 128", 128, 15, TINY), ("12 layers, width 768", 24, 3, BASE))
VOCABULARY = 30522
# The 5th, 15th, ... 95th percentile of CoLA's training sentences, in bert-base-uncased's pieces without special ones.
LENGTHS = (4, 6, 7, 7, 8, 9, 10, 11, 13, 18)
# Of `text_training`.
TARGET, PADDED_LENGTH = 3, 128
ENCODER = "random-bert"


def make_augmenter(shape: dict[str, int], device: str = "cpu") -> MaskedLMAugmenter:
    """An augmenter as runs have it, with a vocabulary as large as BERT's: 30,522 words that are one piece each."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = special + [f"w{number}" for number in range(VOCABULARY - len(special))]
    tokenizer = BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, model_max_length=512)
    torch.manual_seed(0)
    # Weights this large make a fill depend on the others.
    model = BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, initializer_range=0.2, **shape)).eval().to(device)
    return MaskedLMAugmenter(model, tokenizer, bf16=torch.device(device).type == "cuda")


def make_sentences(count: int) -> list[str]:
    """Sentences of random words, as long as CoLA's, in random order."""
    draw = random.Random(0)
    lengths = [LENGTHS[number % len(LENGTHS)] for number in range(count)]
    draw.shuffle(lengths)
    return [" ".join(f"w{draw.randrange(VOCABULARY - 5)}" for _ in range(length)) for length in lengths]


def batched_fills(count: int, shape: dict[str, int], device: str = "cpu") -> Iterator[tuple[float, list[int]]]:
    """Seconds of `MaskedLMAugmenter`, and all pieces that it filled in."""
    augment, sentences = make_augmenter(shape, device), make_sentences(count)
    positions = augment.positions(sentences)
    while True:
        begin = timer()
        answer = augment.ids(sentences)
        seconds = timer() - begin
        rows = zip(answer, positions, strict=True)
        yield seconds, [ids[place] for variants, places in rows for ids in variants[1:] for place in places]


def plain_fills(count: int, shape: dict[str, int]) -> Iterator[tuple[float, list[int]]]:
    """Algorithm 2 as it is written, a forward for each fill of each variant, at our positions to compare variants."""
    augment, sentences = make_augmenter(shape), make_sentences(count)
    positions = augment.positions(sentences)
    special = augment.tokenizer.all_special_ids
    while True:
        begin = timer()
        filled = []
        for one, places in zip(encode(augment.tokenizer, sentences), positions, strict=True):
            for number in range(augment.num_augmented - 1):
                ids = torch.tensor([one.ids])
                ids[0, places] = augment.tokenizer.mask_token_id
                for step, place in enumerate(places):
                    with torch.no_grad():
                        logits = augment.model(input_ids=ids).logits[0, place]
                    logits[special] = -torch.inf
                    ids[0, place] = logits.topk(number + 1).indices[-1] if step == 0 else logits.argmax()
                filled += ids[0, places].tolist()
        yield timer() - begin, filled


def text_augmentation(rounds: int = 3) -> Iterator[str]:
    """How much faster than in the plain Algorithm 2 are sentences augmented? CoLA's lengths, K = 5, mask ratio 0.4."""
    for name, count, target, shape in MODELS:
        answers = compare({"ours": (batched_fills, count, shape), "plain": (plain_fills, count, shape)}, rounds)
        seconds = {side: [took for took, _ in found] for side, found in answers.items()}
        fills = [found[0][1] for found in answers.values()]
        different = sum(a != b for a, b in zip(*fills, strict=True))
        yield (
            f"BERT of {name}:\n\n{speeds(seconds, count, 'sentences')}\n\nOurs over plain: "
            f"{ratio(seconds['plain'], seconds['ours'])}; target: at least {target}. Fills that differ: {different} of "
            f"{len(fills[0])}.\n"
        )


def fine_tuning_seconds(shape: dict[str, int], count: int, rounds: int, device: str) -> tuple[TextRun, dict[str, list]]:
    """Seconds of a step of MMEL-H on CoLA's lengths, ours and the plain loop's padded to 128; of Baseline and SMART."""
    config = TextRun(model=ENCODER, epochs=rounds + 1, label_source="original")
    with tempfile.TemporaryDirectory() as root:
        augment = make_augmenter(shape)
        for saved in (augment.model, augment.tokenizer):
            saved.save_pretrained(Path(root, ENCODER))
        rows = [f"x\t{number % 2}\t\t{sentence}\n" for number, sentence in enumerate(make_sentences(count))]
        folder = Path(root, "glue", "CoLA")
        folder.mkdir(parents=True)
        for name, lines in (("train.tsv", rows), ("dev.tsv", rows[:32])):
            (folder / name).write_text("".join(lines), encoding="utf-8")
        sides = {"ours": (training_lines, config, device, root), "padded": (padded_lines, config, device, root)}
        for method in ("baseline", "smart"):
            sides[method] = (training_lines, config.with_method(method, 0), device, root)
        found = compare(sides, rounds)
    views = {side: config.batch_size * sides[side][1].num_augmented for side in sides}
    return config, {side: [views[side] / line["sequences_per_second"] for line in got] for side, got in found.items()}


def padded_lines(config: TextRun, device: str, data_root: str) -> Iterator[Line]:
    """A run on text in the plain loop, each sequence padded."""
    with tempfile.TemporaryDirectory() as folder:
        task = TextTask(config, None, Store(folder), data_root, torch.device(device))

        def terms(index: torch.Tensor, _: int) -> LossTerms:
            batch = task.sequences.batch(index)
            length = batch["input_ids"].shape[1]
            # Equally long texts come without a mask.
            batch.setdefault("attention_mask", torch.ones_like(batch["input_ids"]))
            batch = {name: nn.functional.pad(value, (0, PADDED_LENGTH - length)) for name, value in batch.items()}
            logits = task.model(**batch).logits
            return task.criterion.terms(logits.view(len(index), -1, logits.shape[-1]), task.targets[index])

        yield from eager_lines(task, terms)


def text_training(rounds: int = 3, steps: int = 2) -> str:
    """How much faster is fine-tuning without padding to 128? What does MMEL's arithmetic take of a step, what SMART?

    K = 5, batch 32, bf16, CoLA's lengths, 6 layers of width 384.
    """
    n = TextRun.batch_size
    config, seconds = fine_tuning_seconds(MINILM, n * steps, rounds, "cpu")
    logits, targets = torch.randn(n, config.num_augmented, 2, requires_grad=True), torch.arange(n) % 2
    loss = seconds_of(lambda: MMELHardLoss()(logits, targets).backward(), calls=50)
    share = 100 * loss / statistics.median(seconds["ours"])
    return (
        f"{speeds(seconds, n, 'examples')}\n\nOurs over padded: {ratio(seconds['padded'], seconds['ours'])}; target: "
        f"at least {TARGET}.\n\nMMEL-H's loss, forward and backward: {share:.2f} % of a step; target: at most 1 %.\n\n"
        f"SMART's step over Baseline's: {ratio(seconds['smart'], seconds['baseline'])}."
    )
