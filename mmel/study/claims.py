"""The paper's claims as contrasts between two arms of a table, all fixed before the runs that test them.

Standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mmel.study.methods import METHODS


@dataclass(frozen=True)
class Claim:
    """One contrast that the paper's text argues for.

    Attributes:
        a: fields of the first arm. If it leaves settings of its table open, the claim is about all pairs of arms that
            are alike in them.
        b: fields of the second arm.
        words: the paper's words.
        label: name of the contrast; by default the names of its two arms.
    """

    a: Mapping[str, str | int | float]
    b: Mapping[str, str | int | float]
    words: str
    label: str = ""


def verdict(low: float, high: float, direction: str = ">", margin: float = 0.0) -> str:
    """The verdict of a contrast's 95 % interval on a claim.

    Args:
        low: lower end; NaN if there is no interval, which decides nothing.
        high: upper end.
        direction: of the claim: `>`, `<`, `=` (no difference beyond the margin), `>=` (not worse than by the margin).
        margin: in points.

    Returns:
        `supported`, `opposed`, `negligible` (a difference is claimed, but the interval is within the margin) or
        `undecided`.

    Raises:
        ValueError: on another direction or a negative margin.
    """
    if not margin >= 0:
        raise ValueError(f"margin must be 0 or more, got {margin!r}")
    within = -margin < low and high < margin
    if direction == "<":
        low, high = -high, -low
    if direction in (">", "<"):
        supported, opposed, negligible = low > 0, high < 0, within
    elif direction == "=":
        supported, opposed, negligible = within, low > margin or high < -margin, False
    elif direction == ">=":
        supported, opposed, negligible = low > -margin, high < -margin, False
    else:
        raise ValueError(f"direction must be one of >, <, =, >=, got {direction!r}")
    return "supported" if supported else "opposed" if opposed else "negligible" if negligible else "undecided"


def _of_mmel(*rows: tuple) -> tuple[Claim, ...]:
    """Claims about MMEL-H and then the same about MMEL-S.

    Args:
        rows: of each claim the two arms, the words, and a label if it leaves settings open. A side that names no method
            is of the same one.
    """
    return tuple(
        Claim({"method": name} | a, {"method": name} | b, words, *(f"{METHODS[name].label}, {each}" for each in label))
        for name in ("mmel_h", "mmel_s")
        for a, b, words, *label in rows
    )


_BASELINE, _DA = {"method": "baseline"}, {"method": "baseline_da"}
_UNIFORM, _LONG = {"method": "baseline_da_uni"}, {"method": "baseline_da_long"}
_HARD, _SOFT = {"method": "mmel_h"}, {"method": "mmel_s"}
_PREDICTED, _ORIGINAL = {"label_source": "predicted"}, {"label_source": "original"}
_K2, _K5, _K10, _K20 = ({"num_augmented": k} for k in (2, 5, 10, 20))
_MORE_VIEWS = "the performance of MMEL improves with more augmented samples for small |B(x)| (4.1)"
_SATURATES = "the performance gain begins to saturate when |B(x)| reaches 5 or 10 for some cases (4.1)"

# Table -> its claims; a figure has none.
CLAIMS: dict[str, tuple[Claim, ...]] = {
    "table1": (
        *_of_mmel(({}, _UNIFORM, "Compared to Baseline(DA+UNI) [...] better performance (4.1)")),
        *_of_mmel(({}, _DA, "significantly outperform the Baseline(DA), with over 0.5 points (4.1)")),
        Claim(_UNIFORM, _DA, "not in the text: what more augmented samples do by themselves"),
        *_of_mmel(({}, _LONG, "comparable or better performance, while being much more efficient (4.1)")),
    ),
    "table2": (
        *_of_mmel((_K5, _K2, _MORE_VIEWS), (_K10, _K5, _SATURATES), (_K20, _K10, _SATURATES)),
        *_of_mmel(*((k, _DA, _MORE_VIEWS) for k in (_K2, _K5, _K10, _K20))),
    ),
    "table3": (
        *_of_mmel(({}, _UNIFORM, "MMEL-H and MMEL-S also outperform Baseline(DA+UNI) (4.2)")),
        *_of_mmel(({}, _BASELINE, "consistently achieves better performance, especially on small datasets (4.2)")),
        Claim(_UNIFORM, _BASELINE, "data augmentation significantly improves the generalization (4.2)"),
        *_of_mmel(({}, _LONG, "more efficient and have better performance than Baseline(DA+Long) (4.2)")),
    ),
    "table4": (
        *_of_mmel((_PREDICTED, _ORIGINAL, "the predicted label significantly improves the performance (4.2)")),
        *_of_mmel((_ORIGINAL, _BASELINE, "the label of the original sample even hurts the performance (4.2)")),
    ),
    "table5": (
        Claim(_HARD, _DA, "MMEL-H improves the performance [...] for all three depths (B)"),
        Claim(_SOFT, _DA, "the proposed MMEL-S is beaten by the baseline method (B)"),
        Claim(_HARD, _SOFT, "MMEL-H if the accuracy [...] is relative low (B)"),
    ),
    "table6": _of_mmel(
        ({}, _BASELINE, "under all hyperparameter configurations have higher accuracy (C)", "all settings − Baseline"),
        ({"fill": "beam"}, {"fill": "greedy"}, "no significant difference (C)", "beam − greedy"),
        ({"pair_mode": "separate"}, {"pair_mode": "joint"}, "slightly better performance (C)", "separate − joint"),
        ({"mask_ratio": 0.4}, {"mask_ratio": 0.2}, "slightly better performance (C)", "0.4 − 0.2 masked"),
    ),
}
