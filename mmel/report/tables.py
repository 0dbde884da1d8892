"""The study's tables: our cells beside the paper's, and the contrasts that the claims rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from mmel.grids import TABLES
from mmel.methods import LABELS
from mmel.records import Store
from mmel.report.aggregate import (
    Contrast,
    contrast,
    contrast_from_summary,
    load_runs,
    paper_table,
    sampling_error,
    stratified_permutation_test,
    summarize,
    usable,
)

if TYPE_CHECKING:
    from IPython.display import HTML

CELL = ["dataset", "model", "method", "num_augmented"]
DATASET_LABELS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "Digits"}

# The claims of each table, fixed before any run: (first method, second method), as the text of section 4.1 argues.
TABLE1_CONTRASTS = (
    ("mmel_h", "baseline_da_uni"),
    ("mmel_s", "baseline_da_uni"),
    ("mmel_h", "baseline_da"),
    ("mmel_s", "baseline_da"),
    ("baseline_da_uni", "baseline_da"),
    ("mmel_h", "baseline_da_long"),
    ("mmel_s", "baseline_da_long"),
)
TABLE2_K = (2, 5, 10, 20)
TABLE2_CONTRASTS = ((5, 2), (10, 5), (20, 10))


@dataclass(frozen=True)
class Table:
    """One table of the study.

    Attributes:
        name: as in `grids.TABLES`.
        caption: what it shows, with data set sizes and devices.
        levels: accuracies, ours and the paper's.
        contrasts: the claims, ours and the paper's, with their intervals.
        missing: one line for each cell that lacks runs; empty when the grid is complete.
        notes: what a reader must know to read it.
    """

    name: str
    caption: str
    levels: pd.DataFrame
    contrasts: pd.DataFrame
    missing: list[str]
    notes: list[str]


def build(name: str, store: Store, profile: str) -> Table:
    """Build a table from what is recorded.

    Args:
        name: `table1` or `table2`.
        store: where the records are.
        profile: whose runs.
    """
    runs = load_runs(store, [run for run in TABLES[name](profile) if not run.holdout])
    summary = summarize(runs, CELL)
    paper = paper_table(name).set_index(CELL)
    columns = _columns(name, summary)
    levels = pd.concat([_our_levels(summary, columns, profile), _paper_levels(paper, name)])
    pairs = _pairs(name, columns)
    return Table(
        name=name,
        caption=_caption(name, runs, profile),
        levels=levels,
        contrasts=_contrasts(runs, paper, columns, pairs),
        missing=_missing(summary, columns),
        notes=_notes(runs, summary, profile),
    )


def training_time(store: Store, name: str, profile: str) -> pd.DataFrame:
    """A table's time column: the median over runs, and its ratio to Baseline(DA) on the same device.

    Returns:
        One row for each data set, model, method and K with a recorded run; beside it the time that the paper's Table 1
        prints for the method (K = 10, one V100).
    """
    runs = load_runs(store, [run for run in TABLES[name](profile) if not run.holdout])
    summary = summarize(runs, CELL)
    paper = paper_table("table1").set_index(["dataset", "model", "method"])["train_hours_v100"]
    rows = []
    for (dataset, model, method, k), cell in summary[summary["num_runs"] > 0].iterrows():
        base = summary.xs((dataset, model, "baseline_da"), level=("dataset", "model", "method")).iloc[0]
        printed = paper.get((dataset, model, method))
        rows.append(
            {
                "Data set": DATASET_LABELS[dataset],
                "Model": _model_label(model),
                "Method": LABELS[method],
                "K": k,
                "Training": _duration(cell["train_seconds"]),
                "Device": cell["device"],
                "Ratio to Baseline(DA)": _ratio(cell, base),
                "Paper, K = 10, V100": "" if printed is None else f"{printed:.1f} h",
                "Paper's ratio": "" if printed is None else f"{printed / paper[(dataset, model, 'baseline_da')]:.1f}",
            }
        )
    return pd.DataFrame(rows)


def claim_tests(store: Store, profile: str) -> pd.DataFrame:
    """Each contrast of Table 1 over all data sets and models at once: mean difference and one permutation test."""
    runs = usable(load_runs(store, [run for run in TABLES["table1"](profile) if not run.holdout]))
    rows = []
    for first, second in TABLE1_CONTRASTS:
        strata = []
        for _, group in runs.groupby(["dataset", "model"], sort=False):
            a = group.loc[group["method"] == first, "accuracy_pct"].tolist()
            b = group.loc[group["method"] == second, "accuracy_pct"].tolist()
            # One run a side has nothing to permute that says anything.
            if len(a) > 1 and len(b) > 1:
                strata.append((a, b))
        if strata:
            mean = sum(contrast(a, b).difference for a, b in strata) / len(strata)
            rows.append(
                {
                    "Contrast": f"{LABELS[first]} − {LABELS[second]}",
                    "Strata": len(strata),
                    "Runs": sum(len(a) + len(b) for a, b in strata),
                    "Mean difference": f"{mean:+.2f}",
                    "p (two-sided)": f"{stratified_permutation_test(strata):.3f}",
                }
            )
    return pd.DataFrame(rows)


def seeds(store: Store, name: str, profile: str) -> pd.DataFrame:
    """Every run that the table averages, by itself: what the figures draw."""
    runs = load_runs(store, [run for run in TABLES[name](profile) if not run.holdout])
    return usable(runs)[[*CELL, "seed", "accuracy_pct", "best_accuracy_pct"]].reset_index(drop=True)


def _columns(name: str, summary: pd.DataFrame) -> dict[tuple[str, int], str]:
    """(method, K) -> heading, in the paper's order."""
    if name == "table1":
        cells = dict.fromkeys((method, k) for _, _, method, k in summary.index)
        return {cell: LABELS[method] for method in LABELS for cell in cells if cell[0] == method}
    headings = {("baseline_da", 1): LABELS["baseline_da"]}
    return headings | {(m, k): f"{LABELS[m]}-{k}" for k in TABLE2_K for m in ("mmel_h", "mmel_s")}


