"""Table 7: our runs' settings beside the paper's."""

import pandas as pd

from mmel.study.config import Run
from mmel.study.methods import METHODS
from mmel.study.needs import DROPOUT_CANDIDATES
from mmel.study.report.frames import paper_table
from mmel.study.tables import TABLES

# Code and no field of a run: the text task's scheduler.
_IN_CODE = {"Learning Rate Decay": "Linearly", "Warmup Ratio": "0"}


def table7(profile: str = "paper") -> pd.DataFrame:
    """Table 7 from the runs of a profile's Table 3.

    Returns:
        One row per hyperparameter: for each method ours and the paper's; `Differs` names the methods whose two values
        are not the same. `-` if the profile has no such task.
    """
    runs, printed = TABLES["table3"].reported(profile), paper_table("table7").fillna("")
    found, apart = pd.DataFrame({"Hyperparameter": printed["hyperparameter"]}), []
    for method in ("mmel_h", "mmel_s"):
        label, mine = METHODS[method].label, [run for run in runs if run.method == method]
        rows = printed[["hyperparameter", "field"]].itertuples(index=False)
        ours = pd.Series([_ours(*row, mine) for row in rows])
        found[f"{label}, ours ({profile})"], found[f"{label}, paper"] = ours, printed[method]
        # 3e-5 is 3e-05.
        same = pd.to_numeric(ours, errors="coerce") == pd.to_numeric(printed[method], errors="coerce")
        apart.append((same | (ours == printed[method]) | (ours == "-")).map({True: "", False: label}))
    return found.assign(Differs=[", ".join(filter(None, both)) for both in zip(*apart, strict=True)])


def _ours(hyperparameter: str, field: str, runs: list[Run]) -> str:
    if not field:
        return _IN_CODE[hyperparameter]
    if field == "epochs":
        wants_long = hyperparameter != "Max Epochs (Others)"
        runs = [run for run in runs if (run.data.task in ("mnli", "qqp")) == wants_long]
    chosen = f"{{{', '.join(f'{value:g}' for value in DROPOUT_CANDIDATES)}}}"
    values = dict.fromkeys(getattr(run, field) for run in runs)
    return " or ".join(chosen if value is None else f"{value:g}" for value in values) or "-"
