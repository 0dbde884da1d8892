"""The training methods: one record for each. Standard library only; a loss is imported when it is built.

A new method is a record here and, if it has a new one, a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from mmel.study.config import Run

# Fields of a run that only a weighted loss has, and those that only MMEL-S has.
WEIGHTED = ("lambda_p", "base_loss")
SOFT = (*WEIGHTED, "lambda_t", "target_gradient")


def uniform(run: Run) -> nn.Module:
    """The mean over the views."""
    from mmel.losses import UniformLoss

    return UniformLoss("mse" if run.is_regression else "cross_entropy")


def hard(run: Run) -> nn.Module:
    """MMEL-H's loss."""
    from mmel.losses import MMELHardLoss

    return MMELHardLoss(run.lambda_p, "mse" if run.is_regression else run.base_loss)


def soft(run: Run) -> nn.Module:
    """MMEL-S's loss."""
    from mmel.losses import MMELSoftLoss

    base_loss = "mse" if run.is_regression else run.base_loss
    return MMELSoftLoss(run.lambda_p, run.lambda_t, base_loss, run.target_gradient)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A training method.

    Attributes:
        name: as a run names it.
        label: as the paper's tables head their columns.
        colour: of its line in figures.
        data: the kinds of data that it is for, `images`, `text` or both.
        loss: builds its loss over (N, V, C) logits for a run.
        objective: what it minimises, in LaTeX; `{loss}` stands for a view's loss and `{k}` for K.
        augments: whether it sees augmented samples at all; then K = 1 unless it stretches.
        all_views: whether a step sees all K views of an example; else one.
        stretches: whether it takes K times the steps.
        fields: fields of a run that have a meaning for it and not for every method.
        soft_targets: whether views are pulled to the model's own output on the original.
    """

    name: str
    label: str
    colour: str
    data: tuple[str, ...]
    objective: str
    loss: Callable[[Run], nn.Module] = uniform
    augments: bool = True
    all_views: bool = False
    stretches: bool = False
    fields: tuple[str, ...] = ()
    soft_targets: bool = False

    @property
    def is_single(self) -> bool:
        """Whether K = 1: one view of an example, once per epoch."""
        return not (self.all_views or self.stretches)


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
            data=("images", "text"),
            stretches=True,
            objective=r"one view $z$ at a time, {k} times the steps: ${loss}$",
        ),
        Method(
            name="baseline_da_uni",
            label="Baseline(DA+UNI)",
            colour="#0072b2",
            data=("images", "text"),
            all_views=True,
            objective=r"the mean over $B(x)$ (Eq. 1): $\frac{{1}}{{{k}}}\sum_{{z \in B(x)}} {loss}$",
        ),
        Method(
            name="mmel_h",
            label="MMEL-H",
            colour="#d55e00",
            data=("images", "text"),
            all_views=True,
            loss=hard,
            fields=WEIGHTED,
            objective=r"the maximal expected loss (Eq. 5-7): $\lambda_P \log \frac{{1}}{{{k}}} \sum_{{z \in B(x)}} "
            r"\exp({loss} / \lambda_P)$, whose gradient weighs each view by "
            r"$P^*(z \mid x) = \mathrm{{softmax}}_z({loss} / \lambda_P)$",
        ),
        Method(
            name="mmel_s",
            label="MMEL-S",
            colour="#009e73",
            data=("images", "text"),
            all_views=True,
            loss=soft,
            fields=SOFT,
            soft_targets=True,
            objective=r"the soft form (Eq. 8-9): $\ell(f_\theta(x), y) + \lambda_T \lambda_P \log "
            r"\frac{{1}}{{{k} - 1}} \sum_{{z \neq x}} \exp(\ell(f_\theta(z), f_\theta(x)) / \lambda_P)$",
        ),
    )
}


def methods_for(kind: str) -> tuple[str, ...]:
    """Names of the methods for `images` or `text`, in the tables' order."""
    return tuple(name for name, method in METHODS.items() if kind in method.data)
