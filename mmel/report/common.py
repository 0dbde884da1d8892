"""What the image and the text tables share: names, the form of a cell, notes and tests that apply to any run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from mmel.config import GLUE_DATASETS
from mmel.report.aggregate import Contrast, contrast, stratified_permutation_test
from mmel.report.runs import usable

_GLUE_LABELS = dict(zip(GLUE_DATASETS, ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE"), strict=True))
DATASET_LABELS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "digits": "Digits",
    "imagenet": "ImageNet",
    "imagenette": "Imagenette",
    "drawings": "Drawings",
    **_GLUE_LABELS,
    **{f"grammar_{name}": f"{label} (miniature)" for name, label in _GLUE_LABELS.items()},
}
METRIC_LABELS = {
    "accuracy_pct": "accuracy (%)",
    "matthews_pct": "Matthews corr. (%)",
    "spearman_pct": "Spearman corr. (%)",
}
BOLD = "Bold is the highest mean {among}, which is no claim."


@dataclass(frozen=True)
class Span:
    """The range of the paper's contrast over its cells, where it has not the one that is asked for.

    Attributes:
        low: the least.
        high: the greatest.
        num_cells: over how many.
    """

    low: float
    high: float
    num_cells: int


@dataclass(frozen=True)
class Claim:
    """One contrast in numbers, ours and the paper's: what the table of contrasts prints and their figure draws.

    Attributes:
        place: heading -> data set and model, or task.
        label: `MMEL-H − Baseline(DA)`.
        ours: None where a side has no usable run.
        paper: of the same cell, or over all of its cells.
    """

    place: dict[str, str]
    label: str
    ours: Contrast | None
    paper: Contrast | Span


@dataclass(frozen=True)
class Table:
    """One table of the study.

    Attributes:
        name: as in `grids.TABLES`.
        caption: what it shows, with data set sizes and devices.
        levels: scores, ours and the paper's.
        best: of the same shape, whether a cell is to be set in bold.
        contrasts: the claims, ours and the paper's, with their intervals.
        missing: one line for each cell that lacks runs; empty when the grid is complete.
        notes: what a reader must know to read it.
        claims: the contrasts in numbers; empty where they have no interval by construction.
    """

    name: str
    caption: str
    levels: pd.DataFrame
    best: pd.DataFrame
    contrasts: pd.DataFrame
    missing: list[str]
    notes: list[str]
    claims: list[Claim] = field(default_factory=list)


def level(mean: float, std: float, num_runs: float) -> str:
    """`92.53 ± 0.10 (5)`; without a deviation of one run, and `-` of none."""
    if not num_runs:
        return "-"
    spread = "" if pd.isna(std) else f" ± {std:.2f}"
    return f"{mean:.2f}{spread} ({int(num_runs)})"


def interval(found: Contrast) -> str:
    """`+0.63 [+0.48, +0.78]`; the difference alone where there is no interval."""
    bounds = "" if pd.isna(found.low) else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.difference:+.2f}{bounds}"


def compare(
    place: dict[str, str],
    label: str,
    first: list[float] | None,
    second: list[float] | None,
    paper: Contrast | Span,
) -> Claim:
    """A claim from the runs of its two sides (None, or empty, where none are usable) and the paper's contrast."""
    return Claim(place, label, contrast(first, second) if first and second else None, paper)


def claims_frame(claims: Iterable[Claim]) -> pd.DataFrame:
    """One row a claim: ours with interval and verdict, the paper's beside it."""
    rows = []
    for each in claims:
        ours, paper = each.ours, each.paper
        rows.append(
            {
                **each.place,
                "Contrast": each.label,
                "Ours [95 %]": interval(ours) if ours else "no runs yet",
                "n": f"{ours.num_first} + {ours.num_second}" if ours else "",
                "Verdict": ours.verdict if ours else "",
                "Paper [95 %]": interval(paper) if isinstance(paper, Contrast) else _span(paper),
            }
        )
    return pd.DataFrame(rows)


def _span(paper: Span) -> str:
    return f"{paper.low:+.2f} to {paper.high:+.2f} over {paper.num_cells} cells"


