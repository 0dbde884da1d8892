"""Training losses over augmented samples: uniform (Eq. 1), MMEL-H (Eq. 7), MMEL-S (Eq. 8-9), other worst cases.

Each takes logits (N, K, C), of N training examples with K augmented samples each, computes their losses (N, K) and
weighs them. How the weights are found is in `mmel.worst_cases`.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mmel.base_losses import (
    BASE_LOSSES,
    BaseLoss,
    check_finite,
    check_logits,
    check_probabilities,
    losses_against_targets,
    losses_of_samples,
    without_last_dimension,
)
from mmel.worst_cases import KL, WorstCase, augmentation_weights, check_coefficient, maximal_expected_loss

REDUCTIONS = ("mean", "sum", "none")


class LossTerms(NamedTuple):
    """The parts of a loss, before it is reduced over the batch.

    Attributes:
        loss: (N,) the objective of each example.
        sample_losses: (N, V) the losses that are weighted; V is K, or K - 1 for the soft loss.
        weights: (N, V) their weights, without gradient; each row sums to one.
    """

    loss: Tensor
    sample_losses: Tensor
    weights: Tensor


class _AugmentedLoss(nn.Module):
    """The common part of the losses: a base loss, a reduction, and `terms` to be reduced."""

    def __init__(self, base_loss: BaseLoss = "cross_entropy", reduction: str = "mean"):
        super().__init__()
        if not callable(base_loss) and base_loss not in BASE_LOSSES:
            raise ValueError(f"base_loss must be one of {BASE_LOSSES} or a callable, got {base_loss!r}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {REDUCTIONS}, got {reduction!r}")
        self.base_loss = base_loss
        self.reduction = reduction

    def _reduce(self, losses: Tensor) -> Tensor:
        if self.reduction == "mean":
            return losses.mean()
        return losses.sum() if self.reduction == "sum" else losses

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        arguments = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


class UniformLoss(_AugmentedLoss):
    """Baseline(DA+UNI): the plain mean over an example's K losses (Eq. 1), MMEL-H's limit lambda_p -> infinity.

    Args:
        base_loss: `"cross_entropy"`, `"kl"` (probability targets), `"mse"` (regression), or a callable that takes
            outputs (M, C) and targets (M,) or (M, C) and returns one loss for each of the M samples.
        reduction: `"mean"`, `"sum"` or `"none"` over the N examples.

    Raises:
        ValueError: if an argument is none of these.
    """

    if TYPE_CHECKING:

        def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
            """As `forward`."""

    def terms(self, logits: Tensor, targets: Tensor) -> LossTerms:
        """The objective of each example, its K losses and their weights 1 / K; arguments as `forward`."""
        losses = losses_against_targets(logits, targets, self.base_loss)
        return LossTerms(losses.mean(dim=1), losses, torch.full_like(losses, 1 / losses.shape[1]))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, K, C); for `"mse"` (N, K) or (N, K, 1).
            targets: (N,) classes shared by an example's samples, (N, K) classes, (N, C) probabilities shared by an
                example's samples, or (N, K, C) probabilities; for `"mse"` (N,) or (N, K) scores. With two dimensions
                integers are classes and floats are probabilities, even where C = K.

        Returns:
            A scalar, or (N,) with `reduction="none"`.

        Raises:
            ValueError: on shapes or dtypes that are none of these, K = 0, NaN or out-of-range targets, rows of
                probabilities that do not sum to 1. Values are not checked under `torch.compile` and `torch.func`.
        """
        return self._reduce(self.terms(logits, targets).loss)


class MMELHardLoss(UniformLoss):
    """MMEL-H: the maximal expected loss against given targets (Eq. 7); shapes and errors as `UniformLoss`.

    Args:
        lambda_p: the KL coefficient, positive and finite.
        base_loss: as `UniformLoss`.
        reduction: as `UniformLoss`.

    Raises:
        ValueError: if an argument is none of these.
    """

    def __init__(self, lambda_p: float = 1.0, base_loss: BaseLoss = "cross_entropy", reduction: str = "mean"):
        super().__init__(base_loss, reduction)
        check_coefficient("lambda_p", lambda_p)
        self.lambda_p = lambda_p

    def terms(self, logits: Tensor, targets: Tensor) -> LossTerms:
        """The objective of each example, its K losses and their weights P*; arguments as `forward`."""
        losses = losses_against_targets(logits, targets, self.base_loss)
        return LossTerms(
            maximal_expected_loss(losses, self.lambda_p), losses, augmentation_weights(losses, self.lambda_p)
        )


class WorstCaseLoss(UniformLoss):
    """The worst case over reweightings of an example's losses; shapes and errors as `UniformLoss`.

    With `KL(lambda_p)` this is `MMELHardLoss(lambda_p)`.

    Args:
        worst_case: `KL(lambda_p)`, `ChiSquare(rho)`, `CVaR(alpha)`, `Maximum()`, or another `WorstCase`.
        base_loss: as `UniformLoss`.
        reduction: as `UniformLoss`.

    Raises:
        ValueError: if an argument is none of these.
    """

    def __init__(self, worst_case: WorstCase, base_loss: BaseLoss = "cross_entropy", reduction: str = "mean"):
        super().__init__(base_loss, reduction)
        _check_worst_case(worst_case)
        self.worst_case = worst_case

    def terms(self, logits: Tensor, targets: Tensor) -> LossTerms:
        """The worst case of each example, its K losses and their weights; arguments as `forward`."""
        losses = losses_against_targets(logits, targets, self.base_loss)
        return LossTerms(self.worst_case.value(losses), losses, self.worst_case.weights(losses))


