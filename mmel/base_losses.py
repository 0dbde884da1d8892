"""One loss for each augmented sample: logits and targets of every accepted shape, checked, to losses (N, K)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

BaseLoss = str | Callable[[Tensor, Tensor], Tensor]

BASE_LOSSES = ("cross_entropy", "kl", "mse")
# How far the sum of a row of probabilities may lie from 1: rounding to bf16 moves it by up to 0.004.
SUM_TOLERANCE = 0.01


def losses_against_targets(logits: Tensor, targets: Tensor, base_loss: BaseLoss) -> Tensor:
    """(N, K) losses of the logits against hard targets, probabilities or scores, every shape checked.

    Args:
        logits: (N, K, C), or (N, K) or (N, K, 1) for `"mse"`.
        targets: (N,) or (N, K) classes or scores, (N, C) or (N, K, C) probabilities.
        base_loss: one of BASE_LOSSES, or a callable that takes (N * K, C) and targets and returns (N * K,) losses.

    Raises:
        ValueError: on shapes or dtypes that are none of these, K = 0, NaN or out-of-range targets. Values are not
            looked at under `torch.compile` and `torch.func`.
    """
    logits = check_logits(logits, base_loss, least=1)
    if not isinstance(targets, Tensor):
        raise ValueError(f"targets must be a tensor, got {type(targets).__name__}")
    return losses_of_samples(logits, _expand_targets(logits, targets, base_loss), base_loss)


def _expand_targets(logits: Tensor, targets: Tensor, base_loss: BaseLoss) -> Tensor:
    """Targets as (N, K) classes or scores, or as (N, K, C) probabilities."""
    n, k = logits.shape[:2]
    if base_loss == "mse":
        if targets.shape not in ((n,), (n, k)):
            raise ValueError(f"targets must have shape ({n},) or ({n}, {k}) for 'mse', got {tuple(targets.shape)}")
        check_finite("targets", targets)
        return _shared(targets, k, dims=1).to(logits.dtype)
    if targets.is_floating_point():
        shared, own = (n, logits.shape[-1]), tuple(logits.shape)
        if targets.shape not in (shared, own):
            raise ValueError(
                f"targets given as probabilities must have shape {shared} or {own}, got {tuple(targets.shape)}"
            )
        # What a callable takes need not be probabilities.
        (check_finite if callable(base_loss) else check_probabilities)("targets", targets)
        return _shared(targets, k, dims=2).to(logits.dtype)
    if base_loss == "kl":
        raise ValueError(f"targets must be probabilities for base_loss='kl', got classes ({targets.dtype})")
    if targets.shape not in ((n,), (n, k)):
        raise ValueError(f"targets given as classes must have shape ({n},) or ({n}, {k}), got {tuple(targets.shape)}")
    # On an accelerator this look at the values would wait for the device, which has its own assertion.
    if targets.device.type == "cpu" and targets.numel() and _can_be_read(targets):
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= logits.shape[-1]:
            raise ValueError(f"targets must be classes in [0, {logits.shape[-1]}), got {low} to {high}")
    return _shared(targets, k, dims=1).long()


def _shared(targets: Tensor, num_samples: int, dims: int) -> Tensor:
    """Targets (N, K, ...); those that have `dims` dimensions are shared by an example's samples."""
    return targets[:, None].expand(-1, num_samples, *targets.shape[1:]) if targets.dim() == dims else targets


def losses_of_samples(logits: Tensor, targets: Tensor, base_loss: BaseLoss) -> Tensor:
    """(N, K) base losses of checked logits (N, K, C) or (N, K) and targets of matching shape.

    Raises:
        ValueError: if a callable `base_loss` returns another shape than (N * K,).
    """
    n, k = logits.shape[:2]
    outputs, flat_targets = logits.flatten(0, 1), targets.flatten(0, 1)
    if callable(base_loss):
        losses = base_loss(outputs, flat_targets)
        if losses.shape != (n * k,):
            raise ValueError(f"base_loss must return one loss a sample, ({n * k},), got {tuple(losses.shape)}")
    elif base_loss == "cross_entropy":
        losses = F.cross_entropy(outputs, flat_targets, reduction="none")
    elif base_loss == "kl":
        # The smallest normal number stands in for 0, whose logarithm has no finite gradient.
        log_targets = flat_targets.clamp_min(torch.finfo(flat_targets.dtype).tiny).log()
        losses = (flat_targets * (log_targets - F.log_softmax(outputs, dim=-1))).sum(dim=-1)
    else:
        losses = F.mse_loss(outputs, flat_targets, reduction="none")
    return losses.view(n, k)


def check_logits(logits: Tensor, base_loss: BaseLoss, least: int) -> Tensor:
    """Logits in float32 at least, (N, K, C), or (N, K) for regression.

    Raises:
        ValueError: if they are not floating, have another shape, or K is below `least`.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ValueError(f"logits must be a floating tensor, got {getattr(logits, 'dtype', type(logits).__name__)}")
    if base_loss == "mse":
        logits = without_last_dimension(logits)
        if logits.dim() != 2:
            raise ValueError(f"logits must have shape (N, K) or (N, K, 1) for 'mse', got {tuple(logits.shape)}")
    elif logits.dim() != 3 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape (N, K, C), got {tuple(logits.shape)}")
    if logits.shape[1] < least:
        raise ValueError(f"logits must hold K >= {least} samples per example, got K = {logits.shape[1]}")
    return logits if logits.dtype == torch.float64 else logits.float()


def without_last_dimension(scores: Tensor) -> Tensor:
    """Scores (N, K) of (N, K, 1); others as they are."""
    return scores.squeeze(-1) if scores.dim() == 3 and scores.shape[-1] == 1 else scores


def check_finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinite entries.

    Raises:
        ValueError: naming the argument and how many there are.
    """
    if _can_be_read(values) and not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(values)).sum())} NaN or infinite entries")


def check_probabilities(name: str, values: Tensor) -> None:
    """Refuse rows that are no distribution: logits, NaN, counts.

    Raises:
        ValueError: naming the argument, and the range of its entries and of the rows' sums.
    """
    if not _can_be_read(values):
        return
    sums = values.float().sum(dim=-1)
    # One look at the values, since on a GPU each waits for the device. NaN compares as false.
    if not bool(((values >= 0).all(dim=-1) & ((sums - 1).abs() <= SUM_TOLERANCE)).all()):
        (low, high), (least, most) = ([float(end) for end in each.aminmax()] for each in (values, sums))
        raise ValueError(
            f"{name} must be probabilities, none below 0 and each row's sum 1, "
            f"got entries from {low:.4g} to {high:.4g} and sums from {least:.4g} to {most:.4g}"
        )


def _can_be_read(values: Tensor) -> bool:
    """Whether Python may look at the values: not in a compiled function, under `vmap`, or in a capture."""
    # The first comes first: `torch.compile` knows what it is, and not what follows.
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(values):
        return False
    # Whoever captures a CUDA graph has run the step once before.
    return not (values.is_cuda and torch.cuda.is_current_stream_capturing())
