"""Tables 3, 4 and 6: GLUE, or its miniatures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmel.grids import reported
from mmel.methods import LABELS
from mmel.records import Store
from mmel.report.aggregate import contrast_from_summary, curves, load_runs, paper_table, summarize, usable
from mmel.report.common import Table, claim_row, duration, interval, level, missing_lines, our_contrast, ratio
from mmel.report.text_cells import (
    COLUMNS,
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
    task_of,
)
from mmel.report.text_notes import caption, notes

HEADINGS = {"label_source": "Labels", "fill": "Search", "pair_mode": "Pair", "mask_ratio": "Masked"}
TIME = "Time (ratio to Baseline)"

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


def build(name: str, store: Store, profile: str) -> Table:
    """Table 3, 4 or 6, or Figure 2, see `tables.build`."""
    configs = reported(name, profile)
    runs = load_runs(store, configs)
    if name == "figure2":
        levels, contrasts = curves(store, configs), pd.DataFrame()
        levels.insert(0, "task", levels["dataset"].map(dataset_labels(runs)))
    else:
        levels, contrasts = _levels(name, runs, profile), _contrasts(name, runs)
    return Table(
        name=name,
        caption=caption(name, runs, profile),
        levels=levels,
        contrasts=contrasts,
        missing=_missing(name, runs),
        notes=notes(name, runs, profile),
    )


def training_time(store: Store, name: str, profile: str) -> pd.DataFrame:
    """The times of Table 3, 4 or 6 task by task, see `tables.training_time`."""
    runs = load_runs(store, reported(name, profile))
    summary, labels = _summary(name, runs), dataset_labels(runs)
    hours = _paper_hours()
    rows = []
    for (dataset, *arm), cell in summary[summary["num_runs"] > 0].iterrows():
        rows.append(
            {
                "Task": labels[dataset],
                "Method": LABELS[arm[0]],
                **_settings(name, tuple(arm)),
                "Training": duration(cell["train_seconds"]),
                "Device": cell["device"],
                "Ratio to Baseline": ratio(cell, _baseline(summary, name, dataset)),
                "Paper's ratio, all tasks, V100": f"{hours[arm[0]] / hours['baseline']:.1f}",
            }
        )
    return pd.DataFrame(rows)


def claim_tests(store: Store, name: str, profile: str) -> pd.DataFrame:
    """The claims of Table 3 or 4 over all tasks, see `tables.claim_tests`; of MNLI the matched dev set counts."""
    runs = load_runs(store, reported(name, profile))
    found, labels = cells(runs, name), dataset_labels(runs)
    rows = []
    for first, second in CONTRASTS[name]:
        strata = {
            label: tuple(found.get(arm, {}).get(task_of(dataset), []) for arm in (first, second))
            for dataset, label in labels.items()
        }
        rows.append(claim_row(f"{arm_label(first)} − {arm_label(second)}", strata))
    return pd.DataFrame(rows)


def seeds(store: Store, name: str, profile: str) -> pd.DataFrame:
    """Every run of Table 3, 4 or 6, see `tables.seeds`; columns that no run fills are left out."""
    runs = load_runs(store, reported(name, profile))
    found = usable(runs)
    optional = ["score_mm", "test_score", "test_score_mm", "dropout", "disagreement_pct"]
    filled = [column for column in optional if found[column].notna().any()]
    shown = ["dataset", "model", "method", *FIELDS[name], "seed", "metric", "score", "best_score", *filled]
    found = found[shown].reset_index(drop=True)
    found.insert(0, "task", found["dataset"].map(dataset_labels(runs)))
    return found


def _levels(name: str, runs: pd.DataFrame, profile: str) -> pd.DataFrame:
    """Our rows, then the paper's; in Table 3 for the dev sets and again for the test sets."""
    headings = column_labels(runs, "(ours: {})")
    times, hours = _times(name, runs), _paper_hours()

    def rows(split: str, found: Cells, printed: PaperCells) -> list[dict[str, str]]:
        part = {"Split": split} if name == "table3" else {}
        made = []
        # In the paper's order.
        for arm in filter(found.__contains__, printed):
            row = part | {"Source": f"ours ({profile})", "Method": LABELS[arm[0]], **_settings(name, arm)}
            row |= {heading: _level(found[arm].get(column)) for column, heading in headings.items()}
            made.append(row | ({TIME: times[arm]} if name == "table3" else {}))
        for arm, columns in printed.items():
            source = "paper, Table 3" if (name, arm[0]) == ("table4", "baseline") else "paper"
            row = part | {"Source": source, "Method": arm_label(arm[:1]), **_settings(name, arm)}
            row |= {heading: columns[column]["text"] for column, heading in headings.items()}
            made.append(row | ({TIME: _paper_time(hours, arm[0])} if name == "table3" else {}))
        return made

    made = rows("dev", cells(runs, name), paper_cells(name))
    if name == "table3":
        # Only the miniatures' test labels are here; GLUE's server has the others.
        tested = cells(runs[runs["dataset"].str.startswith("grammar_")], name, "test")
        made += rows("test", tested, paper_cells(name, "test"))
    return pd.DataFrame(made)


