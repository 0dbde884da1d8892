"""The paper's claims, each with the contrast that tests it: `mmel/study/paper/claims.csv`, read and judged."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

VERDICTS = ("supported", "opposed", "negligible", "undecided")


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
        holds = (low > 0, high < 0, within)
    elif direction == "=":
        holds = (within, low > margin or high < -margin)
    elif direction == ">=":
        holds = (low > -margin, high < -margin)
    else:
        raise ValueError(f"direction must be one of >, <, =, >=, got {direction!r}")
    return next((said for said, true in zip(VERDICTS, holds, strict=False) if true), "undecided")


def _read() -> tuple[Claim, ...]:
    """The claims of the file, one for each of a line's methods; a side without a method is of the same one."""
    found = []
    with resources.files("mmel.study.paper").joinpath("claims.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            for method in line.pop("methods").split():
                sides = {side: {"method": method} | _fields(line[side]) for side in ("a", "b")}
                lists = {name: tuple(line[name].split()) for name in ("places", "against")}
                numbers = {name: float(line[name] or 0) for name in ("margin", "more_than")}
                found.append(Claim(**line | sides | lists | numbers | {"primary": line["primary"] == "yes"}))
    return tuple(found)


def _fields(text: str) -> dict[str, str | int | float]:
    """`num_augmented=5 fill=beam` as the fields of a run."""
    pairs = (pair.split("=") for pair in text.split())
    return {name: {"num_augmented": int, "mask_ratio": float}.get(name, str)(value) for name, value in pairs}


CLAIMS = _read()


def claims_of(table: str) -> tuple[Claim, ...]:
    """The claims that a table's runs test."""
    return tuple(claim for claim in CLAIMS if claim.table == table)
