"""Text models: any Hugging Face encoder with a masked-LM head, and the tiny BERT that the embedded data trains."""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What architectures call their dropouts: BERT, RoBERTa and their kin first, then DistilBERT, then ModernBERT.
HIDDEN_DROPOUTS = ("hidden_dropout_prob", "dropout", "embedding_dropout", "mlp_dropout")
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
CLASSIFIER_DROPOUTS = ("classifier_dropout", "seq_classif_dropout", "classifier_dropout_prob", "cls_dropout")

# The tiny BERT.
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
MAX_PIECES = 128
PRETRAIN_STEPS = 1500
PRETRAIN_BATCH = 64
PRETRAIN_LR = 2e-3
MASK_RATIO = 0.25
WINDOW = 100
INIT = 0.05
MIM = True
QS = 3.0
PM = 0.5


class ModelError(Exception):
    """A text model that is missing, or lacks what it is wanted for."""


def load_tokenizer(source: str | Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    return _load(source, lambda: AutoTokenizer.from_pretrained(source))


def load_masked_lm(source):
    from transformers import AutoModelForMaskedLM

    return _load(source, lambda: AutoModelForMaskedLM.from_pretrained(source, dtype=torch.float32)).eval()


def load_classifier(source, num_outputs, hidden_dropout, attention_dropout):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = _load(source, lambda: AutoConfig.from_pretrained(source, num_labels=num_outputs))
    for k in HIDDEN_DROPOUTS+CLASSIFIER_DROPOUTS:
        if hasattr(config, k): setattr(config, k, hidden_dropout)
    for k in ATTENTION_DROPOUTS:
        if hasattr(config, k): setattr(config, k, attention_dropout)
    return _load(source, lambda: AutoModelForSequenceClassification.from_pretrained(source, config=config, dtype=torch.float32))


def _load(source, how):
    from transformers.utils import logging
    v = logging.get_verbosity()
    logging.set_verbosity_error(); logging.disable_progress_bar()
    try:
        return how()
    finally:
        logging.set_verbosity(v)


def tiny_bert(sentences: Sequence[str], folder: str | Path, seed: int = 0) -> Path:
    from transformers import BertConfig, BertForPreTraining

    folder = Path(folder)
    tokenizer = _word_tokenizer(sentences)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForPreTraining(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_PIECES, hidden_dropout_prob=0.0, initializer_range=INIT, attention_probs_dropout_prob=0.0, **SHAPE))
        if MIM:
            with torch.no_grad():
                for layer in model.bert.encoder.layer:
                    a = layer.attention.self
                    a.query.weight.mul_(QS)
                    a.key.weight.copy_(a.query.weight)
        _pretrain(model, tokenizer, sentences)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _word_tokenizer(sentences):
    from transformers import BertTokenizer

    backend = BertTokenizer().backend_tokenizer
    words = {word for sentence in sentences
             for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(sentence))}
    vocabulary = (*SPECIAL_PIECES, *sorted(words))
    return BertTokenizer(vocab={word: place for place, word in enumerate(vocabulary)}, model_max_length=MAX_PIECES)


def _pretrain(model, tokenizer, sentences):
    ids = tokenizer(list(sentences), add_special_tokens=False, truncation=True, max_length=MAX_PIECES // 2 - 2)["input_ids"]
    cls, sep, mask = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id
    texts = [((cls, *a, sep), (*b, sep)) for a, b in zip(ids[::2], ids[1::2])]
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETRAIN_LR, weight_decay=0.01)
    warm = PRETRAIN_STEPS // 10
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step+1) / warm, (PRETRAIN_STEPS - step) / (PRETRAIN_STEPS - warm)))
    order = []
    model.train()
    for step in range(PRETRAIN_STEPS):
        if len(order) < PRETRAIN_BATCH:
            order = torch.randperm(len(texts)).tolist()
        picks = [order.pop() for _ in range(PRETRAIN_BATCH)]
        false = torch.rand(PRETRAIN_BATCH) < 0.5
        far = torch.randint(1, WINDOW, (PRETRAIN_BATCH,))
        rows = [(texts[i][0], texts[(i + d) % len(texts) if f else i][1]) for i, f, d in zip(picks, false.tolist(), far.tolist())]
        ii = [torch.tensor(a + b) for a, b in rows]
        tt = [torch.tensor([0] * len(a) + [1] * len(b)) for a, b in rows]
        ii = nn.utils.rnn.pad_sequence(ii, batch_first=True)
        tt = nn.utils.rnn.pad_sequence(tt, batch_first=True)
        at = ii != 0
        can = at & (ii != cls) & (ii != sep)
        chosen = can & (torch.rand(ii.shape) < MASK_RATIO)
        draw = torch.rand(ii.shape)
        inp = torch.where(chosen & (draw < PM), mask, ii)
        inp = torch.where(chosen & (draw >= PM + (1-PM)/2), torch.randint(5, len(tokenizer), ii.shape), inp)
        logits = model(input_ids=inp, token_type_ids=tt, attention_mask=at.long())
        l1 = F.cross_entropy(logits.prediction_logits[chosen], ii[chosen])
        l2 = F.cross_entropy(logits.seq_relationship_logits, false.long())
        loss = l1 + l2
        optimizer.zero_grad(); loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(); schedule.step()
        if step % 250 == 249: print(step, round(l1.item(), 3), round(l2.item(), 3), flush=True)
