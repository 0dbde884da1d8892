"""A figure as vector graphics with a text for those who cannot see it; figures of one run and of the weights."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import softmax

from mmel.study.report.layout import METRIC_LABELS

STYLE = {
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "font.size": 9,
    # The same figure is the same bytes.
    "svg.hashsalt": "mmel",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
}
INK = "#1d2125"


class Picture:
    """A figure for a notebook: SVG, with an alternative text.

    Args:
        figure: drawn; it is closed here, so that it is not shown twice.
        alt: what it shows, in words and numbers.
    """

    def __init__(self, figure: Figure, alt: str):
        plt.close(figure)
        self.figure, self.alt = figure, alt

    @property
    def svg(self) -> str:
        """The figure as an SVG element, the same at every execution."""
        with plt.rc_context(STYLE), io.StringIO() as file:
            self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
            text = file.getvalue()
        return re.sub(r"[ \t]+$", "", text[text.index("<svg") :], flags=re.MULTILINE)

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        return {"image/svg+xml": self.svg, "text/plain": self.alt}, {"image/svg+xml": {"alt": self.alt}}


def training_curve(epochs: Sequence[dict]) -> Picture:
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
    first, last = lines.iloc[0], lines.iloc[-1]
    ends = [f"{label} from {first[column]:.3g} to {last[column]:.3g}" for column, label in drawn.items()]
    return Picture(figure, f"Over {last['epoch']:g} epochs: {'; '.join(ends)}.")


def weighted_views(views: np.ndarray, losses: np.ndarray, weights: np.ndarray) -> Picture:
    """The views of one image in a row, each with its loss and its weight under P*; the original first.

    Args:
        views: (K, H, W, C) uint8.
        losses: (K,), NaN for a view that is not weighted.
        weights: (K,) summing to one; NaN likewise.
    """
    k = len(views)
    told = []
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, k, figsize=(1.05 * k, 1.7), squeeze=False, layout="constrained")
        for index, (axis, view, loss, weight) in enumerate(zip(axes[0], views, losses, weights, strict=True)):
            axis.imshow(view.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
            name = "x" if index == 0 else f"z{index}"
            axis.set_title(name, fontsize=8, pad=2)
            shown = "not weighted" if np.isnan(weight) else f"loss {loss:.3f}\nweight {weight:.3f}"
            axis.text(0.5, -0.06, shown, transform=axis.transAxes, ha="center", va="top", fontsize=8)
            told.append(f"{name} {shown}".replace("\n", ", "))
    return Picture(figure, f"{k} views of one image: {'; '.join(told)}.")


def weight_bars(losses: np.ndarray, weights: Mapping[str, np.ndarray]) -> Picture:
    """Weights of one example's K losses under several worst cases, one group of bars for each loss.

    Args:
        losses: (K,).
        weights: name of a worst case -> (K,) summing to one.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
        width = 0.8 / len(weights)
        shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(weights)))
        for index, (name, values) in enumerate(weights.items()):
            left = np.arange(len(losses)) + (index - (len(weights) - 1) / 2) * width
            axis.bar(left, values, width, color=shades[index], label=name)
        axis.axhline(1 / len(losses), color="#7f7f7f", ls="--", lw=1)
        axis.set_xticks(range(len(losses)), [f"loss {value:g}" for value in losses.round(3)])
        axis.set_ylabel("weight")
        axis.set_ylim(0, 1)
        axis.grid(axis="x", visible=False)
        axis.legend(fontsize=8)
    told = [f"{name}: {', '.join(f'{weight:.2f}' for weight in values)}" for name, values in weights.items()]
    return Picture(figure, f"Weights of losses {', '.join(f'{v:g}' for v in losses.round(3))}. {'; '.join(told)}.")


def weights_over_lambda(losses: np.ndarray, lambda_p: float | Sequence[float]) -> Picture:
    """P* (Eq. 6) of one example's K losses, (K,), for one or several lambda_P."""
    return weight_bars(losses, {f"$\\lambda_P$ = {value:.3g}": softmax(losses / value) for value in np.ravel(lambda_p)})


def hard_and_soft(hard: tuple[np.ndarray, np.ndarray], soft: tuple[np.ndarray, np.ndarray]) -> Picture:
    """Figure 1 as a diagram: which output each loss compares with which target, and how much the loss weighs.

    Args:
        hard: losses and weights of MMEL-H, (K,) each.
        soft: those of MMEL-S, (K - 1,) each: the original is not weighed.
    """
    names = ["x", *(f"z_{index}" for index in range(1, len(hard[0])))]
    box = {"boxstyle": "round", "facecolor": "white", "edgecolor": INK, "linewidth": 0.8}
    told = []
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(10, 0.6 * len(names) + 1), layout="constrained")
        for axis, label, (losses, weights) in zip(axes, ("hard", "soft"), (hard, soft), strict=True):
            axis.set(xlim=(-0.2, 3.6), ylim=(len(names) - 0.5, -1.5), title=f"MMEL-{label[0].upper()}")
            axis.set_axis_off()
            end = (3.3, (len(names) - 1) / 2)
            texts = {(1, -1): "$y$", end: f"$R^{{{label}}}$"}
            # From, to and width.
            lines = []
            for row, name in enumerate(names):
                index = row - len(names) + len(losses)
                target, source = ("f(x)", (1, 0)) if label == "soft" and row else ("y", (1, -1))
                loss = f"\\ell(f({name}), {target})"
                texts |= {(0, row): f"${name}$", (1, row): f"$f({name})$", (2.2, row): f"${loss}$"}
                lines += [((0, row), (1, row), 1), ((1, row), (2.2, row), 1), (source, (2.2, row), 1)]
                lines.append(((2.2, row), end, 1 if index < 0 else 6 * weights[index]))
                if index >= 0:
                    texts[2.2, row] += f" = {losses[index]:.2f}"
                    axis.text(2.95, (row + 2 * end[1]) / 3, f"{weights[index]:.2f}", ha="center", va="bottom")
                    told.append(f"{name} against {target}: loss {losses[index]:.3f}, weight {weights[index]:.3f}")
            for start, stop, width in lines:
                axis.plot(*zip(start, stop, strict=True), color="#8d949c", lw=width, zorder=1)
            for place, text in texts.items():
                axis.text(*place, text, ha="center", va="center", bbox=box, zorder=2)
    return Picture(figure, f"The losses of MMEL-H, then of MMEL-S. {'; '.join(told)}.")
