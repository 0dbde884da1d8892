"""Text models: any Hugging Face encoder with a masked-LM head, and the tiny BERT that learns from the embedded data."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from mmel.study.models import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Commits on the hub, so that runs of any date start from the same weights.
REVISIONS = {"bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594"}
# Names of dropouts: BERT, RoBERTa and their kin first, then DistilBERT, then ModernBERT.
HIDDEN_DROPOUTS = ("hidden_dropout_prob", "dropout", "embedding_dropout", "mlp_dropout")
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
CLASSIFIER_DROPOUTS = ("classifier_dropout", "seq_classif_dropout", "classifier_dropout_prob", "cls_dropout")

# The tiny BERT.
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
# BERT's own 0.02 is made for a width of 768.
INITIALIZER_RANGE = 0.05
PRETRAIN_STEPS = 1500
PRETRAIN_BATCH = 64
PRETRAIN_LR = 3e-3
PRETRAIN_MASK_RATIO = 0.25


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer of an encoder, by folder or hub name; a ModelError if there is none."""
    tokenizer = _load("AutoTokenizer", source)
    # Without its files the library makes one up that knows nothing but its special pieces.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelError(f"{source} has no tokenizer: want its tokenizer.json or vocab.txt beside config.json")
    return tokenizer


def load_masked_lm(source: str | Path) -> PreTrainedModel:
    """An encoder with its masked-LM head, float32, in eval mode; a ModelError if there is none."""
    model, info = _load("AutoModelForMaskedLM", source, dtype=torch.float32, output_loading_info=True)
    # What is missing was drawn at random: such a head would fill in noise.
    if info["missing_keys"]:
        raise ModelError(f"{source} has no masked-LM head: it lacks {', '.join(sorted(info['missing_keys']))}")
    return model.eval()


def load_classifier(
    source: str | Path, num_outputs: int, hidden_dropout: float, attention_dropout: float
) -> PreTrainedModel:
    """An encoder with a fresh head for sequences, float32, drawn from torch's global generator.

    It has one output for regression. `hidden_dropout` is that of embeddings, layers and head.

    Raises:
        ModelError: if there is none, or its architecture has no dropout of a known name.
    """
    config = _load("AutoConfig", source, num_labels=num_outputs)
    rates = {
        HIDDEN_DROPOUTS: hidden_dropout,
        ATTENTION_DROPOUTS: attention_dropout,
        CLASSIFIER_DROPOUTS: hidden_dropout,
    }
    for names, rate in rates.items():
        known = [name for name in names if hasattr(config, name)]
        if not known and names != CLASSIFIER_DROPOUTS:
            raise ModelError(f"{source}: {config.model_type} has none of the dropouts {', '.join(names)}")
        for name in known:
            setattr(config, name, rate)
    return _load("AutoModelForSequenceClassification", source, config=config, dtype=torch.float32)


def _load(kind: str, source: str | Path, **options: Any) -> Any:
    """`from_pretrained` of a class of transformers, without its remarks on fresh heads; errors become one line."""
    import transformers

    # A folder has no revisions.
    if str(source) in REVISIONS and not Path(source).is_dir():
        options["revision"] = REVISIONS[str(source)]
    try:
        with _quiet():
            return getattr(transformers, kind).from_pretrained(source, **options)
    except ModuleNotFoundError:
        raise
    # The parsers of weights and tokenizers fail in ways of their own; a pickle that holds code is refused unread.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{source} is no text encoder that can be loaded ({kind}: {type(error).__name__}: {first}): want a folder "
            "with config.json, weights and tokenizer, or a name on the Hugging Face hub; see --text-model and "
            "docs/data.md"
        ) from error


def tiny_bert(texts: Sequence[tuple[str, str | None]], folder: Path, steps: int = PRETRAIN_STEPS) -> Path:
    """Train a BERT of two layers of width 64 from scratch as a masked LM, unless its folder is there already.

    Every word of the texts is a piece of its own. Pairs are read as one input of two segments.

    Args:
        texts: sentences, or pairs of them; in lower case, words apart by spaces.
        folder: for the model, as Hugging Face saves it; written whole or not at all, and returned.
        steps: of its training.
    """
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    if folder.exists():
        return folder
    words = sorted({word for text in texts for sentence in text if sentence for word in sentence.split()})
    pieces = {piece: number for number, piece in enumerate((*SPECIAL_PIECES, *words))}
    tokenizer = BertTokenizer(vocab=pieces, model_max_length=128)
    config = BertConfig(
        vocab_size=len(pieces),
        max_position_embeddings=128,
        initializer_range=INITIALIZER_RANGE,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **SHAPE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForMaskedLM(config)
        _pretrain(model, tokenizer, texts, steps)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        whole = Path(partial) / "whole"
        with _quiet():
            model.save_pretrained(whole)
            tokenizer.save_pretrained(whole)
        # If another process was quicker, its model is the same.
        with contextlib.suppress(OSError):
            whole.rename(folder)
    return folder


def _pretrain(model: nn.Module, tokenizer: Any, texts: Sequence[tuple[str, str | None]], steps: int) -> None:
    """Train as a masked LM: four in five of the pieces to predict are replaced by [MASK], the others stay."""
    encoded = [tokenizer(*text).data for text in texts]
    ids = [torch.tensor(entry["input_ids"]) for entry in encoded]
    types = [torch.tensor(entry["token_type_ids"]) for entry in encoded]
    optimizer = torch.optim.AdamW(model.parameters(), PRETRAIN_LR, weight_decay=0.01, fused=True)
    schedule = OneCycleLR(optimizer, PRETRAIN_LR, steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(ids), (PRETRAIN_BATCH,)).tolist()
        pieces = nn.utils.rnn.pad_sequence([ids[i] for i in batch], batch_first=True)
        segments = nn.utils.rnn.pad_sequence([types[i] for i in batch], batch_first=True)
        maskable = pieces >= len(SPECIAL_PIECES)
        chosen = maskable & (torch.rand(pieces.shape) < PRETRAIN_MASK_RATIO)
        hidden = chosen & (torch.rand(pieces.shape) < 0.8)
        inputs = pieces.masked_fill(hidden, tokenizer.mask_token_id)
        attention = (pieces != tokenizer.pad_token_id).long()
        states = model.bert(input_ids=inputs, token_type_ids=segments, attention_mask=attention).last_hidden_state
        loss = F.cross_entropy(model.cls(states[chosen]), pieces[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
