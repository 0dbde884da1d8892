"""The figures of the GLUE tables and of Figure 2."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mmel.config import GLUE_DATASETS
from mmel.methods import LABELS
from mmel.report.common import DATASET_LABELS
from mmel.report.figures import COLORS, STYLE, panels, shared_legend
from mmel.report.text_cells import FIELDS, task_of


def settings_figure(runs: pd.DataFrame) -> Figure:
    """Scores of MMEL-H and MMEL-S for each way of making augmented texts, every run a dot; one panel a task.

    Args:
        runs: from `tables.seeds` of Table 4 or 6. A dashed line is the baseline's mean.
    """
    fields = [field for field in FIELDS["table4"] + FIELDS["table6"] if field in runs]
    with plt.rc_context(STYLE):
        figure, cells = panels(runs, across=True)
        for axis, group in cells:
            baseline = group.loc[group["method"] == "baseline", "score"]
            if len(baseline):
                axis.axvline(baseline.mean(), color=COLORS["baseline"], ls="--", lw=1.2, label=LABELS["baseline"])
            varied = group[group["method"] != "baseline"]
            named = varied[fields].astype(str).agg(", ".join, axis="columns") if len(varied) else pd.Series(dtype=str)
            settings = list(dict.fromkeys(named))
            for method, shift in (("mmel_h", -0.12), ("mmel_s", 0.12)):
                mine = varied["method"] == method
                places = [settings.index(name) + shift for name in named[mine]]
                scores = varied.loc[mine, "score"]
                axis.scatter(scores, places, s=26, color=COLORS[method], alpha=0.8, label=LABELS[method], zorder=3)
            axis.set_yticks(range(len(settings)), settings)
            axis.set_ylim(len(settings) - 0.5, -0.5)
            axis.grid(axis="y", visible=False)
        shared_legend(figure)
        plt.close(figure)
    return figure


def curves_figure(frame: pd.DataFrame) -> Figure:
    """The dev score over training, as Figure 2: a line a method, a band from its lowest to its highest seed.

    Args:
        frame: the levels of `tables.build("figure2", ...)`. Tasks that are not in it are named below the panels.
    """
    drawn = set(map(task_of, frame["dataset"]))
    absent = ", ".join(DATASET_LABELS[name] for name in GLUE_DATASETS if name not in drawn)
    with plt.rc_context(STYLE):
        figure, cells = panels(frame)
        for axis, group in cells:
            for method, line in group.groupby("method", sort=False):
                style = {"color": COLORS[method], "lw": 1.4, "marker": "o", "ms": 2.5}
                axis.plot(line["epoch"], line["mean"], label=LABELS[method], **style)
                axis.fill_between(line["epoch"], line["min"], line["max"], color=COLORS[method], alpha=0.16, lw=0)
            axis.set_xlim(left=0)
        figure.supxlabel(f"epoch      (no runs: {absent})" if absent and drawn else "epoch", fontsize=9)
        shared_legend(figure)
        plt.close(figure)
    return figure
