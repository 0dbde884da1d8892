"""One loss for each augmented sample: logits and targets of every accepted shape, checked, to losses (N, K)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

BaseLoss = str | Callable[[Tensor, Tensor], Tensor]

BASE_LOSSES = ("cross_entropy", "kl", "mse")


def losses_against_targets(logits: Tensor, targets: Tensor, base_loss: BaseLoss) -> Tensor:
    """(N, K) losses of the logits against hard targets, probabilities or scores, every shape checked.

    Args:
        logits: (N, K, C), or (N, K) or (N, K, 1) for `"mse"`.
        targets: (N,) or (N, K) classes or scores, or (N, K, C) probabilities.
        base_loss: one of BASE_LOSSES, or a callable that takes (N * K, C) and targets and returns (N * K,) losses.

    Raises:
        ValueError: on shapes or dtypes that are none of these, K = 0, NaN or out-of-range targets.
    """
    logits = check_logits(logits, base_loss, least=1)
    return losses_of_samples(logits, _expand_targets(logits, targets, base_loss), base_loss)


def _expand_targets(logits: Tensor, targets: Tensor, base_loss: BaseLoss) -> Tensor:
    """Targets as (N, K) classes or scores, or as (N, K, C) probabilities."""
    n, k = logits.shape[:2]
    scores = base_loss == "mse"
    if targets.is_floating_point():
        check_finite("targets", targets)
    elif scores:
        targets = targets.to(logits.dtype)
    if targets.shape == (n,) and (scores or not targets.is_floating_point()):
        targets = targets[:, None].expand(n, k)
    if scores:
        if targets.shape != (n, k):
            raise ValueError(f"targets must have shape ({n},) or ({n}, {k}) for 'mse', got {tuple(targets.shape)}")
        return targets.to(logits.dtype)
    if targets.is_floating_point():
        if targets.shape != logits.shape:
            raise ValueError(
                f"targets given as probabilities must have shape {tuple(logits.shape)}, got {tuple(targets.shape)}"
            )
        return targets.to(logits.dtype)
    if base_loss == "kl":
        raise ValueError(f"targets must be probabilities for base_loss='kl', got classes ({targets.dtype})")
    if targets.shape != (n, k):
        raise ValueError(f"targets given as classes must have shape ({n},) or ({n}, {k}), got {tuple(targets.shape)}")
    # On an accelerator this look at the values would wait for the device, which has its own assertion.
    if targets.device.type == "cpu" and targets.numel():
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= logits.shape[-1]:
            raise ValueError(f"targets must be classes in [0, {logits.shape[-1]}), got {low} to {high}")
    return targets.long()


def losses_of_samples(logits: Tensor, targets: Tensor, base_loss: BaseLoss) -> Tensor:
    """(N, K) base losses of checked logits (N, K, C) or (N, K) and targets of matching shape.

    Raises:
        ValueError: if a callable `base_loss` returns another shape than (N * K,).
    """
    n, k = logits.shape[:2]
    outputs, flat_targets = logits.flatten(0, 1), targets.flatten(0, 1)
    if base_loss == "cross_entropy":
        losses = F.cross_entropy(outputs, flat_targets, reduction="none")
    elif base_loss == "kl":
        # The smallest normal number stands in for 0, whose logarithm has no finite gradient.
        log_targets = flat_targets.clamp_min(torch.finfo(flat_targets.dtype).tiny).log()
        losses = (flat_targets * (log_targets - F.log_softmax(outputs, dim=-1))).sum(dim=-1)
    elif base_loss == "mse":
        losses = F.mse_loss(outputs, flat_targets, reduction="none")
    else:
        losses = base_loss(outputs, flat_targets)
        if losses.shape != (n * k,):
            raise ValueError(f"base_loss must return one loss a sample, ({n * k},), got {tuple(losses.shape)}")
    return losses.view(n, k)


def check_logits(logits: Tensor, base_loss: BaseLoss, least: int) -> Tensor:
    """Logits in float32 at least, (N, K, C), or (N, K) for regression.

    Raises:
        ValueError: if they are not floating, have another shape, or K is below `least`.
    """
    if not logits.is_floating_point():
        raise ValueError(f"logits must be a floating tensor, got {logits.dtype}")
    if base_loss == "mse":
        if logits.dim() == 3 and logits.shape[-1] == 1:
            logits = logits.squeeze(-1)
        if logits.dim() != 2:
            raise ValueError(f"logits must have shape (N, K) or (N, K, 1) for 'mse', got {tuple(logits.shape)}")
    elif logits.dim() != 3 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape (N, K, C), got {tuple(logits.shape)}")
    if logits.shape[1] < least:
        raise ValueError(f"logits must hold K >= {least} samples an example, got K = {logits.shape[1]}")
    return logits if logits.dtype == torch.float64 else logits.float()


def check_finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinite entries.

    Raises:
        ValueError: naming the argument and how many there are.
    """
    # A CUDA graph under capture cannot read a value back; whoever captures has run the step once before.
    if values.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(values)).sum())} NaN or infinite entries")