class MMELSoftLoss(_AugmentedLoss):
    """MMEL-S: fit the original to its label and the worst-case samples to the original's output (Eq. 8-9).

    `l(f(x), y) + lambda_t * maximal_expected_loss([l(f(z), f(x)) for z != x], lambda_p)`; the bracket of Eq. 8 is
    read as log((K - 1) P*), in line with Eq. 7.

    Args:
        lambda_p: the KL coefficient, positive and finite.
        lambda_t: the weight of the second term, positive and finite.
        base_loss: as `UniformLoss`; with `"kl"` the label term, which has no probability target, is cross-entropy.
            A callable gets the labels (N,) for the first term and probabilities (M, C) for the second.
        target_gradient: let the gradient flow through the soft target f(x) too (stopped by default, as in UDA).
        threshold: with `"mse"`, how far f(x) and the teacher may differ before the teacher's score is used.
        reduction: as `UniformLoss`.
        worst_case: of the second term, in place of `KL(lambda_p)`: any that `WorstCaseLoss` takes.

    Raises:
        ValueError: if an argument is none of these, or `lambda_p` is given beside `worst_case`.
    """

    if TYPE_CHECKING:

        def __call__(self, logits: Tensor, targets: Tensor, teacher_outputs: Tensor | None = None) -> Tensor:
            """As `forward`."""

    def __init__(
        self,
        lambda_p: float = 1.0,
        lambda_t: float = 1.0,
        base_loss: BaseLoss = "cross_entropy",
        target_gradient: bool = False,
        threshold: float = 0.5,
        reduction: str = "mean",
        worst_case: WorstCase | None = None,
    ):
        super().__init__(base_loss, reduction)
        check_coefficient("lambda_p", lambda_p)
        check_coefficient("lambda_t", lambda_t)
        if not (isinstance(threshold, int | float) and threshold >= 0):
            raise ValueError(f"threshold must be a number >= 0, got {threshold!r}")
        if worst_case is not None:
            _check_worst_case(worst_case)
            if lambda_p != 1.0:
                raise ValueError(f"lambda_p must be left out beside worst_case, got {lambda_p!r} and {worst_case!r}")
        self.lambda_p, self.worst_case, self.lambda_t = lambda_p, worst_case, lambda_t
        self.target_gradient = target_gradient
        self.threshold = threshold

    def terms(self, logits: Tensor, targets: Tensor, teacher_outputs: Tensor | None = None) -> LossTerms:
        """The objective of each example, its K - 1 soft losses and their weights; arguments as `forward`."""
        logits = check_logits(logits, self.base_loss, least=2)
        first_base = "cross_entropy" if self.base_loss == "kl" else self.base_loss
        if isinstance(targets, Tensor) and targets.dim() != 1:
            raise ValueError(f"targets must have shape (N,) = ({len(logits)},), got {tuple(targets.shape)}")
        original = losses_against_targets(logits[:, :1], targets, first_base)[:, 0]
        soft_targets = self.soft_targets(logits, teacher_outputs)
        losses = losses_of_samples(logits[:, 1:], soft_targets, self.base_loss)
        worst_case = self.worst_case or KL(self.lambda_p)
        objective = original + self.lambda_t * worst_case.value(losses)
        return LossTerms(objective, losses, worst_case.weights(losses))

    def forward(self, logits: Tensor, targets: Tensor, teacher_outputs: Tensor | None = None) -> Tensor:
        """The reweighted soft loss.

        Args:
            logits: (N, K, C) with K >= 2 and the original at index 0; for `"mse"` (N, K) or (N, K, 1).
            targets: (N,) the originals' classes, or scores for `"mse"`.
            teacher_outputs: (N, K, C) a teacher's probabilities, (N, K) or (N, K, 1) scores for `"mse"`, or None.
                Where the teacher puts z into another class than x (or, for `"mse"`, where its score is further than
                `threshold` from f(x)), its output replaces f(x) as z's target, in the loss and in P* alike.

        Returns:
            A scalar, or (N,) with `reduction="none"`.

        Raises:
            ValueError: as `UniformLoss`; also if K < 2, or if `teacher_outputs` are logits.
        """
        return self._reduce(self.terms(logits, targets, teacher_outputs).loss)

    def soft_targets(self, logits: Tensor, teacher_outputs: Tensor | None = None) -> Tensor:
        """The targets of the augmented samples: f(x), or the teacher's output in its place; arguments as `forward`.

        Returns:
            (N, K - 1, C) probabilities, or (N, K - 1) scores for `"mse"`.
        """
        logits = check_logits(logits, self.base_loss, least=2)
        original = logits[:, :1] if self.target_gradient else logits[:, :1].detach()
        regression = self.base_loss == "mse"
        own = (original if regression else original.softmax(dim=-1)).expand_as(logits[:, 1:])
        if teacher_outputs is None:
            return own
        if regression:
            teacher_outputs = without_last_dimension(teacher_outputs)
        if teacher_outputs.shape != logits.shape:
            raise ValueError(
                f"teacher_outputs must have shape {tuple(logits.shape)}, got {tuple(teacher_outputs.shape)}"
            )
        (check_finite if regression else check_probabilities)("teacher_outputs", teacher_outputs)
        teacher = teacher_outputs.to(own.dtype)
        if regression:
            return torch.where((own - teacher[:, 1:]).abs() > self.threshold, teacher[:, 1:], own)
        predicted = teacher.argmax(dim=-1)
        disagrees = predicted[:, 1:] != predicted[:, :1]
        return torch.where(disagrees[..., None], teacher[:, 1:], own)


def _check_worst_case(worst_case: WorstCase) -> None:
    if not isinstance(worst_case, WorstCase):
        raise ValueError(f"worst_case must be a WorstCase, such as KL(lambda_p=1.0), got {worst_case!r}")
