"""A BERT with random weights and its tokenizer. Every test here can import this: pytest puts the folder on the path."""

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
UNUSED = [f"[unused{place}]" for place in range(5)]
TEXT = (
    "the a she he it is was my her his daughter son dog cat house red blue big small runs sleeps eats on in under "
    "table chair park and or not never always very old new man woman child sings reads book . , ! ?"
)
WORDS = TEXT.split()
PIECES = ["##s", "##er", "##ing", "##ed", "##ly"]
VOCABULARY = {piece: place for place, piece in enumerate(SPECIAL + UNUSED + WORDS + PIECES)}
LAYERS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SHAPE = {"vocab_size": len(VOCABULARY), **LAYERS}


def make_tokenizer(vocabulary=VOCABULARY):
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    tokenizer.decoder = decoders.WordPiece()
    special = {f"{piece[1:-1].lower()}_token": piece for piece in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special)


def make_masked_lm(seed=0, **changes):
    torch.manual_seed(seed)
    # Weights this large make the context matter, and ties of two random logits rare.
    config = BertConfig(**{**SHAPE, "initializer_range": 0.5, **changes})
    return BertForMaskedLM(config).eval()
