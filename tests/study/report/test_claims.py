import math

import pytest

from mmel.study.claims import verdict
from mmel.study.report.frames import claim_label, pairs, paper_cells
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


@pytest.mark.parametrize(("name", "number"), [*zip(TABLES, (7, 14, 7, 4, 3, 8, 0), strict=True)])
def test_each_claim_is_listed_once_and_compares_cells_that_the_paper_prints(name, number):
    spec = TABLES[name]
    assert len({claim_label(spec, claim) for claim in spec.claims}) == len(spec.claims) == number
    for claim in spec.claims:
        found = pairs(spec, claim, paper_cells(name))
        assert len(found) >= 3
        assert found["difference"].notna().all()
