"""The figures of tables; each draws the numbers it is given."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmel.study.datasets import DATASETS, GLUE
from mmel.study.methods import METHODS
from mmel.study.records import Store
from mmel.study.report import frames
from mmel.study.report.claims import VERDICTS
from mmel.study.report.contrasts import contrasts
from mmel.study.report.frames import RecordedTable
from mmel.study.report.layout import METHOD_LABELS, METRIC_LABELS
from mmel.study.report.pictures import INK, STYLE, Picture
from mmel.study.report.runs import finished
from mmel.study.report.tables import interval, labels

# Verdicts have shapes as well as colours, and no colour of a method.
VERDICT_COLORS = dict(zip(VERDICTS, ("#332288", "#aa1155", "#8a7a00", "#8d949c"), strict=True))
VERDICT_MARKERS = dict(zip(VERDICTS, "oXsD", strict=True))
BAND = "#e8e4d8"


def forest(found: pd.DataFrame, names: Mapping[str, str], columns: int = 4) -> Picture:
    """Contrasts with their 95 % intervals: a panel for each, a row for each place, the paper's above ours.

    The paper's markers are hollow, ours filled; shape and colour are the verdict's. A band shows how far from 0 a
    difference of ours has to be before its interval excludes it. Beyond one point the axis is logarithmic.

    Args:
        found: rows of `contrasts.contrasts`; times are left out.
        names: place -> its name; other places are left out.
        columns: panels in a row.
    """
    found = found[(found["quantity"] != "time") & found["place"].isin(names)]
    if found.empty:
        with panels_of({}) as (figure, _):
            return Picture(figure, "No runs yet.")
    places = list(dict.fromkeys(found["place"]))
    groups = {label.replace(" − ", "\n− "): group for label, group in found.groupby("label", sort=False)}
    columns = min(columns, len(groups))
    panel = (2.6 * max(columns, 3) / columns, 0.75 + 0.33 * len(places))
    with panels_of(groups, columns, panel, rest=(2.1, 0.4), sharey=True) as (figure, panels):
        for axis, group in panels:
            axis.title.set_fontsize(9)
            axis.axvline(0, color=INK, lw=0.8)
            for row in group.to_dict("records"):
                _draw(axis, row, places.index(row["place"]) + (0.18 if row["source"] == "ours" else -0.18))
            axis.set_xscale("symlog", linthresh=1.0, linscale=1.0)
            reach = max(1, np.nanmax(np.abs(group[["difference", "low", "high"]].to_numpy(float))))
            # A panel has room for five.
            outer = 10 if reach >= 10 else 3
            ticks = [tick for tick in (-outer, -1, 0, 1, outer) if abs(tick) <= reach]
            axis.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
            axis.minorticks_off()
            axis.set_xlim(-1.3 * reach, 1.3 * reach)
            axis.set_ylim(len(places) - 0.5, -0.5)
            axis.set_yticks(range(len(places)), [names[place] for place in places])
        figure.supxlabel("difference (points; logarithmic beyond 1)", fontsize=9)
        mark = partial(plt.Line2D, [], [], ls="")
        handles = [mark(marker=VERDICT_MARKERS[said], color=VERDICT_COLORS[said], label=said) for said in VERDICTS]
        handles.append(mark(marker="o", color=INK, mfc="white", label="paper (hollow)"))
        handles.append(plt.Rectangle((0, 0), 1, 1, color=BAND, label="too small for ours to see"))
        figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8)
    told = [
        f"{row['label']}, {names[row['place']]}, {row['source']}: "
        f"{interval(row['difference'], row['low'], row['high'])} {row['verdict']}"
        for row in found.to_dict("records")
    ]
    return Picture(figure, f"Differences with 95 % intervals. {'; '.join(told)}.")


def _draw(axis: Axes, row: Mapping[str, Any], height: float) -> None:
    color, ours = VERDICT_COLORS[row["verdict"]], row["source"] == "ours"
    if ours and not np.isnan(row["half_width"]):
        axis.fill_betweenx([height - 0.16, height + 0.16], -row["half_width"], row["half_width"], color=BAND, lw=0)
    if not np.isnan(row["low"]):
        axis.hlines(height, row["low"], row["high"], color=color, lw=1.8 if ours else 1.1)
    fill = color if ours else "white"
    axis.plot(row["difference"], height, VERDICT_MARKERS[row["verdict"]], color=color, mfc=fill, ms=5.5)


def primary_forest(store: Store, profile: str) -> Picture:
    """The contrasts of the primary claims, images and text below each other."""
    both = [frames.load(name, store, profile) for name in ("table1", "table3")]
    names = {place: name for table in both for place, name in labels(table, columns=True).items()}
    return forest(pd.concat(map(contrasts, both), ignore_index=True).query("primary"), names, columns=2)


def methods_figure(table: RecordedTable) -> Picture:
    """Score of each method side by side: every seed a dot, the mean a bar across; one panel per model or task."""
    with _scores(table, finished(table.runs)) as (figure, panels):
        for axis, group in panels:
            methods = [method for method in METHODS if (group["method"] == method).any()]
            for index, method in enumerate(methods):
                values = group.loc[group["method"] == method, "score"].to_numpy()
                # Beside each other, so that equal seeds are told apart.
                spread = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else np.zeros(1)
                axis.scatter(index + spread, values, s=22, color=METHODS[method].colour, alpha=0.75, zorder=3)
                axis.hlines(values.mean(), index - 0.3, index + 0.3, color=METHODS[method].colour, lw=2)
            axis.set_xticks(range(len(methods)), [METHOD_LABELS[m].replace("(", "\n(") for m in methods], fontsize=7)
            axis.set_xlim(-0.6, len(methods) - 0.4)
            axis.grid(axis="x", visible=False)
    return Picture(figure, _alt(table))


def over_k_figure(table: RecordedTable) -> Picture:
    """Accuracy over K for MMEL-H and MMEL-S beside Baseline(DA): mean line, every seed a dot; one panel per model."""
    with _scores(table, finished(table.runs)) as (figure, panels):
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
    return Picture(figure, _alt(table))


def settings_figure(table: RecordedTable) -> Picture:
    """Scores of MMEL-H and MMEL-S for each way of making augmented texts, every run a dot; one panel per task.

    A dashed line is the baseline's mean.
    """
    with _scores(table, finished(table.runs), across=True) as (figure, panels):
        for axis, group in panels:
            varied = group[group["method"] != "baseline"]
            # `agg` would make columns of no rows.
            rows = varied[[*table.spec.settings]].astype(str).to_numpy()
            named = pd.Series([", ".join(row) for row in rows], varied.index, dtype=str)
            settings = list(dict.fromkeys(named))
            if len(varied) < len(group):
                mean = group.loc[group["method"] == "baseline", "score"].mean()
                axis.axvline(mean, ls="--", lw=1.2, **_named("baseline"))
            for method, shift in (("mmel_h", -0.12), ("mmel_s", 0.12)):
                mine = varied["method"] == method
                heights = [settings.index(name) + shift for name in named[mine]]
                axis.scatter(varied.loc[mine, "score"], heights, s=26, alpha=0.8, zorder=3, **_named(method))
            axis.set_yticks(range(len(settings)), settings)
            axis.set_ylim(max(len(settings), 1) - 0.5, -0.5)
            axis.grid(axis="y", visible=False)
    return Picture(figure, _alt(table))


def curves_figure(table: RecordedTable) -> Picture:
    """The dev score over training, as Figure 2: a line per method, a band from its lowest to its highest seed.

    Tasks without runs are named below the panels.
    """
    found = frames.curves(table)
    drawn = set(found["place"])
    absent = ", ".join(DATASETS[name].label for name in GLUE if name not in drawn)
    with _scores(table, found) as (figure, panels):
        for axis, group in panels:
            for method, line in group.groupby("method", sort=False):
                axis.plot(line["epoch"], line["mean"], lw=1.4, marker="o", ms=2.5, **_named(method))
                axis.fill_between(
                    line["epoch"], line["min"], line["max"], color=METHODS[method].colour, alpha=0.16, lw=0
                )
            axis.set_xlim(left=0)
        figure.supxlabel(f"epoch      (no runs: {absent})" if absent and drawn else "epoch", fontsize=9)
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


@contextmanager
def panels_of(
    groups: Mapping[str, pd.DataFrame],
    columns: int = 4,
    panel: tuple[float, float] = (3.2, 2.8),
    rest: tuple[float, float] = (1.2, 0.4),
    **options: Any,
) -> Iterator[tuple[Figure, list[tuple[Axes, pd.DataFrame]]]]:
    """A figure with a panel for each title and its rows; sizes are width and height in inches."""
    columns = max(min(len(groups), columns), 1)
    rows = max(-(-len(groups) // columns), 1)
    size = (rest[0] + panel[0] * columns, rest[1] + panel[1] * rows)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
        if not groups:
            axes[0, 0].text(0.5, 0.5, "no runs yet", transform=axes[0, 0].transAxes, ha="center")
        for axis in axes.flat[len(groups) or 1 :]:
            axis.remove()
        for axis, title in zip(axes.flat, groups, strict=False):
            axis.set_title(title)
        yield figure, list(zip(axes.flat, groups.values(), strict=False))


@contextmanager
def _scores(table: RecordedTable, found: pd.DataFrame, across: bool = False) -> Iterator[Any]:
    """A panel for each place, and one legend; `across` if the score runs from left to right, in place of upwards."""
    names, whose = labels(table), table.layout.examples.split()[0]
    with panels_of({names[place]: rows for place, rows in found.groupby("place", sort=False)}) as (figure, panels):
        figure.get_layout_engine().set(w_pad=0.08)
        for axis, rows in panels:
            (axis.set_xlabel if across else axis.set_ylabel)(f"{whose} {METRIC_LABELS[rows['metric'].iloc[0]]}")
        yield figure, panels
        one_legend(figure)


def one_legend(figure: Figure) -> None:
    """Put a legend above the panels that has each of their labels once, methods in the tables' order."""
    drawn = [axis.get_legend_handles_labels() for axis in figure.axes]
    handles = {label: handle for parts in drawn for handle, label in zip(*parts, strict=True)}
    # Labels of no method come last: the sort is stable.
    order = [*METHOD_LABELS.values()]
    shown = sorted(handles, key=lambda label: order.index(label) if label in order else len(order))
    if shown:
        # A label takes some 1.4 inches.
        columns = min(len(shown), int(figure.get_figwidth() / 1.4))
        figure.legend([handles[label] for label in shown], shown, loc="outside upper center", ncols=columns)
