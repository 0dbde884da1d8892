r"""The maximal expected loss over augmented samples (Eq. 5-9 of the paper) and its two training losses.

Everything works on losses of shape (N, K): N training examples, K augmented samples of each. The worst case over all
reweightings of one example's samples has the closed form

    sup_P  sum_k P_k l_k - lambda_p KL(P || uniform)  =  lambda_p (logsumexp(l / lambda_p) - log K)

(Theorem 1), attained at P* = softmax(l / lambda_p) (Eq. 6). The gradient of the right-hand side is exactly
sum_k P*_k grad l_k, so nothing has to be detached: see docs/method.md.
"""

import sys
from typing import NamedTuple

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

REDUCTIONS = ("mean", "sum", "none")
# Beyond these the formulas have reached their limits, maximum and mean, and float32 would lose lambda_p itself.
LAMBDA_P_RANGE = (1e-30, 1e20)


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


def maximal_expected_loss(losses: Tensor, lambda_p: float) -> Tensor:
    """Worst expected loss over all reweightings of each row, less the KL penalty (Theorem 1, Eq. 5).

    Computed as `m + lambda_p * log1p(mean(expm1((losses - m) / lambda_p)))` with m the row's largest loss, which
    equals `lambda_p * (logsumexp(losses / lambda_p) - log K)` and keeps its accuracy at both ends: it tends to the
    row's maximum as lambda_p -> 0 and to its mean as lambda_p -> infinity.

    Args:
        losses: (N, K) one loss for each augmented sample, K >= 1.
        lambda_p: the KL coefficient, positive and finite, in the unit of the losses.

    Returns:
        (N,) the worst-case loss of each example, float32 at least; its gradient is sum_k P*_k grad losses[:, k]. A row
        with an infinite loss has that as its worst case, and no gradient; NaN makes its row NaN.

    Raises:
        ValueError: if `losses` is not a floating tensor (N, K) with K >= 1, or `lambda_p` is not positive and finite.
    """
    losses = _check_losses(losses)
    lambda_p = _check_coefficient("lambda_p", lambda_p)
    largest, gaps = _gaps(losses)
    return largest + lambda_p * torch.log1p(torch.expm1(gaps / lambda_p).mean(dim=1))


def augmentation_weights(losses: Tensor, lambda_p: float) -> Tensor:
    """The worst-case weights P* of each row: softmax(losses / lambda_p) (Eq. 6; Eq. 9 on soft losses).

    Args:
        losses: (N, K) one loss for each augmented sample, K >= 1.
        lambda_p: the KL coefficient, positive and finite.

    Returns:
        (N, K) weights without gradient, float32 at least; each row sums to one. Infinite losses share all of a row's
        weight equally; NaN makes its row NaN.

    Raises:
        ValueError: as `maximal_expected_loss`.
    """
    losses = _check_losses(losses)
    lambda_p = _check_coefficient("lambda_p", lambda_p)
    return torch.softmax(_gaps(losses.detach())[1] / lambda_p, dim=1)


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
        _check_coefficient("lambda_p", lambda_p)
        self.lambda_p = lambda_p

    def terms(self, logits: Tensor, targets: Tensor) -> LossTerms:
        """The objective of each example, its K losses and their weights P*; arguments as `forward`."""
        losses = losses_against_targets(logits, targets, self.base_loss)
        return LossTerms(
            maximal_expected_loss(losses, self.lambda_p), losses, augmentation_weights(losses, self.lambda_p)
        )


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

    Raises:
        ValueError: if an argument is none of these.
    """

    def __init__(
        self,
        lambda_p: float = 1.0,
        lambda_t: float = 1.0,
        base_loss: BaseLoss = "cross_entropy",
        target_gradient: bool = False,
        threshold: float = 0.5,
        reduction: str = "mean",
    ):
        super().__init__(base_loss, reduction)
        _check_coefficient("lambda_p", lambda_p)
        _check_coefficient("lambda_t", lambda_t)
        if not (isinstance(threshold, int | float) and threshold >= 0):
            raise ValueError(f"threshold must be a number >= 0, got {threshold!r}")
        self.lambda_p = lambda_p
        self.lambda_t = lambda_t
        self.target_gradient = target_gradient
        self.threshold = threshold

    def terms(self, logits: Tensor, targets: Tensor, teacher_outputs: Tensor | None = None) -> LossTerms:
        """The objective of each example, its K - 1 soft losses and their weights; arguments as `forward`."""
        logits = check_logits(logits, self.base_loss, least=2)
        first_base = "cross_entropy" if self.base_loss == "kl" else self.base_loss
        if targets.dim() != 1:
            raise ValueError(f"targets must have shape (N,) = ({len(logits)},), got {tuple(targets.shape)}")
        original = losses_against_targets(logits[:, :1], targets, first_base)[:, 0]
        soft_targets = self.soft_targets(logits, teacher_outputs)
        losses = losses_of_samples(logits[:, 1:], soft_targets, self.base_loss)
        worst = maximal_expected_loss(losses, self.lambda_p)
        weights = augmentation_weights(losses, self.lambda_p)
        return LossTerms(original + self.lambda_t * worst, losses, weights)

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


def _gaps(losses: Tensor) -> tuple[Tensor, Tensor]:
    """The largest loss of each row (N,), a constant, and how far each loss lies above it (N, K): 0 or below."""
    largest = losses.detach().amax(dim=1, keepdim=True)
    # Infinity less infinity would be NaN. On a GPU a look at the values would wait for the device; this does not.
    ends = torch.finfo(losses.dtype)
    return largest[:, 0], losses.clamp(ends.min, ends.max) - largest.clamp(ends.min, ends.max)


def _check_losses(losses: Tensor) -> Tensor:
    if losses.dim() != 2 or losses.shape[1] == 0:
        raise ValueError(f"losses must have shape (N, K) with K >= 1, got {tuple(losses.shape)}")
    if not losses.is_floating_point():
        raise ValueError(f"losses must be a floating tensor, got {losses.dtype}")
    return losses if losses.dtype == torch.float64 else losses.float()


def _check_coefficient(name: str, value: float) -> float:
    """The coefficient, brought into the range in which float32 can divide by it."""
    # Compared, not converted: an integer may be beyond all floats.
    if not (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    return min(max(value, LAMBDA_P_RANGE[0]), LAMBDA_P_RANGE[1])
