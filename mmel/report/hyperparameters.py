"""Table 7: our runs' settings beside the paper's."""

import pandas as pd

from mmel.config import CHOSEN_DROPOUT, RunConfig
from mmel.grids import DROPOUT_CANDIDATES, reported
from mmel.methods import LABELS
from mmel.report.frames import paper_table, task_of

# Code and no field of RunConfig: the text task's scheduler.
_IN_CODE = {"Learning Rate Decay": "Linearly", "Warmup Ratio": "0"}


def table7(profile: str = "paper") -> pd.DataFrame:
    """Table 7 from the grid of a profile.

    Args:
        profile: whose Table 3.

    Returns:
        One row per hyperparameter: for each method ours and the paper's; `Differs` names the methods whose two values
        are not the same. `-` if the profile has no such task.
    """
    runs = reported("table3", profile)
    rows = []
    for printed in paper_table("table7").fillna("").to_dict("records"):
        row, apart = {"Hyperparameter": printed["hyperparameter"]}, []
        for method in ("mmel_h", "mmel_s"):
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
        runs = [run for run in runs if (task_of(run.dataset) in ("mnli", "qqp")) == wants_long]
    chosen = f"{{{', '.join(f'{value:g}' for value in DROPOUT_CANDIDATES)}}}"
    values = dict.fromkeys(getattr(run, field) for run in runs)
    return " or ".join(chosen if value == CHOSEN_DROPOUT else f"{value:g}" for value in values) or "-"


def _same(ours: str, printed: str) -> bool:
    """As numbers if both are: 3e-5 and 3e-05."""
    try:
        return float(ours) == float(printed)
    except ValueError:
        return ours == printed
