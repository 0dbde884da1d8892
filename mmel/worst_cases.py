"""The worst case over reweightings of an example's augmented losses: the paper's (Eq. 5-6) and its relatives.

Everything works on losses of shape (N, K): N training examples, K augmented samples of each. In each row the weights q,
none below 0 and their sum 1, are chosen against us. The gradient of a worst case is sum_k q*_k grad l_k, at the weights
q* that attain it (envelope theorem), so nothing has to be detached: see docs/method.md.
"""

import math
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

# Beyond these the formulas have reached their limits, maximum and mean, and float32 would lose lambda_p itself.
LAMBDA_P_RANGE = (1e-30, 1e20)
LARGEST_FLOAT = sys.float_info.max


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
    lambda_p = _in_range(lambda_p)
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
    lambda_p = _in_range(lambda_p)
    return torch.softmax(_gaps(losses.detach())[1] / lambda_p, dim=1)


def sample_views(losses: Tensor, lambda_p: float, generator: Generator | None = None) -> Tensor:
    """Draw one view of each example from P* (Eq. 6), to go backward on it alone.

    The gradient of the drawn views' mean loss is an unbiased estimate of the gradient of `MMELHardLoss`, if the network
    has neither BatchNorm nor dropout:

        drawn = views[torch.arange(n), sample_views(losses, lambda_p)]
        F.cross_entropy(model(drawn), labels).backward()

    With `losses` computed without gradient this is, by count, (K + 3) / 3K of the exact step: K views forward, one view
    forward and backward (twice a forward). BatchNorm takes its statistics from the drawn views in the second pass, and
    dropout leaves out other units: there the estimate is biased. See docs/method.md for a loop.

    Args:
        losses: (N, K) one loss for each augmented sample, K >= 1.
        lambda_p: the KL coefficient, positive and finite.
        generator: of the device of the losses; torch's default one if None.

    Returns:
        (N,) an index into the K views of each example, int64.

    Raises:
        ValueError: as `maximal_expected_loss`.
        RuntimeError: if a loss is NaN.
    """
    return torch.multinomial(augmentation_weights(losses, lambda_p), 1, generator=generator)[:, 0]


class WorstCase(ABC):
    """A worst case over reweightings; one of your own gives `weights`, and `value` if it is not their weighted sum."""

    @abstractmethod
    def weights(self, losses: Tensor) -> Tensor:
        """The weights that attain the worst case; equal losses get equal weights.

        Args:
            losses: (N, K) one loss for each augmented sample, K >= 1.

        Returns:
            (N, K) weights without gradient, float32 at least; each row sums to one. NaN makes its row NaN.

        Raises:
            ValueError: if `losses` is not a floating tensor (N, K) with K >= 1.
        """

    def value(self, losses: Tensor) -> Tensor:
        """The worst-case loss of each example.

        Args:
            losses: as `weights`.

        Returns:
            (N,) float32 at least, with the gradient sum_k weights[:, k] grad losses[:, k]. NaN makes its row NaN.

        Raises:
            ValueError: as `weights`.
        """
        losses = _check_losses(losses)
        weights = self.weights(losses)
        # A weight of 0 takes no part, not even of an infinite loss.
        return (weights * losses).masked_fill(weights == 0, 0).sum(dim=1)


@dataclass(frozen=True)
class KL(WorstCase):
    """max_q sum_k q_k l_k - lambda_p KL(q, uniform): the paper's worst case, Eq. 5-6 (Theorem 1).

    Li et al. 2021 ("Tilted empirical risk minimization") use this function of a batch's losses, with t = 1 / lambda_p.

    Args:
        lambda_p: the KL coefficient, positive and finite.

    Raises:
        ValueError: if it is not.
    """

    lambda_p: float = 1.0

    def __post_init__(self) -> None:
        check_coefficient("lambda_p", self.lambda_p)

    def weights(self, losses: Tensor) -> Tensor:
        """As `augmentation_weights`."""
        return augmentation_weights(losses, self.lambda_p)

    def value(self, losses: Tensor) -> Tensor:
        """As `maximal_expected_loss`."""
        return maximal_expected_loss(losses, self.lambda_p)