def _pairs(name: str, columns: dict[tuple[str, int], str]) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """The contrasts of a table as pairs of (method, K)."""
    if name == "table1":
        k_of = dict(columns.keys())
        return [((first, k_of[first]), (second, k_of[second])) for first, second in TABLE1_CONTRASTS]
    growing = [((m, more), (m, less)) for m in ("mmel_h", "mmel_s") for more, less in TABLE2_CONTRASTS]
    return [*growing, *(((m, k), ("baseline_da", 1)) for m in ("mmel_h", "mmel_s") for k in TABLE2_K)]


def _our_levels(summary: pd.DataFrame, columns: dict[tuple[str, int], str], profile: str) -> pd.DataFrame:
    rows = []
    for dataset, model in dict.fromkeys((d, m) for d, m, _, _ in summary.index):
        row = {"Source": f"ours ({profile})", "Data set": DATASET_LABELS[dataset], "Model": _model_label(model)}
        for (method, k), heading in columns.items():
            cell = summary.loc[(dataset, model, method, k)]
            row[heading] = _level(cell["mean"], cell["std"], cell["num_runs"])
        rows.append(row)
    return pd.DataFrame(rows)


def _paper_levels(paper: pd.DataFrame, name: str) -> pd.DataFrame:
    rows = []
    for (dataset, model), group in paper.groupby(level=["dataset", "model"], sort=False):
        row = {"Source": "paper", "Data set": DATASET_LABELS[dataset], "Model": _model_label(model)}
        for (_, _, method, k), cell in group.iterrows():
            heading = f"{LABELS[method]}-{k}" if name == "table2" and method != "baseline_da" else LABELS[method]
            row[heading] = _level(cell["accuracy_pct"], cell["std_pct"], cell["num_runs"])
        rows.append(row)
    return pd.DataFrame(rows)


def _contrasts(
    runs: pd.DataFrame,
    paper: pd.DataFrame,
    columns: dict[tuple[str, int], str],
    pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]],
) -> pd.DataFrame:
    """One row for each data set, model and pair: ours with interval and verdict, the paper's beside it."""
    found = {cell: group["accuracy_pct"].tolist() for cell, group in usable(runs).groupby(CELL, sort=False)}
    rows = []
    for dataset, model in dict.fromkeys(zip(runs["dataset"], runs["model"], strict=True)):
        for (first, k1), (second, k2) in pairs:
            ours = None
            a, b = found.get((dataset, model, first, k1)), found.get((dataset, model, second, k2))
            if a and b:
                ours = contrast(a, b)
            rows.append(
                {
                    "Data set": DATASET_LABELS[dataset],
                    "Model": _model_label(model),
                    "Contrast": f"{columns[first, k1]} − {columns[second, k2]}",
                    "Ours [95 %]": "no runs yet" if ours is None else _interval(ours),
                    "n": "" if ours is None else f"{ours.num_first} + {ours.num_second}",
                    "Verdict": "" if ours is None else ours.verdict,
                    "Paper [95 %]": _paper_contrast(paper, dataset, model, (first, k1), (second, k2)),
                }
            )
    return pd.DataFrame(rows)


