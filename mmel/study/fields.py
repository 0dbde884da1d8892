"""The types of a run's fields: the values that they take, and how a command line spells them."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin


@dataclass(frozen=True)
class Range:
    """The values of a field, in words and as a test."""

    words: str
    holds: Callable[[Any], bool] = lambda value: True


Natural = Annotated[int, Range(f"an integer from 0 to {2**31 - 1}", lambda n: 0 <= n < 2**31)]
Count = Annotated[int, Range(f"an integer from 1 to {2**31 - 1}", lambda n: 1 <= n < 2**31)]
Side = Annotated[int, Range(f"an integer from 32 to {2**15 - 1}", lambda n: 32 <= n < 2**15)]
Positive = Annotated[float, Range("a number above 0", lambda x: 0 < x < math.inf)]
NotNegative = Annotated[float, Range("a number, 0 or more", lambda x: 0 <= x < math.inf)]
Share = Annotated[float, Range("a number above 0, at most 1", lambda x: 0 < x <= 1)]
Rate = Annotated[float, Range("a number from 0 to below 1", lambda x: 0 <= x < 1)]
Profile = Literal["mini", "reduced", "paper"]
PROFILES: tuple[str, ...] = get_args(Profile)

_PLAIN = {bool: Range("True or False"), str: Range("a text"), tuple: Range("integers")}
_PARSERS = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    tuple: lambda text: tuple(int(part) for part in text.split(",") if part),
}


@cache
def _values(hint: Any) -> tuple[type, Range, bool]:
    """Type and range of the values that a type hint allows, and whether None is one of them."""
    if type(None) in get_args(hint):
        kind, allowed, _ = _values(get_args(hint)[0])
        return kind, Range(f"{allowed.words}, or None", allowed.holds), True
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return str, Range(f"one of {', '.join(choices)}", choices.__contains__), False
    if get_origin(hint) is Annotated:
        return *get_args(hint), False
    kind = get_origin(hint) or hint
    return kind, _PLAIN[kind], False


def parse_field(run_type: type, name: str, text: str) -> Any:
    """The value of field `name` that `text` stands for on a command line; the run itself checks its range.

    Raises:
        ValueError: if runs of that type have no such field, or `text` is not of its type.
    """
    hints = {field.name: field.type for field in dataclasses.fields(run_type)}
    if name not in hints:
        raise ValueError(f"unknown field {name}; a run on {run_type.kind} has {', '.join(hints)}")
    kind, allowed, optional = _values(hints[name])
    try:
        return None if optional and text.lower() == "none" else _PARSERS.get(kind, kind)(text)
    except (KeyError, ValueError):
        raise ValueError(f"{name} must be {allowed.words}, got {text!r}") from None


def checked(field: dataclasses.Field, value: Any) -> Any:
    """`value` as the field's type, so that 1 and 1.0 name the same run.

    Raises:
        ValueError: on a value of another type or out of range.
    """
    kind, allowed, optional = _values(field.type)
    if optional and value is None:
        return None
    if kind is float and type(value) is int and abs(value) < 2**1023:
        value = float(value)
    if kind is tuple and isinstance(value, list | tuple) and all(type(entry) is int for entry in value):
        return tuple(value)
    if kind is tuple or type(value) is not kind or not allowed.holds(value):
        raise ValueError(f"{field.name} must be {allowed.words}, got {value!r}")
    # Adding 0.0 gives -0.0 the name of 0.0.
    return value + 0.0 if kind is float else value
