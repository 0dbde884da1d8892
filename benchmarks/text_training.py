"""How much faster is fine-tuning without padding to 128, and what does MMEL's own arithmetic take of a step?"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.common import alternate, ratio, seconds_of, table
from mmel import MMELHardLoss
from mmel.data import find_root
from mmel.data.glue import load_text
from mmel.train import machine
from mmel.train.sequences import Sequences, forward

TARGET, SHARE_TARGET_PCT = 3, 1
BATCH, K, PADDED_LENGTH = 32, 5, 128
# Six layers of width 384, the shape of minilm-l6-mlm; weights are random, since only time is asked for.
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}


def lengths() -> tuple[list[int], str]:
    """Lengths in words, plus three, of CoLA's training sentences, or of the miniature's where CoLA is missing."""
    cola = find_root() / "glue" / "CoLA"
    data = load_text("cola" if cola.is_dir() else "grammar_cola")
    # Word pieces are a few more than words; two special ones come on top.
    return [len(sentence.split()) + 3 for sentence in data.splits["train"].sentences], data.task.name


def padded_outputs(model: nn.Module, sequences: Sequences, index: Tensor) -> Tensor:
    """A classifier's outputs (n, K, C) on some examples, all padded to PADDED_LENGTH."""
    batch = sequences.batch(index)
    length = batch["input_ids"].shape[1]
    # Equally long texts come without a mask.
    batch.setdefault("attention_mask", torch.ones_like(batch["input_ids"]))
    batch = {name: torch.nn.functional.pad(value, (0, PADDED_LENGTH - length)) for name, value in batch.items()}
    return model(**batch).logits.view(len(index), sequences.num_variants, -1)


def measure(rounds: int = 3, steps: int = 2) -> str:
    """Seconds of a step, K = 5, batch 32, bf16, with and without padding to 128; the same weights and sequences."""
    machine.keep_freed_memory()
    torch.manual_seed(0)
    found, source = lengths()
    chosen = [found[place] for place in torch.randperm(len(found))[: BATCH * steps].tolist()]
    ids = [torch.randint(1000, 30_000, (K, length)).tolist() for length in chosen]
    sequences = Sequences(ids, [[0] * length for length in chosen], torch.device("cpu"))
    model = BertForSequenceClassification(BertConfig(num_labels=2, **SHAPE)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-5, weight_decay=0.0, fused=True)
    targets = torch.rand(len(chosen), K, 2).softmax(dim=-1)
    criterion = MMELHardLoss()

    def padded(index: Tensor) -> Tensor:
        return padded_outputs(model, sequences, index)

    def ours(index: Tensor) -> Tensor:
        return forward(model, sequences, index)

    def seconds(outputs: Callable[[Tensor], Tensor]) -> float:
        begin = time.perf_counter()
        for index in torch.arange(len(chosen)).split(BATCH):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                logits = outputs(index)
            criterion(logits, targets[index]).backward()
            optimizer.step()
        return (time.perf_counter() - begin) / steps

    times = alternate({"ours": lambda: seconds(ours), "padded to 128": lambda: seconds(padded)}, rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    logits = torch.randn(BATCH, K, 2, requires_grad=True)
    loss = seconds_of(lambda: criterion(logits, targets[:BATCH]).backward(), repeats=50)
    rows = [(name, f"{value:.2f}", f"{BATCH / value:.1f}") for name, value in medians.items()]
    gain = ratio(times["padded to 128"], times["ours"])
    return (
        table(("side", "seconds a step", "examples/s"), *rows)
        + f"\n\nOurs over padded to {PADDED_LENGTH}: {gain}, lengths of {source}; target: at least {TARGET}.\n\n"
        f"MMEL-H's loss, forward and backward: {100 * loss / medians['ours']:.2f} % of a step; target: at most "
        f"{SHARE_TARGET_PCT} %."
    )