def _paper_contrast(
    paper: pd.DataFrame, dataset: str, model: str, first: tuple[str, int], second: tuple[str, int]
) -> str:
    """The paper's contrast in the same cell, or its range over all cells where it has no such data set or model."""
    # Table 1 has one K a method, ours may be another; Table 2 has them all.
    by_method = paper.droplevel("num_augmented") if paper.index.to_frame()["num_augmented"].max() == 10 else None
    differences = {}
    for cell in dict.fromkeys((d, m) for d, m, _, _ in paper.index):
        keys = [(*cell, *side) for side in (first, second)]
        one, two = (by_method.loc[key[:3]] if by_method is not None else paper.loc[key] for key in keys)
        differences[cell] = contrast_from_summary(one, two)
    if (dataset, model) in differences:
        return _interval(differences[dataset, model])
    values = [found.difference for found in differences.values()]
    return f"{min(values):+.2f} to {max(values):+.2f} over {len(values)} cells"


def _missing(summary: pd.DataFrame, columns: dict[tuple[str, int], str]) -> list[str]:
    lacking = summary[summary["num_runs"] < summary["num_planned"]]
    return [
        f"{DATASET_LABELS[dataset]}, {_model_label(model)}, {columns[method, k]}: "
        f"{cell['num_runs']} of {cell['num_planned']} runs"
        for (dataset, model, method, k), cell in lacking.iterrows()
    ]


def _caption(name: str, runs: pd.DataFrame, profile: str) -> str:
    done = usable(runs)
    number = name.removeprefix("table")
    title = {"1": "five methods", "2": "MMEL with |B(x)| = K"}[number]
    if done.empty:
        return f"Table {number} ({title}), profile {profile}: no runs recorded yet."
    sizes = "; ".join(
        f"{DATASET_LABELS[dataset]}: {int(group['num_train'].iloc[0]):,} training and "
        f"{int(group['num_eval'].iloc[0]):,} test images, {int(group['epochs'].iloc[0])} epochs"
        for dataset, group in done.groupby("dataset", sort=False)
    )
    devices = ", ".join(sorted(set(done["device"])))
    return (
        f"Table {number} ({title}), profile {profile}: test accuracy in percent after the last epoch, "
        f"mean ± std (n) over seeds. {sizes}. Trained on {devices}."
    )


def _notes(runs: pd.DataFrame, summary: pd.DataFrame, profile: str) -> list[str]:
    notes = []
    if profile != "paper":
        notes.append(
            f"Profile `{profile}` is scaled down: its levels are not the paper's experiment and are not compared with "
            "the paper's levels. Only contrasts stand beside contrasts."
        )
    known = summary[summary["num_runs"] > 0]
    if not known.empty:
        error = max(sampling_error(cell["mean"], cell["num_eval"]) for _, cell in known.iterrows())
        notes.append(
            f"The finite test set alone gives a level a standard error of up to {error:.1f} points; methods share it, "
            "so a contrast has less."
        )
    failed = runs[runs["status"] == "failed"]
    if not failed.empty:
        notes.append(f"Failed and left out: {', '.join(failed['run_id'])}.")
    split = runs[runs["split_for_memory"]]
    if not split.empty:
        notes.append(f"Left out because memory forced smaller BatchNorm batches: {', '.join(split['run_id'])}.")
    if bool((usable(runs)["dirty"] == True).any()):  # noqa: E712  the column also holds None
        notes.append("Some runs were made by code with uncommitted changes.")
    return notes


def _level(mean: float, std: float, num_runs: float) -> str:
    if not num_runs:
        return "-"
    spread = "" if pd.isna(std) else f" ± {std:.2f}"
    return f"{mean:.2f}{spread} ({int(num_runs)})"


def _interval(found: Contrast) -> str:
    bounds = "" if pd.isna(found.low) else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.difference:+.2f}{bounds}"


def _ratio(cell: pd.Series, base: pd.Series) -> str:
    if not base["num_runs"] or cell["device"] != base["device"]:
        return "-"
    return f"{cell['train_seconds'] / base['train_seconds']:.1f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _model_label(model: str) -> str:
    return "ResNet-" + model.removeprefix("resnet")


def show(frame: pd.DataFrame) -> HTML:
    """A table for a notebook: no index, the same bytes at every execution."""
    from IPython.display import HTML

    if frame.empty:
        return HTML("<p>Nothing recorded yet that this could be computed from.</p>")
    return HTML(frame.to_html(index=False, border=0, na_rep=""))