def _contrasts(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    ours, paper, labels = cells(runs, name), paper_cells(name), column_labels(runs)
    if name == "table6":
        return _setting_contrasts(ours, paper, labels)
    return _arm_contrasts(CONTRASTS[name], ours, paper, labels)


def _arm_contrasts(
    pairs: Sequence[tuple[Arm, Arm]], ours: Cells, paper: PaperCells, labels: dict[str, str]
) -> pd.DataFrame:
    """One row for each column and pair of arms in the grid: ours with interval and verdict, the paper's beside it."""
    rows = []
    for column in _planned_columns(ours):
        for first, second in pairs:
            if first in ours and second in ours:
                printed = contrast_from_summary(
                    *(paper[arm][column].fillna({"num_runs": 1}) for arm in (first, second))
                )
                rows.append(
                    {
                        "Task": labels[column],
                        "Contrast": f"{arm_label(first)} − {arm_label(second)}",
                        **our_contrast(ours[first].get(column), ours[second].get(column)),
                        "Paper [95 %]": interval(printed),
                    }
                )
    return pd.DataFrame(rows)


def _setting_contrasts(ours: Cells, paper: PaperCells, labels: dict[str, str]) -> pd.DataFrame:
    """What each setting of the augmentation changes, the mean over pairs of rows that differ in it alone.

    One run a row: there is no scatter over seeds, so no interval, and no verdict.
    """
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


def _missing(name: str, runs: pd.DataFrame) -> list[str]:
    summary, labels = _summary(name, runs), dataset_labels(runs)
    return missing_lines(summary, (f"{labels[dataset]}, {arm_label(tuple(arm))}" for dataset, *arm in summary.index))


def _summary(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """`summarize` by data set and arm."""
    fields = ["method", *FIELDS[name]]
    arms = pd.DataFrame([arm_of(run, name) for run in runs.to_dict("records")], columns=fields, index=runs.index)
    return summarize(runs.drop(columns=fields).join(arms), ["dataset", *fields])


def _baseline(summary: pd.DataFrame, name: str, dataset: str) -> pd.Series:
    return summary.loc[(dataset, "baseline", *("" for _ in FIELDS[name]))]


def _settings(name: str, arm: Arm) -> dict[str, str]:
    """What a row's columns beside the method say of it; nothing of a method that augments nothing."""
    return {HEADINGS[field]: str(value) for field, value in zip(FIELDS[name], arm[1:], strict=True)}


def _level(values: list[float] | None) -> str:
    """A cell; empty where the grid has none."""
    return "" if values is None else level(np.mean(values) if values else np.nan, pd.Series(values).std(), len(values))


def _times(name: str, runs: pd.DataFrame) -> dict[Arm, str]:
    """Each arm's training time and its ratio to the baseline's, summed over the tasks that both have on one device."""
    summary = _summary(name, runs)
    found = {}
    for arm, group in summary.groupby(["method", *FIELDS[name]], sort=False):
        both = []
        for (dataset, *_), cell in group.iterrows():
            base = _baseline(summary, name, dataset)
            if ratio(cell, base) != "-":
                both.append((cell["train_seconds"], base["train_seconds"]))
        mine, theirs = np.sum(both, axis=0) if both else (np.nan, np.nan)
        tasks = "" if len(both) == len(group) else f", {len(both)} of {len(group)} tasks"
        found[arm] = f"{duration(mine)} ({mine / theirs:.1f}{tasks})" if both else "-"
    return found


def _paper_hours() -> pd.Series:
    """Hours of each method on one V100, all tasks together, as Table 3 prints them."""
    return paper_table("table3").groupby("method")["train_hours_v100"].first()


def _paper_time(hours: pd.Series, method: str) -> str:
    return "" if pd.isna(hours[method]) else f"{hours[method]:.1f} h ({hours[method] / hours['baseline']:.1f})"
