"""The loss of a step: its gradient from all views of an example (`exact`), or from one drawn view (`sampled`)."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from mmel.losses import LossTerms
from mmel.study.config import Run
from mmel.worst_cases import sample_views


def loss_terms(
    config: Run, model: nn.Module, criterion: nn.Module, logits: Callable[[Tensor | None], Tensor], *goals: Tensor
) -> LossTerms:
    """The loss of a batch as `config.backward` says; weights and value are those of all views in either case.

    If sampled, all views go through the network without gradient, then one view of each example, drawn from P* by the
    default generator, whose gradient becomes the loss's. The losses that weigh are those of the exact step, up to
    dropout. BatchNorm's running statistics see the second pass alone.

    Args:
        config: the run.
        model: the network, in training mode.
        criterion: the loss of the run's method.
        logits: given None, makes (N, K, C) of all views; given (N,) indices, (N, 1, C) of one view of each example.
        goals: of the loss beside the logits: targets (N,), or (N, K, ...) for each view, and a teacher's outputs.
    """
    if config.backward == "exact":
        return criterion.terms(logits(None), *goals)
    (targets,) = goals
    with torch.no_grad(), _running_statistics_kept(model):
        terms = criterion.terms(logits(None), targets)
    # Autocast would use weights again that it cast without gradient; torch 2.15 does not.
    torch.clear_autocast_cache()
    # Nothing can be drawn from NaN. The loss says that it is NaN, and the run stops.
    drawn = sample_views(terms.sample_losses.nan_to_num(), config.lambda_p)
    # The worst case over one view is its loss.
    own = criterion.terms(logits(drawn), targets if targets.dim() == 1 else of_drawn(targets, drawn)).loss
    return terms._replace(loss=terms.loss + (own - own.detach()))


def of_drawn(values: Tensor, drawn: Tensor) -> Tensor:
    """(N, K, ...) values of views and (N,) indices, on one device -> (N, 1, ...) values of those views."""
    return values[torch.arange(len(drawn), device=drawn.device), drawn][:, None]


@contextlib.contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalizes as it did, and notes nothing."""
    layers = [layer for layer in model.modules() if getattr(layer, "track_running_stats", False)]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
