"""The study's figures, with matplotlib; each draws the numbers it is given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax

from mmel.study.datasets import DATASETS, GLUE
from mmel.study.methods import METHODS
from mmel.study.report import frames
from mmel.study.report.frames import RecordedTable
from mmel.study.report.layout import METHOD_LABELS, METRIC_LABELS
from mmel.study.report.runs import finished
from mmel.study.report.tables import VERDICTS, labels

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
VERDICT_COLORS = {"holds": "#0072b2", "undecided": "#7f7f7f", "contradicted": "#d55e00"}
PAPER_COLOR = "#b9a06a"


def methods_figure(table: RecordedTable) -> Figure:
    """Score of each method side by side: every seed a dot, the mean a bar across; one panel per model or task."""
    with _panels(table, finished(table.runs)) as (figure, panels):
        for axis, group in panels:
            methods = [method for method in METHODS if (group["method"] == method).any()]
            for index, method in enumerate(methods):
                values = group.loc[group["method"] == method, "score"].to_numpy()
                spread = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else np.zeros(1)
                axis.scatter(index + spread, values, s=22, color=METHODS[method].colour, alpha=0.75, zorder=3)
                axis.hlines(values.mean(), index - 0.3, index + 0.3, color=METHODS[method].colour, lw=2)
            axis.set_xticks(range(len(methods)), [METHOD_LABELS[m].replace("(", "\n(") for m in methods], fontsize=7)
            axis.set_xlim(-0.6, len(methods) - 0.4)
            axis.grid(axis="x", visible=False)
    return figure


def over_k_figure(table: RecordedTable) -> Figure:
    """Accuracy over K for MMEL-H and MMEL-S beside Baseline(DA): mean line, every seed a dot; one panel per model."""
    with _panels(table, finished(table.runs)) as (figure, panels):
        for axis, group in panels:
            for method, mine in group.groupby("method", sort=False):
                means = mine.groupby("num_augmented")["score"].mean()
                if method == "baseline_da":
                    axis.axhline(means[1], ls="--", lw=1.2, **_named(method))
                    continue
                axis.plot(means.index, means, "-", lw=1.6, **_named(method))
                axis.scatter(mine["num_augmented"], mine["score"], s=18, color=METHODS[method].colour, alpha=0.6)
            axis.set_xscale("log")
            ticks = sorted(set(group["num_augmented"]) - {1})
            axis.set_xticks(ticks, [str(k) for k in ticks])
            axis.minorticks_off()
            axis.set_xlabel("K = |B(x)|")
        _legend(figure, METHOD_LABELS.values())
    return figure


def settings_figure(table: RecordedTable) -> Figure:
    """Scores of MMEL-H and MMEL-S for each way of making augmented texts, every run a dot; one panel per task.

    A dashed line is the baseline's mean.
    """
    with _panels(table, finished(table.runs), across=True) as (figure, panels):
        for axis, group in panels:
            varied = group[group["method"] != "baseline"]
            named = varied[list(table.spec.settings)].astype(str).agg(", ".join, axis="columns")
            settings = list(dict.fromkeys(named))
            if len(varied) < len(group):
                mean = group.loc[group["method"] == "baseline", "score"].mean()
                axis.axvline(mean, ls="--", lw=1.2, **_named("baseline"))
            for method, shift in (("mmel_h", -0.12), ("mmel_s", 0.12)):
                mine = varied["method"] == method
                heights = [settings.index(name) + shift for name in named[mine]]
                axis.scatter(varied.loc[mine, "score"], heights, s=26, alpha=0.8, zorder=3, **_named(method))
            axis.set_yticks(range(len(settings)), settings)
            axis.set_ylim(len(settings) - 0.5, -0.5)
            axis.grid(axis="y", visible=False)
        _legend(figure, METHOD_LABELS.values())
    return figure


def curves_figure(table: RecordedTable) -> Figure:
    """The dev score over training, as Figure 2: a line per method, a band from its lowest to its highest seed.

    Tasks without runs are named below the panels.
    """
    found = frames.curves(table)
    drawn = set(found["place"])
    absent = ", ".join(DATASETS[name].label for name in GLUE if name not in drawn)
    with _panels(table, found) as (figure, panels):
        for axis, group in panels:
            for method, line in group.groupby("method", sort=False):
                axis.plot(line["epoch"], line["mean"], lw=1.4, marker="o", ms=2.5, **_named(method))
                axis.fill_between(
                    line["epoch"], line["min"], line["max"], color=METHODS[method].colour, alpha=0.16, lw=0
                )
            axis.set_xlim(left=0)
        figure.supxlabel(f"epoch      (no runs: {absent})" if absent and drawn else "epoch", fontsize=9)
        _legend(figure, METHOD_LABELS.values())
    return figure


def contrasts_figure(table: RecordedTable) -> Figure:
    """The contrasts with their 95 % intervals, ours beside the paper's: a row per contrast, a panel per place.

    The colour of ours is its verdict. Without an interval a dot stands alone; if the paper has no such model, the range
    over its cells is a line without a dot. Places without a run of ours are left out.
    """
    found = frames.contrasts(table)
    found = found[found.groupby("place")["difference"].transform("count") > 0]
    names = labels(table, columns=True)
    longest = found.groupby("place").size().max() if len(found) else 4
    with _grid(found, names, 2, (3.6, 0.75 + 0.3 * longest), (1.6, 0.35)) as (figure, panels):
        for axis, group in panels:
            axis.axvline(0, color="#1d2125", lw=0.8)
            for height, row in enumerate(group.to_dict("records")):
                said = VERDICTS.get(row["verdict"], row["verdict"])
                mine = (row["difference"], row["low"], row["high"])
                _interval(axis, height - 0.15, *mine, VERDICT_COLORS[said], "o", f"ours: {said}")
                printed = (row["paper_difference"], row["paper_low"], row["paper_high"])
                if np.isnan(row["paper_difference"]):
                    printed = (np.nan, row["paper_min"], row["paper_max"])
                _interval(axis, height + 0.2, *printed, PAPER_COLOR, "D", "paper")
            axis.set_yticks(range(len(group)), group["claim"], fontsize=8)
            axis.set_ylim(len(group) - 0.4, -0.6)
            axis.grid(axis="y", visible=False)
            axis.set_xlabel("difference (points)")
        _legend(figure, [*(f"ours: {said}" for said in VERDICT_COLORS), "paper"])
    return figure


def training_curve(epochs: Sequence[dict]) -> Figure:
    """Loss, score and the spread of P* over a run's epochs, as `mmel.study.train.train` yields them."""
    lines = pd.DataFrame(epochs)
    metric = next(column for column in lines if column in METRIC_LABELS)
    drawn = {"train_loss": "training loss", metric: METRIC_LABELS[metric], "weight_max": "largest weight of P*"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
        for axis, (column, label) in zip(axes, drawn.items(), strict=True):
            axis.plot(lines["epoch"], lines[column], color="#0072b2")
            axis.set_xlabel("epoch")
            axis.set_title(label)
        plt.close(figure)
    return figure


def weighted_views(views: np.ndarray, losses: np.ndarray, weights: np.ndarray) -> Figure:
    """The views of one image in a row, each with its loss and its weight under P*; the original first.

    Args:
        views: (K, H, W, C) uint8.
        losses: (K,), NaN for a view that is not weighted.
        weights: (K,) summing to one; NaN likewise.
    """
    k = len(views)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, k, figsize=(1.05 * k, 1.7), squeeze=False, layout="constrained")
        for index, (axis, view, loss, weight) in enumerate(zip(axes[0], views, losses, weights, strict=True)):
            axis.imshow(view.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
            axis.set_title("x" if index == 0 else f"z{index}", fontsize=8, pad=2)
            shown = "not weighted" if np.isnan(weight) else f"loss {loss:.3f}\nweight {weight:.3f}"
            axis.text(0.5, -0.06, shown, transform=axis.transAxes, ha="center", va="top", fontsize=8)
        plt.close(figure)
    return figure


def weights_over_lambda(losses: np.ndarray, lambdas: Sequence[float]) -> Figure:
    """P* (Eq. 6) of one example's K losses for several lambda_P, one group of bars for each loss."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
        width = 0.8 / len(lambdas)
        shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(lambdas)))
        for index, (value, shade) in enumerate(zip(lambdas, shades, strict=True)):
            left = np.arange(len(losses)) + (index - (len(lambdas) - 1) / 2) * width
            axis.bar(left, softmax(losses / value), width, color=shade, label=f"$\\lambda_P$ = {value:g}")
        axis.axhline(1 / len(losses), color="#7f7f7f", ls="--", lw=1)
        axis.set_xticks(range(len(losses)), [f"loss {value:g}" for value in losses.round(3)])
        axis.set_ylabel("weight P*")
        axis.grid(axis="x", visible=False)
        axis.legend(fontsize=8)
        plt.close(figure)
    return figure


def _named(method: str) -> dict[str, str]:
    """Colour and label of a method's line."""
    return {"color": METHODS[method].colour, "label": METHODS[method].label}


_Panels = tuple[Figure, list[tuple[Axes, pd.DataFrame]]]


@contextmanager
def _grid(
    frame: pd.DataFrame, names: dict[str, str], columns: int, panel: tuple[float, float], rest: tuple[float, float]
) -> Iterator[_Panels]:
    """A figure with one titled panel per place and the rows that belong in it; sizes are width and height in inches."""
    groups = list(frame.groupby("place", sort=False))
    count = max(len(groups), 1)
    columns = min(count, columns)
    rows = -(-count // columns)
    with plt.rc_context(STYLE):
        size = (rest[0] + panel[0] * columns, rest[1] + panel[1] * rows)
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08)
        for axis in axes.flat[count:]:
            axis.remove()
        if not groups:
            axes[0, 0].text(0.5, 0.5, "no runs yet", transform=axes[0, 0].transAxes, ha="center")
        for axis, (place, _) in zip(axes.flat, groups, strict=False):
            axis.set_title(names[place])
        yield figure, [(axis, group) for axis, (_, group) in zip(axes.flat, groups, strict=False)]
        plt.close(figure)


@contextmanager
def _panels(table: RecordedTable, frame: pd.DataFrame, across: bool = False) -> Iterator[_Panels]:
    """Panels of scores; `across` if the score runs from left to right, in place of upwards."""
    whose = table.layout.examples.split()[0]
    with _grid(frame, labels(table), 4, (3.2, 2.8), (1.2, 0.4)) as (figure, panels):
        for axis, group in panels:
            (axis.set_xlabel if across else axis.set_ylabel)(f"{whose} {METRIC_LABELS[group['metric'].iloc[0]]}")
        yield figure, panels


def _legend(figure: Figure, order: Sequence[str]) -> None:
    """One legend above all panels, its labels in this order."""
    found = {
        label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    ordered = [label for label in order if label in found]
    if ordered:
        figure.legend([found[label] for label in ordered], ordered, loc="outside upper center", ncols=len(ordered))


def _interval(
    axis: Axes, height: float, value: float, low: float, high: float, color: str, marker: str, label: str
) -> None:
    """An interval as a line, the difference as a dot on it; NaN is not drawn."""
    if not np.isnan(low):
        axis.hlines(height, low, high, color=color, lw=1.6, label=label)
    if not np.isnan(value):
        axis.plot(value, height, marker, color=color, ms=4.5, label=label)
