"""Tables 3, 4 and 6: GLUE, or its miniatures."""

import numpy as np
import pandas as pd

from mmel.methods import LABELS
from mmel.report import text_claims
from mmel.report.aggregate import paper_table
from mmel.report.common import (
    Claim,
    Table,
    claims_frame,
    duration,
    highest,
    level,
    missing_lines,
    ratio,
)
from mmel.report.runs import curves, device_label, seconds, summarize, usable
from mmel.report.text_cells import (
    FIELDS,
    Arm,
    Cells,
    PaperCells,
    arm_label,
    arm_of,
    cells,
    column_labels,
    dataset_labels,
    paper_cells,
)
from mmel.report.text_notes import caption, notes

HEADINGS = {"label_source": "Labels", "fill": "Search", "pair_mode": "Pair", "mask_ratio": "Masked"}
TIME = "Time (ratio to Baseline)"


def build(name: str, runs: pd.DataFrame, profile: str) -> Table:
    """Table 3, 4 or 6, or Figure 2, of the runs of its grid, see `tables.build`."""
    claims: list[Claim] = []
    if name == "figure2":
        contrasts = pd.DataFrame()
        levels = curves(runs)
        levels.insert(0, "task", levels["dataset"].map(dataset_labels(runs)))
        best = pd.DataFrame(False, index=levels.index, columns=levels.columns)
    else:
        levels, best = _levels(name, runs, profile)
        if name == "table6":
            contrasts = text_claims.setting_contrasts(runs)
        else:
            claims = text_claims.claims(name, runs)
            contrasts = claims_frame(claims)
    return Table(
        name=name,
        caption=caption(name, runs, profile),
        levels=levels,
        best=best,
        contrasts=contrasts,
        missing=_missing(name, runs),
        notes=notes(name, runs, profile),
        claims=claims,
    )


