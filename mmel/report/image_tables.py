"""Tables 1, 2 and 5: ResNets on images."""

from collections.abc import Sequence

import pandas as pd

from mmel.methods import LABELS
from mmel.report.aggregate import Contrast, contrast_from_summary, paper_table, sampling_error
from mmel.report.common import (
    BOLD,
    DATASET_LABELS,
    Claim,
    Span,
    Table,
    claim_row,
    claims_frame,
    compare,
    duration,
    highest,
    level,
    missing_lines,
    provenance_notes,
    ratio,
    scale_notes,
    where_trained,
    which_evaluation,
)
from mmel.report.runs import device_label, seconds, summarize, usable

CELL = ["dataset", "model", "method", "num_augmented"]

# The claims of each table, fixed before any run of MMEL: (first method, second method), as section 4.1 argues.
TABLE1_CONTRASTS = (
    ("mmel_h", "baseline_da_uni"),
    ("mmel_s", "baseline_da_uni"),
    ("mmel_h", "baseline_da"),
    ("mmel_s", "baseline_da"),
    ("baseline_da_uni", "baseline_da"),
    ("mmel_h", "baseline_da_long"),
    ("mmel_s", "baseline_da_long"),
)
# As appendix B argues.
TABLE5_CONTRASTS = (("mmel_h", "baseline_da"), ("mmel_s", "baseline_da"), ("mmel_h", "mmel_s"))
TABLE2_K = (2, 5, 10, 20)
TABLE2_CONTRASTS = ((5, 2), (10, 5), (20, 10))


def build(name: str, runs: pd.DataFrame, profile: str) -> Table:
    """Table 1, 2 or 5 of the runs of its grid, see `tables.build`."""
    summary = summarize(runs, CELL)
    paper = _paper(name).set_index(CELL)
    columns = _columns(name, summary)
    levels, means = _levels(name, summary, paper, columns, profile)
    claims = _claims(runs, paper, columns, _pairs(name, columns))
    return Table(
        name=name,
        caption=_caption(name, runs, profile),
        levels=levels,
        best=highest(means),
        contrasts=claims_frame(claims),
        missing=missing_lines(summary, (_cell_label(cell, columns) for cell in summary.index)),
        notes=_notes(runs, summary, profile),
        claims=claims,
    )


