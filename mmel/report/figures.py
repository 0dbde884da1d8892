"""The study's figures, with matplotlib; each draws numbers it is given. Those of texts alone are in `text_figures`."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax

from mmel.methods import LABELS
from mmel.report.aggregate import Contrast
from mmel.report.common import DATASET_LABELS, METRIC_LABELS, Claim, Span
from mmel.report.image_tables import model_label

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLORS = {
    "baseline": "#7f7f7f",
    "baseline_da": "#7f7f7f",
    "baseline_da_long": "#56b4e9",
    "baseline_da_uni": "#0072b2",
    "mmel_h": "#d55e00",
    "mmel_s": "#009e73",
}
STYLE = {
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "font.size": 9,
}
COLUMNS = 4
VERDICT_COLORS = {"holds": "#0072b2", "undecided": "#7f7f7f", "contradicted": "#d55e00"}
PAPER_COLOR = "#b9a06a"


def methods_figure(runs: pd.DataFrame) -> Figure:
    """Score of each method side by side: every seed a dot, the mean a bar across; one panel a model or task.

    Args:
        runs: from `tables.seeds` of Table 1 or 3.
    """
    with plt.rc_context(STYLE):
        figure, cells = panels(runs)
        for axis, group in cells:
            methods = [method for method in LABELS if (group["method"] == method).any()]
            for place, method in enumerate(methods):
                values = group.loc[group["method"] == method, _score(runs)].to_numpy()
                spread = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else np.zeros(1)
                axis.scatter(place + spread, values, s=22, color=COLORS[method], alpha=0.75, zorder=3)
                axis.hlines(values.mean(), place - 0.3, place + 0.3, color=COLORS[method], lw=2)
            axis.set_xticks(range(len(methods)), [_two_lines(LABELS[m]) for m in methods], fontsize=7)
            axis.set_xlim(-0.6, len(methods) - 0.4)
            axis.grid(axis="x", visible=False)
        plt.close(figure)
    return figure


def over_k_figure(runs: pd.DataFrame) -> Figure:
    """Accuracy over K for MMEL-H and MMEL-S beside Baseline(DA): mean line, every seed a dot; one panel a model.

    Args:
        runs: from `tables.seeds("table2")`.
    """
    with plt.rc_context(STYLE):
        figure, cells = panels(runs)
        for axis, group in cells:
            baseline = group.loc[group["method"] == "baseline_da", "accuracy_pct"]
            if len(baseline):
                axis.axhline(baseline.mean(), color=COLORS["baseline_da"], ls="--", lw=1.2, label=LABELS["baseline_da"])
            for method in ("mmel_h", "mmel_s"):
                mine = group[group["method"] == method]
                if mine.empty:
                    continue
                means = mine.groupby("num_augmented")["accuracy_pct"].mean()
                axis.plot(means.index, means, "-", color=COLORS[method], lw=1.6, label=LABELS[method])
                axis.scatter(mine["num_augmented"], mine["accuracy_pct"], s=18, color=COLORS[method], alpha=0.6)
            axis.set_xscale("log")
            ticks = sorted(set(group["num_augmented"]) - {1})
            axis.set_xticks(ticks, [str(k) for k in ticks])
            axis.minorticks_off()
            axis.set_xlabel("K = |B(x)|")
            axis.legend(fontsize=8)
        plt.close(figure)
    return figure


def contrasts_figure(claims: Sequence[Claim]) -> Figure:
    """The contrasts with their 95 % intervals, ours beside the paper's: a row a contrast, a panel a model or task.

    The colour of ours is its verdict. Without an interval a dot stands alone; where the paper has no such model, the
    range over its cells is a line without a dot. Models and tasks without a run of ours are left out.

    Args:
        claims: of `tables.build`, Tables 1 to 4.
    """
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(", ".join(claim.place.values()), []).append(claim)
    groups = {name: group for name, group in groups.items() if any(claim.ours for claim in group)}
    count = max(len(groups), 1)
    columns = min(count, 2)
    rows = -(-count // columns)
    longest = max(map(len, groups.values()), default=4)
    with plt.rc_context(STYLE):
        size = (1.6 + 3.6 * columns, rows * (0.75 + 0.3 * longest) + 0.35)
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        for axis in axes.flat[count:]:
            axis.remove()
        if not groups:
            axes[0, 0].text(0.5, 0.5, "no runs yet", transform=axes[0, 0].transAxes, ha="center")
        for axis, (name, group) in zip(axes.flat, groups.items(), strict=False):
            axis.axvline(0, color="#1d2125", lw=0.8)
            for place, claim in enumerate(group):
                if claim.ours:
                    color = VERDICT_COLORS[claim.ours.verdict]
                    _interval(axis, claim.ours, place - 0.15, color, "o", f"ours: {claim.ours.verdict}")
                _interval(axis, claim.paper, place + 0.2, PAPER_COLOR, "D", "paper")
            axis.set_yticks(range(len(group)), [claim.label for claim in group], fontsize=8)
            axis.set_ylim(len(group) - 0.4, -0.6)
            axis.grid(axis="y", visible=False)
            axis.set_title(name)
            axis.set_xlabel("difference (points)")
        shared_legend(figure, [*(f"ours: {verdict}" for verdict in VERDICT_COLORS), "paper"])
        plt.close(figure)
    return figure


def training_curve(epochs: Sequence[dict]) -> Figure:
    """Loss, score and the spread of P* over a run's epochs.

    Args:
        epochs: what `mmel.train.train` yields.
    """
    lines = pd.DataFrame(epochs)
    metric = next(column for column in lines if column in METRIC_LABELS)
    panels = (
        ("train_loss", "training loss"),
        (metric, METRIC_LABELS[metric]),
        ("weight_max", "largest weight of P*"),
    )
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
        for axis, (column, label) in zip(axes, panels, strict=True):
            axis.plot(lines["epoch"], lines[column], color="#0072b2")
            axis.set_xlabel("epoch")
            axis.set_title(label)
        plt.close(figure)
    return figure


def weighted_views(views: np.ndarray, weights: np.ndarray) -> Figure:
    """The views of one image in a row, each with its weight under P*; the original first.

    Args:
        views: (K, H, W, C) uint8.
        weights: (K,) summing to one; NaN for a view that has none.
    """
    k = len(views)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, k, figsize=(1.05 * k, 1.5), squeeze=False, layout="constrained")
        for place, (axis, view, weight) in enumerate(zip(axes[0], views, weights, strict=True)):
            axis.imshow(view.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
            axis.set_title("x" if place == 0 else f"z{place}", fontsize=8, pad=2)
            shown = "" if np.isnan(weight) else f"{weight:.3f}"
            axis.text(0.5, -0.06, shown, transform=axis.transAxes, ha="center", va="top", fontsize=8)
        plt.close(figure)
    return figure


def weights_over_lambda(losses: np.ndarray, lambdas: Sequence[float]) -> Figure:
    """P* (Eq. 6) of one example's losses for several lambda_P, one group of bars each.

    Args:
        losses: (K,) losses of the samples.
        lambdas: values of lambda_P.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
        width = 0.8 / len(lambdas)
        shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(lambdas)))
        for place, (value, shade) in enumerate(zip(lambdas, shades, strict=True)):
            weights = softmax(losses / value)
            left = np.arange(len(losses)) + (place - (len(lambdas) - 1) / 2) * width
            axis.bar(left, weights, width, color=shade, label=f"$\\lambda_P$ = {value:g}")
        axis.axhline(1 / len(losses), color="#7f7f7f", ls="--", lw=1)
        axis.set_xticks(range(len(losses)), [f"loss {value:g}" for value in losses.round(3)])
        axis.set_ylabel("weight P*")
        axis.grid(axis="x", visible=False)
        axis.legend(fontsize=8)
        plt.close(figure)
    return figure


