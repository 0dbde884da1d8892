"""The fields of a run: their types, ranges and choices, and how a command line spells them."""

import dataclasses
from typing import Any

PROFILES = ("mini", "reduced", "paper")
CHOICES = {
    "profile": PROFILES,
    "precision": ("auto", "bf16", "fp32"),
    "base_loss": ("cross_entropy", "kl"),
    "original": ("clean", "augmented"),
    "shortcut": ("A", "B"),
    "fill": ("greedy", "beam"),
    "pair_mode": ("separate", "joint"),
    "label_source": ("predicted", "original"),
}
# Field -> least and greatest value; the first may be excluded (see `POSITIVE`).
RANGES = {
    "seed": (0, 2**31 - 1),
    "num_augmented": (1, 2**31),
    "epochs": (1, 2**31),
    "batch_size": (1, 2**31),
    "evals_per_epoch": (1, 2**31),
    "train_size": (0, 2**31),
    "holdout": (0, 2**31),
    "micro_batch": (0, 2**31),
    "image_size": (32, 2**15),
    "lambda_p": (0, 1e300),
    "lambda_t": (0, 1e300),
    "lr": (0, 1e300),
    "weight_decay": (0, 1e300),
    "mask_ratio": (0, 1),
    "hidden_dropout": (0, 1 - 1e-9),
    "attention_dropout": (0, 1 - 1e-9),
}
LARGEST = 10**308
POSITIVE = ("lambda_p", "lambda_t", "lr", "mask_ratio")


def parse_field(kind: type, name: str, text: str) -> Any:
    """The value of field `name` that `text` stands for on a command line.

    Raises:
        ValueError: if runs of that type have no such field, or `text` is not of its type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if name not in fields:
        raise ValueError(f"unknown field {name}; a run on {kind.kind} has {', '.join(fields)}")
    parse, optional = _parser(fields[name])
    try:
        return None if optional and text.lower() == "none" else parse(text)
    except (KeyError, ValueError):
        raise ValueError(f"{name} must be of type {_type_name(fields[name])}, got {text!r}") from None


def _base_type(field: dataclasses.Field) -> tuple[type, bool]:
    """The type of a field's values, and whether they may be None."""
    for kind in (bool, int, float, str):
        if field.type in (kind, kind | None):
            return kind, field.type != kind
    return tuple, False


def _parser(field: dataclasses.Field) -> tuple[Any, bool]:
    kind, optional = _base_type(field)
    if kind is bool:
        return lambda text: {"true": True, "false": False}[text.lower()], optional
    if kind is tuple:
        return lambda text: tuple(int(part) for part in text.split(",") if part), optional
    return kind, optional


def _type_name(field: dataclasses.Field) -> str:
    kind, optional = _base_type(field)
    return ("int,int,..." if kind is tuple else kind.__name__) + (" or none" if optional else "")


def typed(field: dataclasses.Field, value: Any) -> Any:
    """`value` as the field's type, so that 1 and 1.0 name the same run."""
    kind, optional = _base_type(field)
    if optional and value is None:
        return None
    if kind is float and type(value) in (int, float):
        # An integer may be beyond all floats, as it is beyond every range. Adding 0.0 gives -0.0 the name of 0.0.
        return float(max(-LARGEST, min(value, LARGEST)) if type(value) is int else value) + 0.0
    if kind is tuple and isinstance(value, list | tuple) and all(type(entry) is int for entry in value):
        return tuple(value)
    if type(value) is not kind or kind is tuple:
        raise ValueError(f"{field.name} must be of type {_type_name(field)}, got {value!r}")
    return value


def check_value(name: str, value: Any) -> None:
    """Refuse a value out of its field's range."""
    if name in CHOICES and value not in CHOICES[name]:
        raise ValueError(f"{name} must be one of {', '.join(CHOICES[name])}, got {value!r}")
    if name in RANGES and value is not None:
        low, high = RANGES[name]
        # Written so that NaN is refused.
        if not (low < value <= high if name in POSITIVE else low <= value <= high):
            least = "above" if name in POSITIVE else "at least"
            most = high if isinstance(high, int) else f"{high:g}"
            raise ValueError(f"{name} must be {least} {low} and at most {most}, got {value!r}")
