"""What a training method is: which views of an example it sees, and which loss it puts on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmel.config import RunConfig
from mmel.names import ONE_VIEW_METHODS

if TYPE_CHECKING:
    from torch import nn

# As the paper's tables head their columns.
LABELS = {
    "baseline": "Baseline",
    "baseline_da": "Baseline(DA)",
    "baseline_da_long": "Baseline(DA+Long)",
    "baseline_da_uni": "Baseline(DA+UNI)",
    "mmel_h": "MMEL-H",
    "mmel_s": "MMEL-S",
}


@dataclass(frozen=True)
class ViewPlan:
    """Which views of an example a step sees.

    Attributes:
        num_random: randomly augmented views.
        original_first: whether the untouched example stands before them, at index 0.
    """

    num_random: int
    original_first: bool


def view_plan(config: RunConfig) -> ViewPlan:
    """The views of `config`, a run on images: one random view for the plain baselines, else the K samples of B(x)."""
    if config.method in ONE_VIEW_METHODS:
        return ViewPlan(num_random=1, original_first=False)
    if config.original == "augmented":
        return ViewPlan(num_random=config.num_augmented, original_first=False)
    return ViewPlan(num_random=config.num_augmented - 1, original_first=True)


def build_criterion(config: RunConfig) -> nn.Module:
    """The loss of `config`, with `terms(logits, targets)` over (N, V, C) logits; of scores the squared error.

    Args:
        config: the run, with nothing left to be chosen.
    """
    from mmel.losses import MMELHardLoss, MMELSoftLoss, UniformLoss

    base_loss = "mse" if config.is_regression else config.base_loss
    if config.method == "mmel_h":
        return MMELHardLoss(config.lambda_p, base_loss)
    if config.method == "mmel_s":
        return MMELSoftLoss(config.lambda_p, config.lambda_t, base_loss, config.target_gradient, config.threshold)
    return UniformLoss(base_loss)


def describe(config: RunConfig) -> str:
    """What a run trains, in Markdown: the method's objective and the recipe, for a notebook."""
    k = config.num_augmented
    target = r"y_z" if config.is_text and config.label_source == "predicted" else "y"
    ell = rf"\ell(f_\theta(z), {target})"
    one = "each sample $z$ in $B(x)$ by itself" if config.is_text else "one random view $z$ of each example"
    objectives = {
        "baseline": r"each example by itself: $\ell(f_\theta(x), y)$",
        "baseline_da": rf"{one}: ${ell}$",
        "baseline_da_long": rf"{one}, {config.stretch} times the steps: ${ell}$",
        "baseline_da_uni": rf"the mean over $B(x)$ (Eq. 1): $\frac{{1}}{{{k}}}\sum_{{z \in B(x)}} {ell}$",
        "mmel_h": rf"the maximal expected loss (Eq. 5-7): $\lambda_P \log \frac{{1}}{{{k}}} \sum_{{z \in B(x)}} "
        rf"\exp({ell} / \lambda_P)$, whose gradient weighs each view by "
        rf"$P^*(z \mid x) = \mathrm{{softmax}}_z({ell} / \lambda_P)$",
        "mmel_s": r"the soft form (Eq. 8-9): $\ell(f_\theta(x), y) + \lambda_T \lambda_P \log "
        rf"\frac{{1}}{{{k - 1}}} \sum_{{z \neq x}} \exp(\ell(f_\theta(z), f_\theta(x)) / \lambda_P)$",
    }
    return (
        f"**{LABELS[config.method]}** on `{config.dataset}` with `{config.model}`, seed {config.seed}: minimize "
        f"{objectives[config.method]}.\n\n"
        f"Profile `{config.profile}`: {config.total_epochs} epochs of batch {config.batch_size}, learning rate "
        f"{config.lr:g} {_decay(config)}, weight decay {config.weight_decay:g}, K = {k}, "
        f"lambda_P = {config.lambda_p:g}, precision {config.precision}.{_augmentation(config)} Run `{config.run_id}`."
    )


def _decay(config: RunConfig) -> str:
    if config.is_text:
        return "falling linearly to 0"
    return f"times {config.lr_decay:g} after epochs {', '.join(map(str, config.total_decay_epochs))}"


def _augmentation(config: RunConfig) -> str:
    if not config.is_text or config.method == "baseline":
        return ""
    whose = "their example's label" if config.label_source == "original" else "the teacher's output"
    pairs = (
        "each sentence of a pair by itself" if config.pair_mode == "separate" else "the two sentences of a pair as one"
    )
    return f" Algorithm 2: {config.fill}, {config.mask_ratio:.0%} of the pieces, {pairs}; targets are {whose}."
