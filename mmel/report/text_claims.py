"""What Tables 3, 4 and 6 claim: the contrasts between their rows, ours beside the paper's."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmel.methods import LABELS
from mmel.report.aggregate import contrast_from_summary
from mmel.report.common import Claim, claim_row, compare
from mmel.report.text_cells import (
    COLUMNS,
    Arm,
    Cells,
    arm_label,
    cells,
    column_labels,
    dataset_labels,
    paper_cells,
    task_of,
)

# The claims of each table, fixed before any run: (first arm, second arm), as the text of section 4.2 argues.
CONTRASTS: dict[str, tuple[tuple[Arm, Arm], ...]] = {
    "table3": (
        (("mmel_h",), ("baseline_da_uni",)),
        (("mmel_s",), ("baseline_da_uni",)),
        (("mmel_h",), ("baseline",)),
        (("mmel_s",), ("baseline",)),
        (("baseline_da_uni",), ("baseline",)),
        (("mmel_h",), ("baseline_da_long",)),
        (("mmel_s",), ("baseline_da_long",)),
    ),
    "table4": (
        (("mmel_h", "predicted"), ("mmel_h", "original")),
        (("mmel_s", "predicted"), ("mmel_s", "original")),
        # "Using the label of the original sample even hurts the performance."
        (("mmel_h", "original"), ("baseline", "")),
        (("mmel_s", "original"), ("baseline", "")),
    ),
}
# Table 6's: (claim, place in an arm of the setting that differs, its two values), all else equal.
TABLE6_CONTRASTS = (
    ("beam − greedy", 1, "beam", "greedy"),
    ("separate − joint", 2, "separate", "joint"),
    ("0.4 − 0.2 masked", 3, 0.4, 0.2),
)


def claims(name: str, runs: pd.DataFrame) -> list[Claim]:
    """The claims of Table 3 or 4: one for each column and pair of arms in the grid."""
    ours, paper, labels = cells(runs, name), paper_cells(name), column_labels(runs)
    found = []
    for column in _planned_columns(ours):
        for first, second in CONTRASTS[name]:
            if first in ours and second in ours:
                printed = contrast_from_summary(
                    *(paper[arm][column].fillna({"num_runs": 1}) for arm in (first, second))
                )
                label = f"{arm_label(first)} − {arm_label(second)}"
                sides = (ours[arm].get(column) for arm in (first, second))
                found.append(compare({"Task": labels[column]}, label, *sides, printed))
    return found


def setting_contrasts(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 6: what each setting of the augmentation changes, the mean over pairs of rows that differ in it alone.

    One run a row: there is no scatter over seeds, so no interval, and no verdict.
    """
    ours, paper, labels = cells(runs, "table6"), paper_cells("table6"), column_labels(runs)
    printed = {arm: {column: [cell["mean"]] for column, cell in columns.items()} for arm, columns in paper.items()}
    rows = []
    for column in _planned_columns(ours):
        for method in ("mmel_h", "mmel_s"):
            arms = [arm for arm in ours if arm[0] == method]
            pairs = {"all settings − Baseline": [(arm, ("baseline", "", "", "")) for arm in arms]}
            for claim, place, one, other in TABLE6_CONTRASTS:
                pairs[claim] = [(arm, (*arm[:place], other, *arm[place + 1 :])) for arm in arms if arm[place] == one]
            for claim, both in pairs.items():
                # A single sentence has nothing to be joined with, whatever the paper prints.
                planned = [sides for sides in both if all(column in ours.get(arm, {}) for arm in sides)]
                if planned:
                    rows.append(
                        {
                            "Task": labels[column],
                            "Contrast": f"{LABELS[method]}, {claim}",
                            **_mean_difference("Ours", ours, planned, column),
                            **_mean_difference("Paper", printed, planned, column),
                        }
                    )
    return pd.DataFrame(rows)


def _mean_difference(source: str, found: Cells, pairs: Sequence[tuple[Arm, Arm]], column: str) -> dict[str, str]:
    """Mean difference over the pairs whose sides both have a run, and in how many of them the first is higher."""
    sides = [(found.get(arm, {}).get(column), found.get(other, {}).get(column)) for arm, other in pairs]
    differences = [np.mean(one) - np.mean(other) for one, other in sides if one and other]
    if not differences:
        return {source: "no runs yet", f"{source}: pairs above 0": ""}
    # Scores of one decimal subtract to 1e-15 rather than to 0.
    above = sum(round(value, 9) > 0 for value in differences)
    return {source: f"{np.mean(differences):+.2f}", f"{source}: pairs above 0": f"{above} of {len(differences)}"}


def _planned_columns(ours: Cells) -> list[str]:
    return [column for column in (*COLUMNS, "avg") if any(column in columns for columns in ours.values())]


def claim_tests(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The claims of Table 3 or 4 over all tasks, see `tables.claim_tests`; of MNLI the matched dev set counts."""
    found, labels = cells(runs, name), dataset_labels(runs)
    rows = []
    for first, second in CONTRASTS[name]:
        strata = {
            label: tuple(found.get(arm, {}).get(task_of(dataset), []) for arm in (first, second))
            for dataset, label in labels.items()
        }
        rows.append(claim_row(f"{arm_label(first)} − {arm_label(second)}", strata))
    return pd.DataFrame(rows)
