"""Table 7: what our runs are set to, beside what the paper lists."""

import pandas as pd

from mmel.config import CHOSEN_DROPOUT, RunConfig
from mmel.grids import DROPOUT_CANDIDATES, reported
from mmel.methods import LABELS
from mmel.report.aggregate import paper_table
from mmel.report.text_cells import task_of

METHODS = ("mmel_h", "mmel_s")
# What is code and not a field of RunConfig: `mmel.train.text.TextTask.build_scheduler`.
_IN_CODE = {"Learning Rate Decay": "Linearly", "Warmup Ratio": "0"}
_LONG_TASKS = ("mnli", "qqp")


def table7(profile: str = "paper") -> pd.DataFrame:
    """Table 7 from the grid of a profile.

    Args:
        profile: whose Table 3.

    Returns:
        One row a hyperparameter: for each method ours and the paper's; `Differs` names the methods where the two are
        not the same value. `-` where the profile has no such task.
    """
    runs = reported("table3", profile)
    rows = []
    for printed in paper_table("table7").fillna("").to_dict("records"):
        row, apart = {"Hyperparameter": printed["hyperparameter"]}, []
        for method in METHODS:
            ours = _ours(printed["hyperparameter"], printed["field"], [run for run in runs if run.method == method])
            row |= {f"{LABELS[method]}, ours ({profile})": ours, f"{LABELS[method]}, paper": printed[method]}
            if ours != "-" and not _same(ours, printed[method]):
                apart.append(LABELS[method])
        rows.append(row | {"Differs": ", ".join(apart)})
    return pd.DataFrame(rows)


def _ours(hyperparameter: str, field: str, runs: list[RunConfig]) -> str:
    if not field:
        return _IN_CODE[hyperparameter]
    if field == "epochs":
        wants_long = hyperparameter != "Max Epochs (Others)"
        runs = [run for run in runs if (task_of(run.dataset) in _LONG_TASKS) == wants_long]
    values = dict.fromkeys(getattr(run, field) for run in runs)
    return " or ".join(_shown(value) for value in values) or "-"


def _shown(value: float) -> str:
    if value == CHOSEN_DROPOUT:
        return f"{{{', '.join(f'{candidate:g}' for candidate in DROPOUT_CANDIDATES)}}}"
    return f"{value:g}"


def _same(ours: str, printed: str) -> bool:
    """As numbers where both are: 3e-5 and 3e-05."""
    try:
        return float(ours) == float(printed)
    except ValueError:
        return ours == printed
