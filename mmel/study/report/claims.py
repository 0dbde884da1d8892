"""The paper's claims, each with the contrast that tests it, all fixed before the runs that test them."""

from collections.abc import Mapping
from dataclasses import dataclass

from mmel.study.datasets import DATASETS, GLUE


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of the paper and its contrast, arm `a` less arm `b`.

    Attributes:
        table: the table or figure whose runs test it.
        a: fields of the first arm. If it leaves settings of its table open, the claim is about all pairs of arms that
            are alike in them.
        b: fields of the second arm.
        words: the paper's.
        section: of the paper.
        direction: `>`, `<`, `=` (no difference beyond the margin) or `>=` (not worse than by the margin).
        margin: the largest difference that does not matter: points, or a share of the time.
        more_than: points that are claimed at least; the contrast is compared with them in place of 0.
        quantity: `score` (after the last epoch), `progress` (mean over the evaluations of a run) or `time` (the ratio
            of the training times on one device, compared with 1).
        places: data sets that it is about; () for all.
        against: data sets whose mean contrast is subtracted from that of `places`; () for none.
        primary: whether it is one of the few that the study is for, which share Holm's correction.
    """

    table: str
    a: Mapping[str, str | int | float]
    b: Mapping[str, str | int | float]
    words: str
    section: str
    direction: str = ">"
    margin: float = 0.2
    more_than: float = 0.0
    quantity: str = "score"
    places: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    primary: bool = False

    @property
    def null(self) -> float:
        """The value that the contrast is compared with."""
        return 1.0 if self.quantity == "time" else self.more_than

    def verdict(self, low: float, high: float) -> str:
        """The verdict of the contrast's 95 % interval."""
        return verdict(low - self.null, high - self.null, self.direction, self.margin)


