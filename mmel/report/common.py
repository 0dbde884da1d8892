"""What the image and the text tables share: names, the form of a cell, notes and tests that apply to any run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from mmel.config import GLUE_DATASETS
from mmel.report.aggregate import Contrast, contrast, stratified_permutation_test, usable

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


@dataclass(frozen=True)
class Table:
    """One table of the study.

    Attributes:
        name: as in `grids.TABLES`.
        caption: what it shows, with data set sizes and devices.
        levels: scores, ours and the paper's.
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


def our_contrast(first: list[float] | None, second: list[float] | None) -> dict[str, str]:
    """Our columns of a contrast, from the runs of its two sides (None where none are usable)."""
    if not first or not second:
        return {"Ours [95 %]": "no runs yet", "n": "", "Verdict": ""}
    found = contrast(first, second)
    counts = f"{found.num_first} + {found.num_second}"
    return {"Ours [95 %]": interval(found), "n": counts, "Verdict": found.verdict}


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


def ratio(cell: pd.Series, base: pd.Series) -> str:
    """A training time over the baseline's; `-` where the two are of different devices."""
    if not base["num_runs"] or cell["device"] != base["device"]:
        return "-"
    return f"{cell['train_seconds'] / base['train_seconds']:.1f}"


def duration(seconds: float) -> str:
    """`45 s`, or `1.5 h` from an hour on."""
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def devices(runs: pd.DataFrame) -> str:
    """Every device that the usable runs were trained on."""
    return ", ".join(sorted(set(usable(runs)["device"])))


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
        notes.append(f"Left out because {why_split}: {', '.join(split['run_id'])}.")
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
        f"{name}: {cell['num_runs']} of {cell['num_planned']} runs"
        for name, (_, cell) in zip(label, summary.iterrows(), strict=True)
        if cell["num_runs"] < cell["num_planned"]
    ]
