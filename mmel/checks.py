"""What a run's configuration may hold: values in their range, and combinations that mean something.

One run has one name: a field that means nothing for a run stays at its default.
"""

import dataclasses
import re
from typing import TYPE_CHECKING

from mmel.names import (
    AUGMENTED_TEXT_FIELDS,
    CHOSEN_DROPOUT,
    CHOSEN_LAMBDA_T,
    CIFAR_MODELS,
    CLASS_LOSSES,
    DATASETS,
    EMBEDDED_DATASETS,
    ENCODED_IMAGE_AUGMENTATIONS,
    ENCODED_IMAGE_SIZES,
    FILLS,
    IMAGE_FIELDS,
    IMAGE_METHODS,
    IMAGE_MODELS,
    IMAGENET_MODELS,
    LABEL_SOURCES,
    ONE_VIEW_METHODS,
    ORIGINALS,
    PAIR_MODES,
    PRECISIONS,
    PROFILES,
    SHORTCUTS,
    SMALL_IMAGE_AUGMENTATIONS,
    SOFT_FIELDS,
    TEXT_FIELDS,
    TEXT_METHODS,
    TRANSFORMS,
)

if TYPE_CHECKING:
    from mmel.config import RunConfig


def check(config: "RunConfig") -> None:
    """Refuse a configuration that means nothing; its fields have the right types already.

    Raises:
        ValueError: naming the field, what it got and what it may be.
    """
    _one_of("profile", config.profile, PROFILES)
    _one_of("dataset", config.dataset, DATASETS)
    if config.dataset in EMBEDDED_DATASETS:
        allowed = f"'mini' or 'reduced' for dataset={config.dataset!r}, which is made for the study"
        _require("profile", config, config.profile != "paper", allowed)
    _one_of("precision", config.precision, PRECISIONS)
    _one_of("base_loss", config.base_loss, CLASS_LOSSES)
    for name in ("num_augmented", "epochs", "batch_size", "evals_per_epoch"):
        _require(name, config, getattr(config, name) >= 1, "at least 1")
    for name in ("seed", "train_size", "holdout", "micro_batch", "augment_seed", "image_size", "beam_width"):
        _require(name, config, getattr(config, name) >= 0, "0 or more")
    for field in dataclasses.fields(config):
        if type(field.default) is int:
            # Seeds are multiplied and hashed in 64 bits, and nobody counts so far.
            _require(field.name, config, getattr(config, field.name) < 2**31, "below 2**31")
    for name in ("lambda_t", "momentum", "weight_decay", "threshold"):
        _require(name, config, 0 <= getattr(config, name) < float("inf"), "0 or more and finite")
    for name in ("lambda_p", "lr", "lr_decay"):
        _require(name, config, 0 < getattr(config, name) < float("inf"), "positive and finite")
    _require("micro_batch", config, config.micro_batch <= config.batch_size, f"at most batch_size={config.batch_size}")
    _check_method(config)
    if config.is_text:
        _check_text(config)
    else:
        _check_images(config)


def _check_method(config: "RunConfig") -> None:
    methods = TEXT_METHODS if config.is_text else IMAGE_METHODS
    _one_of("method", config.method, methods, f" for dataset={config.dataset!r}")
    which = f"method={config.method!r}, which"
    if config.method in ("baseline", "baseline_da"):
        _require("num_augmented", config, config.num_augmented == 1, f"1 for {which} sees one view")
    else:
        _require("num_augmented", config, config.num_augmented >= 2, f"at least 2 for method={config.method!r}")
    if config.method != "mmel_s":
        _refuse(config, SOFT_FIELDS, f"{which} has none")
    if config.method not in ("mmel_h", "mmel_s"):
        _refuse(config, ("lambda_p",), f"{which} has none")
        _refuse(config, ("base_loss",), f"{which} trains alike with either")


