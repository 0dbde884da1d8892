"""The figures of tables; each draws the numbers it is given."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmel.study.datasets import DATASETS, GLUE
from mmel.study.methods import METHODS
from mmel.study.records import Store
from mmel.study.report import frames
from mmel.study.report.contrasts import VERDICTS, primary
from mmel.study.report.frames import RecordedTable
from mmel.study.report.layout import METHOD_LABELS, METRIC_LABELS
from mmel.study.report.pictures import INK, STYLE, Picture
from mmel.study.report.runs import finished
from mmel.study.report.tables import interval, labels

# Verdicts have shapes as well as colours, and no colour of a method.
VERDICT_COLORS = dict(zip(VERDICTS, ("#332288", "#aa1155", "#8a7a00", "#8d949c"), strict=True))
VERDICT_MARKERS = dict(zip(VERDICTS, "oXsD", strict=True))


def forest(found: pd.DataFrame, names: Mapping[str, str], columns: int = 4, order: Sequence[str] = ()) -> Picture:
    """Contrasts with their 95 % intervals: a panel for each, a row for each place, the paper's above ours.

    The paper's markers are hollow, ours filled; shape and colour are the verdict's. A band shows how far from 0 a
    difference of ours has to be before its interval excludes it. Beyond one point the axis is logarithmic.

    Args:
        found: rows of `contrasts.contrasts`.
        names: place -> its name.
        columns: panels in a row.
        order: of the places, from the top; by default as found.
    """
    found = found[(found["quantity"] != "time") & found["place"].isin(names)]
    if found.empty:
        with plt.rc_context(STYLE):
            figure = plt.figure(figsize=(4, 1))
            figure.text(0.5, 0.5, "no runs yet", ha="center")
        return Picture(figure, "No runs yet.")
    places = [place for place in order or dict.fromkeys(found["place"]) if place in set(found["place"])]
    groups = list(found.groupby("label", sort=False))
    columns = min(columns, len(groups))
    rows = -(-len(groups) // columns)
    with plt.rc_context(STYLE):
        size = (2.1 + 2.6 * max(columns, 3), rows * (0.75 + 0.33 * len(places)) + 0.4)
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True, layout="constrained")
        for axis in axes.flat[len(groups) :]:
            axis.remove()
        for axis, (label, group) in zip(axes.flat, groups, strict=False):
            axis.axvline(0, color=INK, lw=0.8)
            for row in group.to_dict("records"):
                _draw(axis, row, places.index(row["place"]) + (0.18 if row["source"] == "ours" else -0.18))
            axis.set_xscale("symlog", linthresh=1.0, linscale=1.0)
            reach = np.nanmax(np.abs(group[["difference", "low", "high"]].to_numpy(float)))
            ticks = [tick for tick in (-10, -1, 0, 1, 10) if abs(tick) <= max(reach, 1)]
            axis.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
            axis.minorticks_off()
            axis.set_xlim(-1.3 * max(reach, 1), 1.3 * max(reach, 1))
            axis.set_ylim(len(places) - 0.5, -0.5)
            axis.set_yticks(range(len(places)), [names[place] for place in places])
            axis.set_title(label.replace(" − ", "\n− "), fontsize=9)
        figure.supxlabel("difference (points; logarithmic beyond 1)", fontsize=9)
        _forest_legend(figure)
    told = [
        f"{row['label']}, {names[row['place']]}, {row['source']}: "
        f"{interval(row['difference'], row['low'], row['high'])} {row['verdict']}"
        for row in found.to_dict("records")
    ]
    return Picture(figure, f"Differences with 95 % intervals. {'; '.join(told)}.")


def primary_forest(store: Store, profile: str) -> Picture:
    """The contrasts of the primary claims, images and text below each other."""
    both = [frames.load(name, store, profile) for name in ("table1", "table3")]
    names = {place: name for table in both for place, name in labels(table, columns=True).items()}
    return forest(primary(both), names, columns=2)


def _draw(axis: Axes, row: Mapping[str, object], height: float) -> None:
    color, ours = VERDICT_COLORS[row["verdict"]], row["source"] == "ours"
    if ours and not np.isnan(row["half_width"]):
        axis.fill_betweenx([height - 0.16, height + 0.16], -row["half_width"], row["half_width"], color="#e8e4d8", lw=0)
    if not np.isnan(row["low"]):
        axis.hlines(height, row["low"], row["high"], color=color, lw=1.8 if ours else 1.1)
    fill = color if ours else "white"
    axis.plot(row["difference"], height, VERDICT_MARKERS[row["verdict"]], color=color, mfc=fill, ms=5.5)


def _forest_legend(figure: Figure) -> None:
    handles = [
        plt.Line2D([], [], ls="", marker=VERDICT_MARKERS[said], color=VERDICT_COLORS[said], label=said)
        for said in VERDICTS
    ]
    handles.append(plt.Line2D([], [], ls="", marker="o", color=INK, mfc="white", label="paper (hollow)"))
    handles.append(plt.Rectangle((0, 0), 1, 1, color="#e8e4d8", label="too small for ours to see"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8)


def methods_figure(table: RecordedTable) -> Picture:
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
    return Picture(figure, _alt(table))


def over_k_figure(table: RecordedTable) -> Picture:
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
    return Picture(figure, _alt(table))


def settings_figure(table: RecordedTable) -> Picture:
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
    return Picture(figure, _alt(table))


def curves_figure(table: RecordedTable) -> Picture:
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
    return Picture(figure, _alt(table))


def _alt(table: RecordedTable) -> str:
    """The means that a figure shows, in words."""
    names, means = labels(table), frames.cells(table).dropna(subset="mean")
    means = means[means["place"].isin(names)]
    told = [f"{names[place]}, {arm}: {mean:.2f}" for place, arm, mean in means[["place", "arm", "mean"]].to_numpy()]
    return f"{table.spec.title}, mean scores in percent. {'; '.join(told)}." if told else "No runs yet."


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
