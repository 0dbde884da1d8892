import math

import pytest

from mmel.study.report.claims import CLAIMS, verdict
from mmel.study.report.contrasts import claim_label
from mmel.study.tables import TABLES

NAN = math.nan


@pytest.mark.parametrize(
    ("low", "high", "direction", "margin", "expected"),
    [
        (0.1, 0.9, ">", 0.0, "supported"),
        (-0.9, -0.1, ">", 0.0, "opposed"),
        (-0.1, 0.9, ">", 0.0, "undecided"),
        # An interval that touches 0 decides nothing.
        (0.0, 1.0, ">", 0.0, "undecided"),
        (-1.0, 0.0, ">", 0.0, "undecided"),
        (-0.1, 0.1, ">", 0.2, "negligible"),
        (-0.2, 0.1, ">", 0.2, "undecided"),
        # Within the margin, but above 0 all the same.
        (0.05, 0.1, ">", 0.2, "supported"),
        (-0.1, -0.05, ">", 0.2, "opposed"),
        (-0.9, -0.1, "<", 0.0, "supported"),
        (0.1, 0.9, "<", 0.0, "opposed"),
        (-0.1, 0.15, "<", 0.2, "negligible"),
        (-0.1, 0.9, "<", 0.2, "undecided"),
        (-0.1, 0.1, "=", 0.2, "supported"),
        (0.3, 0.9, "=", 0.2, "opposed"),
        (-0.9, -0.3, "=", 0.2, "opposed"),
        (0.1, 0.3, "=", 0.2, "undecided"),
        (-0.1, 0.9, ">=", 0.2, "supported"),
        (-0.9, -0.3, ">=", 0.2, "opposed"),
        (-0.9, 0.9, ">=", 0.2, "undecided"),
        *((NAN, NAN, direction, 0.2, "undecided") for direction in (">", "<", "=", ">=")),
    ],
)
def test_verdicts(low, high, direction, margin, expected):
    assert verdict(low, high, direction, margin) == expected


@pytest.mark.parametrize(("field", "given"), [("direction", "=="), ("margin", -0.1), ("margin", NAN)])
def test_bad_arguments_are_named(field, given):
    with pytest.raises(ValueError, match=rf"{field}.*{given}"):
        verdict(0.0, 1.0, **{field: given})


def test_each_claim_is_of_a_table_quotes_the_paper_and_is_listed_once():
    keys = [(claim.table, claim_label(TABLES[claim.table], claim), claim.words) for claim in CLAIMS]
    assert len(set(keys)) == len(keys)
    assert {claim.table for claim in CLAIMS} == set(TABLES)
    # A handful are primary: MMEL-H and MMEL-S over equal weights, on images and on text.
    primary = [(claim.table, claim.a["method"], claim.b["method"]) for claim in CLAIMS if claim.primary]
    assert primary == [(t, m, "baseline_da_uni") for t in ("table1", "table3") for m in ("mmel_h", "mmel_s")]


def test_a_claim_of_more_points_and_of_a_ratio_is_judged_by_its_own_value():
    more = next(claim for claim in CLAIMS if claim.more_than)
    assert [more.verdict(*bounds) for bounds in ((0.6, 0.9), (0.3, 0.9), (0.1, 0.4))] == [
        "supported",
        "undecided",
        "opposed",
    ]
    cheaper = next(claim for claim in CLAIMS if claim.quantity == "time" and claim.direction == "<")
    assert [cheaper.verdict(*bounds) for bounds in ((0.4, 0.9), (1.1, 1.2))] == ["supported", "opposed"]