def highest(means: pd.DataFrame) -> pd.DataFrame:
    """Where the highest number of a row is, all of them where several print alike; nowhere in a row with one number."""
    # What prints alike is alike.
    printed = means.round(2)
    compared = (printed.notna().sum(axis="columns") > 1).to_numpy()
    return printed.eq(printed.max(axis="columns"), axis="index") & compared[:, None]


def claim_row(claim: str, strata: Mapping[str, tuple[list[float], list[float]]]) -> dict[str, object]:
    """One claim over several models or tasks: mean difference and one permutation test.

    Args:
        claim: its name.
        strata: label of a model or task -> runs of the first and of the second side.

    Returns:
        A row; `Left out` has the strata with fewer than two runs on a side, in which there is nothing to permute. Where
        no other is left the claim cannot be tested yet.
    """
    tested = [sides for sides in strata.values() if min(map(len, sides)) > 1]
    lacking: dict[str, list[str]] = {}
    for label, (first, second) in strata.items():
        if min(len(first), len(second)) < 2:
            lacking.setdefault(f"{len(first)} + {len(second)} runs", []).append(label)
    row = {
        "Contrast": claim,
        "Strata": len(tested),
        "Runs": sum(len(first) + len(second) for first, second in tested),
        "Mean difference": "-",
        "p (two-sided)": "-",
        "Left out, under 2 runs a side": "; ".join(f"{' / '.join(names)}: {runs}" for runs, names in lacking.items()),
    }
    if tested:
        mean = sum(contrast(*sides).difference for sides in tested) / len(tested)
        p = stratified_permutation_test(tested)
        row |= {"Mean difference": f"{mean:+.2f}", "p (two-sided)": f"{p:.3f}" if p >= 0.0005 else "< 0.001"}
    return row


def ratio(mine: float, base: float | None) -> str:
    """A training time over the baseline's on the same device; `-` where the baseline was not trained there."""
    return "-" if base is None else f"{mine / base:.1f}"


def duration(seconds: float) -> str:
    """`45 s`, or `1.5 h` from an hour on."""
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def where_trained(runs: pd.DataFrame) -> str:
    """`Trained on AMD EPYC (1 thread), Intel Xeon (1 or 2 threads).`: every device of the usable runs."""
    parts = []
    for name, group in usable(runs).groupby("device"):
        threads = sorted(set(group["threads"]) - {0})
        counts = " or ".join(map(str, threads))
        parts.append(name + (f" ({counts} thread{'s' if threads != [1] else ''})" if threads else ""))
    return f"Trained on {', '.join(parts)}."


def which_evaluation(runs: pd.DataFrame) -> str:
    """What of a run its score is."""
    if set(runs["select"]) == {"best"}:
        return "at the best epoch, chosen on these very data and so an optimistic figure"
    return "after the last epoch"


def scale_notes(profile: str) -> list[str]:
    """That a profile is not the paper's experiment, unless it is."""
    if profile == "paper":
        return []
    return [
        f"Profile `{profile}` is scaled down: its levels are not the paper's experiment and are not compared with "
        "the paper's levels. Only contrasts stand beside contrasts."
    ]


def provenance_notes(runs: pd.DataFrame, why_split: str) -> list[str]:
    """What was left out and why, and whether the code was committed.

    Args:
        runs: from `load_runs`.
        why_split: what is wrong with runs whose batches were split for memory.
    """
    notes = []
    failed = runs[runs["status"] == "failed"]
    if not failed.empty:
        notes.append(f"Failed and left out: {', '.join(failed['run_id'])}.")
    split = runs[runs["split_for_memory"]]
    if not split.empty:
        kept = "Included, although" if split["usable"].all() else "Left out because"
        notes.append(f"{kept} {why_split}: {', '.join(split['run_id'])}.")
    if bool((usable(runs)["dirty"] == True).any()):  # noqa: E712  the column also holds None
        notes.append("Some runs were made by code with uncommitted changes.")
    return notes


def missing_lines(summary: pd.DataFrame, label: Iterable[str]) -> list[str]:
    """One line for each cell of a summary that has fewer usable runs than planned.

    Args:
        summary: with `num_runs` and `num_planned`, from `summarize`.
        label: of each of its rows.
    """
    return [
        f"{name}: {found} of {planned} runs"
        for name, found, planned in zip(label, summary["num_runs"], summary["num_planned"], strict=True)
        if found < planned
    ]
