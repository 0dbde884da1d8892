"""The encoder of a run on text: where it is, what augments with it, and whether another run's is the same."""

import os
from pathlib import Path

import torch

from mmel.augment.text import MaskedLMAugmenter
from mmel.study.config import AUGMENTATION_SEED, MAX_LENGTH, TextRun
from mmel.study.data import find_root
from mmel.study.data.grammar import corpus
from mmel.study.models import ModelError
from mmel.study.models.encoder import load_masked_lm, load_tokenizer, tiny_bert
from mmel.study.records import Line, Store
from mmel.study.tables import TINY_BERT


def find_model(name: str, store: Store, data_root: str | Path | None = None) -> str | Path:
    """Where a text encoder is: the folder of that name at MMEL_TEXT_MODEL or in the data root, else the hub.

    `tiny-bert` is made here, once for each results folder.
    """
    if name == TINY_BERT:
        return tiny_bert(corpus(), store.model_dir(TINY_BERT))
    named = os.environ.get("MMEL_TEXT_MODEL")
    # Resolved, as `text_model_name` does it: a link, or a path that ends in "..", has another name than its folder.
    folders = [*([Path(named).resolve()] if named else []), find_root(data_root) / name]
    return next((folder for folder in folders if folder.name == name and folder.is_dir()), name)


def build_augmenter(config: TextRun, source: str | Path, store: Store, device: torch.device) -> MaskedLMAugmenter:
    """The augmenter of a run on text, with its cache, by the encoder that `find_model` found."""
    return MaskedLMAugmenter(
        load_masked_lm(source).to(device),
        load_tokenizer(source),
        num_augmented=config.num_augmented,
        mask_ratio=config.mask_ratio,
        fill=config.fill,
        pair_mode=config.pair_mode,
        seed=AUGMENTATION_SEED,
        max_length=MAX_LENGTH,
        cache=store.augmentation_dir(),
        # Whatever a run's own precision, as runs share the texts.
        bf16=device.type == "cuda",
    )


def check_encoder(own: Line, other: Line) -> None:
    """Refuse to resume from, or be taught by, a run of another encoder: a name is that of a folder alone.

    Raises:
        ModelError: if two headers of records, or the part of one that tells of the encoder, differ in it.
    """
    mine, theirs = (header.get("text_model", {}) for header in (own, other))
    apart = len({model["embeddings"] for model in (mine, theirs) if "embeddings" in model}) > 1
    # `tiny-bert` is made in each results folder, and on another machine not to the last bit.
    if apart and mine["name"] != TINY_BERT:
        raise ModelError(
            f"this results folder holds runs of another encoder named {mine['name']!r}, with other embeddings: rename "
            "the folder of one, or take another results folder"
        )