@dataclass(frozen=True)
class ChiSquare(WorstCase):
    """max_q sum_k q_k l_k in a chi-square ball around uniform weights: (1 / 2K) sum_k (K q_k - 1)^2 <= rho.

    Namkoong and Duchi 2017 ("Variance-based regularization with convex objectives") take it of a batch's losses. While
    no weight is 0 the value is mean + sqrt(2 rho) * standard deviation (that with 1 / K) of a row. From
    rho = (K - 1) / 2 on the ball holds all weights, and the value is the maximum.

    Args:
        rho: the radius of the ball, positive and finite.

    Raises:
        ValueError: if it is not.
    """

    rho: float

    def __post_init__(self) -> None:
        check_coefficient("rho", self.rho)

    def weights(self, losses: Tensor) -> Tensor:
        """The weights of the worst case, exact: they are linear in the loss where they are not 0, on the m largest."""
        losses = _check_losses(losses).detach()
        k, rho = losses.shape[1], self.rho
        if rho >= (k - 1) / 2:
            return _weights_of_largest(losses, 1)
        # Shift and scale of a row do not matter: its losses come to lie in [-1, 0].
        gaps = _gaps(losses)[1].clamp_min(torch.finfo(losses.dtype).min)
        spread = -gaps.amin(dim=1, keepdim=True)
        gaps = gaps / torch.where(spread > 0, spread, 1)
        ordered = gaps.sort(dim=1, descending=True).values
        # Of the m largest losses, for every m at once.
        counts = torch.arange(1, k + 1, device=losses.device, dtype=losses.dtype)
        means = ordered.cumsum(dim=1) / counts
        variances = (ordered.square().cumsum(dim=1) / counts - means.square()).clamp_min(0)
        # The radius at which the m-th weight comes down to 0; it never does among losses equal to the largest.
        squares = (means - ordered).square()
        radii = torch.where(squares > 0, ((1 + variances / squares) * k / counts - 1) / 2, math.inf)
        last = (radii >= rho).sum(dim=1, keepdim=True) - 1
        lowest, mean, variance = (values.gather(1, last) for values in (ordered, means, variances))
        m = counts[last]
        slopes = ((2 * rho - (k - m) / m) / (k * m * variance.masked_fill(variance == 0, math.inf))).clamp_min(0).sqrt()
        return (1 / m + slopes * (gaps - mean)).clamp_min(0).masked_fill(gaps < lowest, 0)


@dataclass(frozen=True)
class CVaR(WorstCase):
    """max_q sum_k q_k l_k where q_k <= 1 / (alpha K): the mean of the worst fraction alpha (conditional value at risk).

    Rockafellar and Uryasev 2000 ("Optimization of conditional value-at-risk"). If alpha K is not whole, the last loss
    of the fraction counts in part; up to alpha = 1 / K the value is the maximum.

    Args:
        alpha: the fraction, above 0 and at most 1.

    Raises:
        ValueError: if it is not.
    """

    alpha: float

    def __post_init__(self) -> None:
        check_coefficient("alpha", self.alpha)
        if self.alpha > 1:
            raise ValueError(f"alpha must be at most 1, got {self.alpha!r}")

    def weights(self, losses: Tensor) -> Tensor:
        """The weights of the worst case; equal losses at the end of the fraction share its rest."""
        losses = _check_losses(losses)
        return _weights_of_largest(losses, self.alpha * losses.shape[1])


@dataclass(frozen=True)
class Maximum(WorstCase):
    """max_k l_k, with any weights allowed: MaxUp (Gong et al. 2021), the limit lambda_p -> 0 of `KL`."""

    def weights(self, losses: Tensor) -> Tensor:
        """All weight on the largest loss; equal ones share it."""
        return _weights_of_largest(_check_losses(losses), 1)


def check_coefficient(name: str, value: float) -> None:
    """Refuse, with a ValueError, a coefficient that is not a positive finite number."""
    # Compared, not converted: an integer may be beyond all floats. torch.compile in torch 2.4 knows no union of types.
    if not (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LARGEST_FLOAT):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")


def _weights_of_largest(losses: Tensor, count: float) -> Tensor:
    """Equal weights on the `count` largest losses of each row, at least one; on the last of them in part."""
    count = max(count, 1)
    gaps = _gaps(losses.detach())[1]
    last = gaps.topk(math.ceil(count), dim=1).values[:, -1:]
    above, equal = (gaps > last).to(losses.dtype), (gaps == last).to(losses.dtype)
    # In a row of NaN nothing is equal: 0 * infinity is NaN again.
    rest = (1 - above.sum(dim=1, keepdim=True) / count) / equal.sum(dim=1, keepdim=True)
    return above / count + equal * rest


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


def _in_range(lambda_p: float) -> float:
    """The coefficient, checked and brought into the range in which float32 can divide by it."""
    check_coefficient("lambda_p", lambda_p)
    return min(max(lambda_p, LAMBDA_P_RANGE[0]), LAMBDA_P_RANGE[1])
