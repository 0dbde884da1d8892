"""The training methods: one record for each. Standard library only; a loss is imported when it is built.

A new method is a record here and, if it has a new one, a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from mmel.study.config import Run

# Fields of a run that only some losses take, and those that only augmented texts give a meaning.
COEFFICIENTS = ("lambda_p", "lambda_t", "target_gradient", "alpha", "rho")
AUGMENTED = ("mask_ratio", "fill", "pair_mode", "label_source")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A training method.

    Attributes:
        name: as a run names it.
        label: as the paper's tables head their columns.
        colour: of its line in figures.
        data: the kinds of data that it is for.
        criterion: `module:class` of its loss over (N, V, C) logits.
        worst_case: `module:class` of the worst case that a `WorstCaseLoss` takes; "" for other losses.
        coefficients: fields of a run that the loss (or its worst case) takes as arguments, beside `base_loss`.
        objective: the minimised expression, in LaTeX; `{loss}` stands for a view's loss and `{k}` for K.
        augments: whether it sees augmented samples at all; then K = 1 unless it stretches.
        all_views: whether a step sees all K views of an example; else one.
        stretches: whether it takes K times the steps.
        soft_targets: whether views are pulled to the model's own output on the original.
        smooth: whether the output is held near those on changed embeddings and of the past (SMART).
    """

    name: str
    label: str
    colour: str
    data: tuple[str, ...] = ("images", "text")
    criterion: str = "mmel.losses:UniformLoss"
    worst_case: str = ""
    coefficients: tuple[str, ...] = ()
    objective: str
    augments: bool = True
    all_views: bool = False
    stretches: bool = False
    soft_targets: bool = False
    smooth: bool = False

    @property
    def is_single(self) -> bool:
        """Whether K = 1: one view of an example, once per epoch."""
        return not (self.all_views or self.stretches)

    @property
    def unused(self) -> tuple[str, ...]:
        """Fields of a run that mean nothing for the method."""
        used = {name: name in self.coefficients for name in COEFFICIENTS}
        used |= {"base_loss": bool(self.coefficients), "original": self.all_views}
        # MMEL-S needs the gradient of the original too, whichever view is drawn.
        used["backward"] = "lambda_p" in self.coefficients and not self.soft_targets
        used |= dict.fromkeys(AUGMENTED, self.augments)
        return tuple(name for name, is_used in used.items() if not is_used)

    def loss(self, run: Run) -> nn.Module:
        """Build the loss of a run."""
        coefficients = {name: getattr(run, name) for name in self.coefficients}
        if self.worst_case:
            coefficients = {"worst_case": resolve_name(self.worst_case)(**coefficients)}
        return resolve_name(self.criterion)(base_loss="mse" if run.is_regression else run.base_loss, **coefficients)


METHODS: dict[str, Method] = {
    each.name: each
    for each in (
        Method(
            name="baseline",
            label="Baseline",
            colour="#7f7f7f",
            data=("text",),
            augments=False,
            objective=r"each example by itself: $\ell(f_\theta(x), y)$",
        ),
        Method(
            name="baseline_da",
            label="Baseline(DA)",
            colour="#7f7f7f",
            data=("images",),
            objective=r"one random view $z$ of each example: ${loss}$",
        ),
        Method(
            name="baseline_da_long",
            label="Baseline(DA+Long)",
            colour="#56b4e9",
            stretches=True,
            objective=r"one view $z$ at a time, {k} times the steps: ${loss}$",
        ),
        Method(
            name="baseline_da_uni",
            label="Baseline(DA+UNI)",
            colour="#0072b2",
            all_views=True,
            objective=r"the mean over $B(x)$ (Eq. 1): $\frac{{1}}{{{k}}}\sum_{{z \in B(x)}} {loss}$",
        ),
        Method(
            name="smart",
            label="SMART",
            colour="#cc79a7",
            data=("text",),
            augments=False,
            smooth=True,
            objective=r"$\ell(f_\theta(x), y) + \lambda_s \max_{{\|\tilde{{x}} - x\|_\infty \le \epsilon}} "
            r"\ell_s(f_\theta(\tilde{{x}}), f_\theta(x)) + \mu \, \ell_s(f_\theta(x), f_{{\bar\theta}}(x))$, "
            r"$x$ its word embeddings and $\bar\theta$ the moving average of $\theta$ (Jiang et al. 2020)",
        ),
        Method(
            name="mmel_h",
            label="MMEL-H",
            colour="#d55e00",
            all_views=True,
            criterion="mmel.losses:MMELHardLoss",
            coefficients=("lambda_p",),
            objective=r"the maximal expected loss (Eq. 5-7): $\lambda_P \log \frac{{1}}{{{k}}} \sum_{{z \in B(x)}} "
            r"\exp({loss} / \lambda_P)$, whose gradient weighs each view by "
            r"$P^*(z \mid x) = \mathrm{{softmax}}_z({loss} / \lambda_P)$",
        ),
        Method(
            name="mmel_s",
            label="MMEL-S",
            colour="#009e73",
            all_views=True,
            criterion="mmel.losses:MMELSoftLoss",
            coefficients=("lambda_p", "lambda_t", "target_gradient"),
            soft_targets=True,
            objective=r"the soft form (Eq. 8-9): $\ell(f_\theta(x), y) + \lambda_T \lambda_P \log "
            r"\frac{{1}}{{{k} - 1}} \sum_{{z \neq x}} \exp(\ell(f_\theta(z), f_\theta(x)) / \lambda_P)$",
        ),
        # Of the lab alone: the paper has no other worst case.
        Method(
            name="cvar",
            label="CVaR",
            colour="#e69f00",
            data=("images",),
            all_views=True,
            criterion="mmel.losses:WorstCaseLoss",
            worst_case="mmel.worst_cases:CVaR",
            coefficients=("alpha",),
            objective=r"the mean of the largest share $\alpha$ of the {k} losses ${loss}$",
        ),
        Method(
            name="chi_square",
            label="chi-square",
            colour="#8c564b",
            data=("images",),
            all_views=True,
            criterion="mmel.losses:WorstCaseLoss",
            worst_case="mmel.worst_cases:ChiSquare",
            coefficients=("rho",),
            objective=r"the largest mean of the {k} losses ${loss}$ under weights $w$ with "
            r"$\frac{{1}}{{2K}} \sum (K w - 1)^2 \le \rho$",
        ),
    )
}


def methods_for(kind: str) -> tuple[str, ...]:
    """Names of the methods for `images` or `text`, in the tables' order."""
    return tuple(name for name, method in METHODS.items() if kind in method.data)