def verdict(low: float, high: float, direction: str = ">", margin: float = 0.0) -> str:
    """The verdict of a contrast's 95 % interval on a claim.

    Args:
        low: lower end; NaN if there is no interval, which decides nothing.
        high: upper end.
        direction: of the claim: `>`, `<`, `=` (no difference beyond the margin), `>=` (not worse than by the margin).
        margin: in the contrast's unit.

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


_BASELINE, _DA, _UNIFORM, _LONG, _SMART = (
    {"method": name} for name in ("baseline", "baseline_da", "baseline_da_uni", "baseline_da_long", "smart")
)
_SMALL = ("cola", "rte")
_SIMILAR = ("sst2", "rte")
_PAIRS = tuple(name for name in GLUE if DATASETS[name].is_pair)


def _both(**fields) -> tuple[Claim, Claim]:
    """A claim about MMEL-H and the same about MMEL-S; a side that names no method is of the same one."""
    sides = {side: fields.pop(side, {}) for side in ("a", "b")}
    hard, soft = (
        Claim(**{side: {"method": name} | own for side, own in sides.items()}, **fields)
        for name in ("mmel_h", "mmel_s")
    )
    return hard, soft


def _others(places: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in GLUE if name not in places)


def _timed(table: str, words: str, b: Mapping[str, str], section: str, direction: str) -> tuple[Claim, Claim]:
    return _both(table=table, b=b, words=words, section=section, direction=direction, quantity="time")


_EFFICIENT = "while being much more efficient in training"
_REGULAR = "the whole training time is similar to the regular training counterpart"
_MORE_VIEWS = "the performance of MMEL improves with more augmented samples for small |B(x)|"
_SATURATES = "the performance gain begins to saturate when |B(x)| reaches 5 or 10 for some cases"
_CONVERGES = "converges faster and has better accuracy except SST-2 and RTE where the performance is similar"
_OURS = "no claim of the paper: the same views, all weighted alike"

CLAIMS: tuple[Claim, ...] = (
    *_both(
        table="table1",
        b=_UNIFORM,
        words="Compared to Baseline(DA+UNI) which has the same computational cost [...] better performance",
        section="4.1",
        primary=True,
    ),
    *_both(
        table="table1",
        b=_DA,
        words="significantly outperform the Baseline(DA), with over 0.5 points higher accuracy",
        section="4.1",
        more_than=0.5,
        margin=0.0,
    ),
    *_both(table="table1", b=_LONG, words="comparable or better performance", section="4.1", direction=">="),
    Claim(table="table1", a=_UNIFORM, b=_DA, words=_OURS, section="-"),
    *_timed("table1", _EFFICIENT, _LONG, "4.1", "<"),
    *_timed("table1", _REGULAR, _DA, "3.3", "="),
    *_both(table="table2", a={"num_augmented": 5}, b={"num_augmented": 2}, words=_MORE_VIEWS, section="4.1"),
    *(
        claim
        for more, fewer in ((10, 5), (20, 10))
        for claim in _both(
            table="table2",
            a={"num_augmented": more},
            b={"num_augmented": fewer},
            words=_SATURATES,
            section="4.1",
            direction="=",
        )
    ),
    *_both(
        table="table3",
        b=_UNIFORM,
        words="MMEL-H and MMEL-S also outperform Baseline(DA+UNI)",
        section="4.2",
        primary=True,
    ),
    Claim(
        table="table3",
        a=_UNIFORM,
        b=_BASELINE,
        words="data augmentation significantly improves the generalization of GLUE tasks",
        section="4.2",
    ),
    *_both(table="table3", b=_BASELINE, words="consistently achieves better performance", section="4.2"),
    *_both(
        table="table3",
        b=_BASELINE,
        words="especially on small datasets like CoLA and RTE",
        section="4.2",
        places=_SMALL,
        against=_others(_SMALL),
    ),
    *_both(table="table3", b=_LONG, words="have better performance than Baseline(DA+Long)", section="4.2"),
    *_timed("table3", "more efficient [...] than Baseline(DA+Long)", _LONG, "4.2", "<"),
    *_timed("table3", _REGULAR, _BASELINE, "3.3", "="),
    *_both(table="table3", b=_SMART, words="our proposed method also beats SMART in [...] accuracy", section="4.2"),
    *_timed("table3", "beats SMART in [...] efficiency", _SMART, "4.2", "<"),
    *_both(
        table="figure2", b=_BASELINE, words=_CONVERGES, section="4.2", quantity="progress", places=_others(_SIMILAR)
    ),
    *_both(
        table="figure2",
        b=_BASELINE,
        words=_CONVERGES,
        section="4.2",
        quantity="progress",
        places=_SIMILAR,
        direction="=",
    ),
    *_both(
        table="table4",
        a={"label_source": "predicted"},
        b={"label_source": "original"},
        words="using the predicted label significantly improves the performance",
        section="4.2",
    ),
    *_both(
        table="table4",
        a={"label_source": "original"},
        b=_BASELINE,
        words="using the label of the original sample even hurts the performance",
        section="4.2",
        direction="<",
    ),
    Claim(
        table="table5",
        a={"method": "mmel_h"},
        b=_DA,
        words="MMEL-H improves the performance of the model for all three depths",
        section="B",
    ),
    Claim(
        table="table5",
        a={"method": "mmel_s"},
        b=_DA,
        words="the proposed MMEL-S is beaten by the baseline method",
        section="B",
        direction="<",
    ),
    Claim(
        table="table5",
        a={"method": "mmel_h"},
        b={"method": "mmel_s"},
        words="MMEL-H if the accuracy of the original training samples is relative low",
        section="B",
    ),
    *_both(
        table="table6",
        b=_BASELINE,
        words="under all hyperparameter configurations have higher accuracy",
        section="C",
    ),
    *_both(
        table="table6",
        a={"fill": "beam"},
        b={"fill": "greedy"},
        words="no significant difference in using greedy search or beam search",
        section="C",
        direction="=",
    ),
    *_both(
        table="table6",
        a={"mask_ratio": 0.4},
        b={"mask_ratio": 0.2},
        words="larger replacement proportion [...] has slightly better performance",
        section="C",
    ),
    *_both(
        table="table6",
        a={"pair_mode": "separate"},
        b={"pair_mode": "joint"},
        words="treating the two sentences separately [...] has slightly better performance",
        section="C",
        places=_PAIRS,
    ),
)


def claims_of(table: str) -> tuple[Claim, ...]:
    """The claims that a table's runs test."""
    return tuple(claim for claim in CLAIMS if claim.table == table)