def training_time(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The time column of Table 1, 2 or 5, see `tables.training_time`."""
    times = seconds(runs, CELL)
    paper = paper_table("table1").set_index(["dataset", "model", "method"])["train_hours_v100"]
    rows = []
    for (dataset, model, method, k, *device), cell in times.iterrows():
        base = times["seconds"].get((dataset, model, "baseline_da", 1, *device))
        printed = paper.get((dataset, model, method))
        rows.append(
            {
                "Data set": DATASET_LABELS[dataset],
                "Model": model_label(model),
                "Method": LABELS[method],
                "K": k,
                "Device": device_label(*device),
                "n": int(cell["num_runs"]),
                "Training": duration(cell["seconds"]),
                "Ratio to Baseline(DA)": ratio(cell["seconds"], base),
                "Paper, K = 10, V100": "" if printed is None else f"{printed:.1f} h",
                "Paper's ratio": "" if printed is None else f"{printed / paper[(dataset, model, 'baseline_da')]:.1f}",
            }
        )
    return pd.DataFrame(rows)


def claim_tests(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The claims of Table 1 or 2 over all data sets and models, see `tables.claim_tests`."""
    found = usable(runs).groupby(CELL)["score"].apply(list).to_dict()
    cells = dict.fromkeys(zip(runs["dataset"], runs["model"], strict=True))
    columns = _columns(name, summarize(runs, CELL))
    rows = []
    for sides in _pairs(name, columns):
        strata = {
            f"{DATASET_LABELS[dataset]}, {model_label(model)}": tuple(
                found.get((dataset, model, *side), []) for side in sides
            )
            for dataset, model in cells
        }
        rows.append(claim_row(_pair_label(columns, *sides), strata))
    return pd.DataFrame(rows)


def float32_note(runs: pd.DataFrame, checks: pd.DataFrame) -> str:
    """What bf16 changes: each run that was trained in float32 too, beside its cell.

    Args:
        runs: of the table, from `load_runs`.
        checks: the runs of `grids.float32_checks`, likewise.
    """
    done = usable(checks)
    if done.empty:
        return f"Float32 beside bf16: none of {len(checks)} runs yet."
    beside = usable(runs).groupby(CELL)["score"].agg(["mean", "std", "size"])
    lines = []
    for _, check in done.iterrows():
        cell = tuple(check[CELL])
        bf16 = level(*beside.loc[cell]) if cell in beside.index else "no runs yet"
        name = f"{DATASET_LABELS[check['dataset']]}, {model_label(check['model'])}, {LABELS[check['method']]}"
        lines.append(f"{name} {check['score']:.2f} (bf16: {bf16})")
    return f"Float32 beside bf16, seed {done['seed'].iloc[0]}, {len(done)} of {len(checks)} runs: {'; '.join(lines)}."


def seeds(name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Every run of Table 1, 2 or 5, see `tables.seeds`."""
    found = usable(runs)[[*CELL, "seed", "score", "best_score"]]
    return found.rename(columns={"score": "accuracy_pct", "best_score": "best_accuracy_pct"}).reset_index(drop=True)


def model_label(model: str) -> str:
    """`ResNet-20` of `resnet20`, `ResNet-18 (narrow)` of `resnet18_narrow`."""
    depth, _, kind = model.removeprefix("resnet").partition("_")
    return f"ResNet-{depth}" + (f" ({kind})" if kind else "")


def _paper(name: str) -> pd.DataFrame:
    table = paper_table(name).rename(columns={"accuracy_pct": "mean", "std_pct": "std"})
    # Table 5 prints no deviations.
    return table if "std" in table else table.assign(std=float("nan"))


def _columns(name: str, summary: pd.DataFrame) -> dict[tuple[str, int], str]:
    """(method, K) -> heading, in the paper's order."""
    if name != "table2":
        cells = dict.fromkeys((method, k) for _, _, method, k in summary.index)
        return {cell: LABELS[method] for method in LABELS for cell in cells if cell[0] == method}
    cells = [("baseline_da", 1), *((m, k) for k in TABLE2_K for m in ("mmel_h", "mmel_s"))]
    return {cell: _heading(name, *cell) for cell in cells}


def _heading(name: str, method: str, k: int) -> str:
    """`MMEL-H`, or in Table 2, where K differs, `MMEL-H-5`."""
    return f"{LABELS[method]}-{k}" if name == "table2" and method != "baseline_da" else LABELS[method]


def _pairs(name: str, columns: dict[tuple[str, int], str]) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """The contrasts of a table as pairs of (method, K)."""
    if name != "table2":
        k_of = dict(columns.keys())
        contrasts = TABLE1_CONTRASTS if name == "table1" else TABLE5_CONTRASTS
        return [((first, k_of[first]), (second, k_of[second])) for first, second in contrasts]
    growing = [((m, more), (m, less)) for m in ("mmel_h", "mmel_s") for more, less in TABLE2_CONTRASTS]
    return [*growing, *(((m, k), ("baseline_da", 1)) for m in ("mmel_h", "mmel_s") for k in TABLE2_K)]


def _levels(
    name: str, summary: pd.DataFrame, paper: pd.DataFrame, columns: dict[tuple[str, int], str], profile: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Our rows, then the paper's: as they are printed, and the means in them."""
    rows, means = [], []
    for source, cells in ((f"ours ({profile})", summary), ("paper", paper)):
        for (dataset, model), group in cells.groupby(level=["dataset", "model"], sort=False):
            row = {"Source": source, "Data set": DATASET_LABELS[dataset], "Model": model_label(model)}
            # Table 1 has one K a method, ours may be another than the paper's.
            found = {_heading(name, method, k): cell for (_, _, method, k), cell in group.iterrows()}
            # A method of ours that the paper has not has no cell in its rows.
            there = [heading for heading in columns.values() if heading in found]
            printed = {heading: level(*found[heading][["mean", "std", "num_runs"]]) for heading in there}
            rows.append(row | dict.fromkeys(columns.values(), "") | printed)
            means.append(dict.fromkeys((*row, *columns.values())) | {name: found[name]["mean"] for name in there})
    return pd.DataFrame(rows), pd.DataFrame(means).astype(float)


def _claims(
    runs: pd.DataFrame,
    paper: pd.DataFrame,
    columns: dict[tuple[str, int], str],
    pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]],
) -> list[Claim]:
    """One for each data set, model and pair."""
    found = {cell: group["score"].tolist() for cell, group in usable(runs).groupby(CELL, sort=False)}
    claims = []
    for dataset, model in dict.fromkeys(zip(runs["dataset"], runs["model"], strict=True)):
        place = {"Data set": DATASET_LABELS[dataset], "Model": model_label(model)}
        for pair in pairs:
            sides = (found.get((dataset, model, *side)) for side in pair)
            claims.append(
                compare(place, _pair_label(columns, *pair), *sides, _paper_contrast(paper, dataset, model, *pair))
            )
    return claims


def _pair_label(columns: dict[tuple[str, int], str], first: tuple[str, int], second: tuple[str, int]) -> str:
    return f"{columns[first]} − {columns[second]}"


def _paper_contrast(
    paper: pd.DataFrame, dataset: str, model: str, first: tuple[str, int], second: tuple[str, int]
) -> Contrast | Span:
    """The paper's contrast in the same cell, or its range over all cells where it has no such data set or model."""
    # Table 1 has one K a method, ours may be another; Table 2 has them all.
    by_method = paper.droplevel("num_augmented") if paper.index.to_frame()["num_augmented"].max() == 10 else None
    differences = {}
    for cell in dict.fromkeys((d, m) for d, m, _, _ in paper.index):
        keys = [(*cell, *side) for side in (first, second)]
        one, two = (by_method.loc[key[:3]] if by_method is not None else paper.loc[key] for key in keys)
        differences[cell] = contrast_from_summary(one, two)
    if (dataset, model) in differences:
        return differences[dataset, model]
    values = [found.difference for found in differences.values()]
    return Span(min(values), max(values), len(values))


def _cell_label(cell: tuple[str, str, str, int], columns: dict[tuple[str, int], str]) -> str:
    dataset, model, method, k = cell
    return f"{DATASET_LABELS[dataset]}, {model_label(model)}, {columns[method, k]}"


def _caption(name: str, runs: pd.DataFrame, profile: str) -> str:
    done = usable(runs)
    number, bold = name.removeprefix("table"), BOLD.format(among="of a row")
    title = {"1": "five methods", "2": "MMEL with |B(x)| = K", "5": "three methods"}[number]
    if done.empty:
        return f"Table {number} ({title}), profile {profile}: no runs recorded yet. {bold}"
    sizes = "; ".join(
        f"{DATASET_LABELS[dataset]}: {int(group['num_train'].iloc[0]):,} training and "
        f"{int(group['num_eval'].iloc[0]):,} test images, {int(group['epochs'].iloc[0])} epochs"
        for dataset, group in done.groupby("dataset", sort=False)
    )
    return (
        f"Table {number} ({title}), profile {profile}: test accuracy in percent "
        f"{which_evaluation(runs)}, mean ± std (n) over seeds. {bold} {sizes}. {where_trained(runs)}"
    )


def _notes(runs: pd.DataFrame, summary: pd.DataFrame, profile: str) -> list[str]:
    notes = scale_notes(profile)
    known = summary[summary["num_runs"] > 0]
    if not known.empty:
        error = max(sampling_error(cell["mean"], cell["num_eval"]) for _, cell in known.iterrows())
        notes.append(
            f"The finite test set alone gives a level a standard error of up to {error:.1f} points; methods share it, "
            "so a contrast has less."
        )
    for dataset, group in usable(runs[runs["sampled"]]).groupby("dataset", sort=False):
        sizes = group.iloc[0]
        notes.append(
            f"{DATASET_LABELS[dataset]} is here a sample of {int(sizes['num_available'])} training and "
            f"{int(sizes['num_eval'])} validation images: that the pipeline runs is all these figures show; they are "
            "no evidence about the methods."
        )
    unreadable = usable(runs)["num_unreadable"].max()
    if unreadable > 0:
        notes.append(f"Up to {int(unreadable)} images a run could not be decoded and were left out.")
    return notes + provenance_notes(runs, "memory forced smaller BatchNorm batches")