def _check_images(config: "RunConfig") -> None:
    where = f" for dataset={config.dataset!r}"
    if config.is_encoded:
        _one_of("model", config.model, IMAGENET_MODELS, where)
        _one_of("augment", config.augment, ENCODED_IMAGE_AUGMENTATIONS, where)
        _refuse(config, ("shortcut",), f"model={config.model!r}, whose shortcuts are convolutions")
        usual = ENCODED_IMAGE_SIZES[config.dataset]
        allowed = f"0 (for {usual}), or another number from 32 on{where}"
        _require("image_size", config, not 0 < config.image_size < 32 and config.image_size != usual, allowed)
    else:
        _one_of("model", config.model, CIFAR_MODELS, where)
        transform = re.fullmatch(r"v2\.([A-Z]\w*)", config.augment)
        if not transform or transform[1] in TRANSFORMS.values():
            _one_of("augment", config.augment, (*SMALL_IMAGE_AUGMENTATIONS, "v2.<Transform>"), where)
        _refuse(config, ("image_size",), f"dataset={config.dataset!r}, whose images have one size")
    _one_of("original", config.original, ORIGINALS)
    _one_of("shortcut", config.shortcut, SHORTCUTS)
    increasing = all(a < b for a, b in zip((0, *config.decay_epochs), config.decay_epochs, strict=False))
    _require("decay_epochs", config, increasing, "positive and increasing")
    last = max(config.decay_epochs, default=0)
    _require("decay_epochs", config, last < config.epochs, f"below epochs={config.epochs} (set both)")
    _refuse(config, TEXT_FIELDS, f"dataset={config.dataset!r}, which is images")
    if config.method == "mmel_h":
        _refuse(config, ("base_loss",), "method='mmel_h' on images, whose targets are classes")
    if config.method in ONE_VIEW_METHODS:
        allowed = f"'clean' for method={config.method!r}, which sees one random view and never the original"
        _require("original", config, config.original == "clean", allowed)
    if config.holdout and config.lambda_t == CHOSEN_LAMBDA_T:
        raise ValueError("lambda_t=0 (chosen on held-out images) cannot itself hold images out; set holdout=0")
    if config.dataset == "digits":
        _require("augment", config, config.augment == "crop", "'crop' for dataset='digits': a flipped digit is another")


def _check_text(config: "RunConfig") -> None:
    if config.model in IMAGE_MODELS or config.model != config.model.strip() or not config.model:
        raise ValueError(f"model must be a text encoder for dataset={config.dataset!r}, got {config.model!r}")
    _one_of("fill", config.fill, FILLS)
    _one_of("pair_mode", config.pair_mode, PAIR_MODES)
    _one_of("label_source", config.label_source, LABEL_SOURCES)
    _require("mask_ratio", config, 0 < config.mask_ratio <= 1, "above 0 and at most 1")
    _require("max_length", config, config.max_length >= 8, "at least 8")
    for name in ("hidden_dropout", "attention_dropout"):
        value = getattr(config, name)
        _require(name, config, 0 <= value < 1 or value == CHOSEN_DROPOUT, "in [0, 1), or -1 for 'to be chosen'")
    chosen = [name for name in ("hidden_dropout", "attention_dropout") if getattr(config, name) == CHOSEN_DROPOUT]
    if len(chosen) == 1:
        raise ValueError(f"hidden_dropout and attention_dropout are chosen together, got {chosen[0]}=-1 alone")
    _require("lambda_t", config, config.lambda_t > 0, "positive on text, where the paper fixes it")
    _refuse(config, IMAGE_FIELDS, f"dataset={config.dataset!r}, which is text")
    if config.method == "baseline":
        _refuse(config, AUGMENTED_TEXT_FIELDS, "method='baseline', which augments nothing")
    if config.fill != "beam":
        _refuse(config, ("beam_width",), f"fill={config.fill!r}")
    usual = config.num_augmented - 1
    allowed = f"0 (for K - 1 = {usual}), or more than that"
    _require("beam_width", config, config.beam_width == 0 or config.beam_width > usual, allowed)
    if config.is_regression:
        _refuse(config, ("base_loss",), f"dataset={config.dataset!r}, whose targets are scores")
    else:
        _refuse(config, ("threshold",), f"dataset={config.dataset!r}, whose targets are classes")
    if config.label_source == "original":
        _refuse(config, ("threshold",), "label_source='original', where no teacher is asked")
        if config.method == "mmel_h":
            _refuse(config, ("base_loss",), "method='mmel_h' with label_source='original', whose targets are classes")


def _refuse(config: "RunConfig", names: tuple[str, ...], where: str) -> None:
    """Refuse other values than the default of fields that mean nothing there."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in names:
        _require(name, config, getattr(config, name) == defaults[name], f"{defaults[name]!r} (its default) for {where}")


def _require(name: str, config: "RunConfig", condition: bool, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {getattr(config, name)!r}")


def _one_of(name: str, value: str, allowed: tuple[str, ...], where: str = "") -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}{where}, got {value!r}")
