"""The paper's claims as contrasts between two arms of a table, all fixed before the runs that test them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One contrast that the paper's text argues for.

    Attributes:
        table: where its arms stand.
        a: fields of the first arm. If it leaves settings of the table open, the claim is about all pairs of arms that
            are alike in them.
        b: fields of the second arm.
        words: the paper's words.
        label: name of the contrast; by default the names of its two arms.
    """

    table: str
    a: dict[str, str | int | float]
    b: dict[str, str | int | float]
    words: str
    label: str = ""


def verdict(low: float, high: float, direction: str = ">", margin: float = 0.0) -> str:
    """What the 95 % interval of a contrast says of a claim.

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


def _against(table: str, b: str, words: str, methods: tuple[str, ...] = ("mmel_h", "mmel_s")) -> tuple[Claim, ...]:
    return tuple(Claim(table, {"method": method}, {"method": b}, words) for method in methods)


_UNIFORM = "Compared to Baseline(DA+UNI) [...] the proposed methods also have better performance (4.1)"
_HALF_POINT = "MMEL-H and MMEL-S significantly outperform the Baseline(DA), with over 0.5 points higher accuracy (4.1)"
_LONG = "Compared to Baseline(DA+Long) [...] comparable or better performance, [...] much more efficient (4.1)"
_MORE_VIEWS = "the performance of MMEL improves with more augmented samples for small |B(x)| (4.1)"
_SATURATES = "the performance gain begins to saturate when |B(x)| reaches 5 or 10 for some cases (4.1)"
_SMALL_TASKS = "MMEL-H or MMEL-S consistently achieves better performance, especially on small datasets (4.2)"
_AUGMENTATION = "data augmentation significantly improves the generalization of GLUE tasks (4.2)"
_PREDICTED = "using the predicted label significantly improves the performance (4.2)"
_ORIGINAL = "using the label of the original sample even hurts the performance (4.2)"
_IMAGENET_H = "the proposed MMEL-H improves the performance of the model for all three depths (B)"
_IMAGENET_S = "the proposed MMEL-S is beaten by the baseline method (B)"
_ALL_SETTINGS = "MMEL-H and MMEL-S under all hyperparameter configurations have higher accuracy (C)"
# Table 6: (label, field, its two values, words).
_SETTINGS = (
    (
        "beam − greedy",
        "fill",
        "beam",
        "greedy",
        "There is no significant difference in using greedy or beam search (C)",
    ),
    (
        "separate − joint",
        "pair_mode",
        "separate",
        "joint",
        "treating the two sentences separately is slightly better (C)",
    ),
    ("0.4 − 0.2 masked", "mask_ratio", 0.4, 0.2, "a larger replacement proportion has slightly better performance (C)"),
)
_NAMES = {"mmel_h": "MMEL-H", "mmel_s": "MMEL-S"}

CLAIMS: tuple[Claim, ...] = (
    *_against("table1", "baseline_da_uni", _UNIFORM),
    *_against("table1", "baseline_da", _HALF_POINT),
    *_against("table1", "baseline_da", "more augmented samples alone", ("baseline_da_uni",)),
    *_against("table1", "baseline_da_long", _LONG),
    *(
        Claim("table2", {"method": m, "num_augmented": more}, {"method": m, "num_augmented": less}, words)
        for m in _NAMES
        for more, less, words in ((5, 2, _MORE_VIEWS), (10, 5, _SATURATES), (20, 10, _SATURATES))
    ),
    *(
        Claim("table2", {"method": m, "num_augmented": k}, {"method": "baseline_da"}, _MORE_VIEWS)
        for m in _NAMES
        for k in (2, 5, 10, 20)
    ),
    *_against("table3", "baseline_da_uni", "MMEL-H and MMEL-S also outperform Baseline(DA+UNI) (4.2)"),
    *_against("table3", "baseline", _SMALL_TASKS),
    *_against("table3", "baseline", _AUGMENTATION, ("baseline_da_uni",)),
    *_against("table3", "baseline_da_long", "more efficient and have better performance than Baseline(DA+Long) (4.2)"),
    *(
        Claim(
            "table4", {"method": m, "label_source": "predicted"}, {"method": m, "label_source": "original"}, _PREDICTED
        )
        for m in _NAMES
    ),
    *(Claim("table4", {"method": m, "label_source": "original"}, {"method": "baseline"}, _ORIGINAL) for m in _NAMES),
    *_against("table5", "baseline_da", _IMAGENET_H, ("mmel_h",)),
    *_against("table5", "baseline_da", _IMAGENET_S, ("mmel_s",)),
    *_against(
        "table5",
        "mmel_s",
        "we suggest using the MMEL-H if the accuracy of the original samples is low (B)",
        ("mmel_h",),
    ),
    *(
        claim
        for m, name in _NAMES.items()
        for claim in (
            Claim("table6", {"method": m}, {"method": "baseline"}, _ALL_SETTINGS, f"{name}, all settings − Baseline"),
            *(
                Claim("table6", {"method": m, on: one}, {"method": m, on: other}, words, f"{name}, {label}")
                for label, on, one, other, words in _SETTINGS
            ),
        )
    ),
)