def panels(runs: pd.DataFrame, *, across: bool = False) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with one titled panel for each data set and model, four in a row, and the runs that go into each.

    Args:
        runs: with `dataset` and `model`, or of texts with `task` and `metric`.
        across: whether the score runs from left to right, in place of upwards.
    """
    is_text = "task" in runs
    groups = list(runs.groupby(["task", "metric"] if is_text else ["dataset", "model"], sort=False))
    count = max(len(groups), 1)
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    size = (1.2 + (3.2 if is_text else 3.4) * columns, (2.6 if is_text else 3.2) * rows + 0.4 * is_text)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08)
    for axis in axes.flat[count:]:
        axis.remove()
    if not groups:
        axes[0, 0].text(0.5, 0.5, "no runs yet", transform=axes[0, 0].transAxes, ha="center")
    if not is_text:
        for axis in axes[:, 0]:
            axis.set_ylabel("test accuracy (%)")
    found = []
    for axis, ((name, kind), group) in zip(axes.flat, groups, strict=False):
        axis.set_title(name if is_text else f"{DATASET_LABELS[name]}, {model_label(kind)}")
        if is_text:
            (axis.set_xlabel if across else axis.set_ylabel)(f"dev {METRIC_LABELS[kind]}")
        found.append((axis, group))
    return figure, found


def shared_legend(figure: Figure, order: Sequence[str] = tuple(LABELS.values())) -> None:
    """One legend above all panels.

    Args:
        figure: whose lines and dots have labels.
        order: of the labels.
    """
    found = {
        label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    ordered = [label for label in order if label in found]
    if ordered:
        figure.legend([found[label] for label in ordered], ordered, loc="outside upper center", ncols=len(ordered))


def _interval(axis: Axes, found: Contrast | Span, height: float, color: str, marker: str, label: str) -> None:
    """An interval as a line, the difference as a dot on it."""
    if not np.isnan(found.low):
        axis.hlines(height, found.low, found.high, color=color, lw=1.6, label=label)
    if isinstance(found, Contrast):
        axis.plot(found.difference, height, marker, color=color, ms=4.5, label=label)


def _score(runs: pd.DataFrame) -> str:
    return "score" if "score" in runs else "accuracy_pct"


def _two_lines(label: str) -> str:
    return label.replace("(", "\n(")