def training_time(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The times of Table 3, 4 or 6 task by task, see `tables.training_time`."""
    times, labels, hours = _seconds(name, runs), dataset_labels(runs), _paper_hours()
    rows = []
    for (dataset, *arm, device, threads), cell in times.iterrows():
        base = times["seconds"].get(_baseline(name, dataset, device, threads))
        rows.append(
            {
                "Task": labels[dataset],
                "Method": LABELS[arm[0]],
                **_settings(name, tuple(arm)),
                "Device": device_label(device, threads),
                "n": int(cell["num_runs"]),
                "Training": duration(cell["seconds"]),
                "Ratio to Baseline": ratio(cell["seconds"], base),
                "Paper's ratio, all tasks, V100": ratio(hours[arm[0]], hours["baseline"]) if arm[0] in hours else "",
            }
        )
    return pd.DataFrame(rows)


def seeds(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Every run of Table 3, 4 or 6, see `tables.seeds`; columns that no run fills are left out."""
    found = usable(runs)
    optional = ["score_mm", "test_score", "test_score_mm", "dropout", "disagreement_pct"]
    filled = [column for column in optional if found[column].notna().any()]
    shown = ["dataset", "model", "method", *FIELDS[name], "seed", "metric", "score", "best_score", *filled]
    found = found[shown].reset_index(drop=True)
    found.insert(0, "task", found["dataset"].map(dataset_labels(runs)))
    return found


def _levels(name: str, runs: pd.DataFrame, profile: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Our rows, then the paper's, in Table 3 for the dev sets and again for the test sets; and which cells are bold."""
    splits = {"dev": cells(runs, name)}
    if name == "table3":
        # Only the miniatures' test labels are here; GLUE's server has the others.
        splits["test"] = cells(runs[runs["dataset"].str.startswith("grammar_")], name, "test")
    headings, times = column_labels(runs, "(ours: {})"), _times(name, runs) if name == "table3" else {}
    parts = []
    for split, found in splits.items():
        fixed = {"Split": split} if name == "table3" else {}
        printed = paper_cells(name, split)
        # In the paper's order; a method that it has not, below.
        order = list(dict.fromkeys([*printed, *found]))
        parts.append(_our_rows(name, fixed | {"Source": f"ours ({profile})"}, found, order, headings, times))
        parts.append(_paper_rows(name, fixed, printed, headings))
    levels = pd.concat([pd.DataFrame(rows) for rows, _ in parts], ignore_index=True)
    # A column is what a reader compares, of ours and of the paper's by themselves.
    best = [highest(pd.DataFrame(means, columns=list(headings)).astype(float).T).T for _, means in parts]
    best = pd.concat(best, ignore_index=True).rename(columns=headings)
    return levels, best.reindex(columns=levels.columns).eq(True)


# The rows of a table, and the mean in each of their cells.
_Rows = tuple[list[dict[str, str]], list[dict[str, float]]]


def _our_rows(
    name: str, fixed: dict[str, str], found: Cells, order: list[Arm], headings: dict[str, str], times: dict[Arm, str]
) -> _Rows:
    rows, means = [], []
    for arm in filter(found.__contains__, order):
        row = fixed | {"Method": LABELS[arm[0]], **_settings(name, arm)}
        row |= {heading: _level(found[arm].get(column)) for column, heading in headings.items()}
        rows.append(row | ({TIME: times[arm]} if times else {}))
        means.append({column: float(np.mean(scores)) for column, scores in found[arm].items() if scores})
    return rows, means


def _paper_rows(name: str, fixed: dict[str, str], printed: PaperCells, headings: dict[str, str]) -> _Rows:
    hours = _paper_hours()
    rows, means = [], []
    for arm, columns in printed.items():
        source = "paper, Table 3" if (name, arm[0]) == ("table4", "baseline") else "paper"
        row = fixed | {"Source": source, "Method": arm_label(arm[:1]), **_settings(name, arm)}
        row |= {heading: columns[column]["text"] for column, heading in headings.items()}
        rows.append(row | ({TIME: _paper_time(hours, arm[0])} if name == "table3" else {}))
        means.append({column: cell["mean"] for column, cell in columns.items()})
    return rows, means


def _missing(name: str, runs: pd.DataFrame) -> list[str]:
    summary, labels = _summary(name, runs), dataset_labels(runs)
    return missing_lines(summary, (f"{labels[dataset]}, {arm_label(tuple(arm))}" for dataset, *arm in summary.index))


def _summary(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """`summarize` by data set and arm."""
    return summarize(_by_arm(name, runs), ["dataset", "method", *FIELDS[name]])


def _seconds(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """`seconds` by data set and arm."""
    return seconds(_by_arm(name, runs), ["dataset", "method", *FIELDS[name]])


def _by_arm(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the fields of their arm in place of their own."""
    fields = ["method", *FIELDS[name]]
    arms = pd.DataFrame([arm_of(run, name) for run in runs.to_dict("records")], columns=fields, index=runs.index)
    return runs.drop(columns=fields).join(arms)


def _baseline(name: str, dataset: str, *device: str | int) -> tuple[str | int, ...]:
    """Where the baseline of a data set stands on a device."""
    return (dataset, "baseline", *("" for _ in FIELDS[name]), *device)


def _settings(name: str, arm: Arm) -> dict[str, str]:
    """What a row's columns beside the method say of it; nothing of a method that augments nothing."""
    return {HEADINGS[field]: str(value) for field, value in zip(FIELDS[name], arm[1:], strict=True)}


def _level(values: list[float] | None) -> str:
    """A cell; empty where the grid has none."""
    return "" if values is None else level(np.mean(values) if values else np.nan, pd.Series(values).std(), len(values))


def _times(name: str, runs: pd.DataFrame) -> dict[Arm, str]:
    """Each arm's training time and its ratio to the baseline's, summed over the tasks that both have on one device.

    Where a task was trained on several such devices the one with most runs of the arm counts.
    """
    times, planned = _seconds(name, runs), _summary(name, runs)
    found = {}
    for arm, group in planned.groupby(["method", *FIELDS[name]], sort=False):
        both = []
        for dataset in group.index.get_level_values("dataset"):
            mine = times[times.index.droplevel(["device", "threads"]).isin([(dataset, *arm)])]
            bases = {key[-2:]: times["seconds"].get(_baseline(name, dataset, *key[-2:])) for key in mine.index}
            shared = [key for key in mine.index if bases[key[-2:]] is not None]
            if shared:
                most = max(shared, key=mine["num_runs"].get)
                both.append((mine["seconds"][most], bases[most[-2:]]))
        own, base = np.sum(both, axis=0) if both else (np.nan, np.nan)
        tasks = "" if len(both) == len(group) else f", {len(both)} of {len(group)} tasks"
        found[arm] = f"{duration(own)} ({own / base:.1f}{tasks})" if both else "-"
    return found


def _paper_hours() -> pd.Series:
    """Hours of each method on one V100, all tasks together, as Table 3 prints them."""
    return paper_table("table3").groupby("method")["train_hours_v100"].first()


def _paper_time(hours: pd.Series, method: str) -> str:
    return "" if pd.isna(hours[method]) else f"{hours[method]:.1f} h ({hours[method] / hours['baseline']:.1f})"
