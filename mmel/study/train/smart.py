"""SMART, the method that the paper compares with on GLUE: Jiang et al. 2020, from their equations and Algorithm 1.

To an example's loss come two terms: by how much the output can be made to change by a small change of the word
embeddings, and its distance to the output of the network's own past,

    lambda_s max { l_s(f(x~), f(x)) : ||x~ - x||_inf <= epsilon }  +  mu l_s(f(x), f(x; average)).

l_s is the symmetrised KL divergence, for regression the squared error. The constants are those that they name; of
lambda_s, which they choose from {1, 3, 5}, and of beta, which they raise to 0.999 after a tenth of the steps, it is one
value for all, see docs/decisions.md.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmel.study.train.sequences import Sequences, forward

LAMBDA_S = 5.0
MU = 1.0
# Of the moving average: its share that stays in a step.
BETA = 0.99
# Of the ascent: the bound on each number of the change, the scale of its random start, a step, and the number of them.
EPSILON = 1e-5
SIGMA = 1e-5
ETA = 1e-3
ASCENT_STEPS = 1


class Smart:
    """The two terms of SMART for a classifier of sequences.

    Its `average`, part of a checkpoint, is the network's exponential moving average, without gradient and dropout.
    """

    def __init__(self, model: nn.Module, is_regression: bool):
        self._model = model
        self._divergence = squared_error if is_regression else symmetrised_kl
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(BETA))
        # Its first update copies: from here on each is an average.
        self.average.update_parameters(model)
        self.average.requires_grad_(False).eval()

    def update(self, *_: object) -> None:
        """Average the network in: a hook of the optimizer, called after each of its steps."""
        self.average.update_parameters(self._model)

    def terms(self, sequences: Sequences, index: Tensor, outputs: Tensor) -> Tensor:
        """The two terms, weighted: (N,) of some examples with the network's outputs (N, 1, C) on them."""

        def change(noise: Tensor, outputs: Tensor) -> Tensor:
            return self._divergence(forward(self._model, sequences, index, noise), outputs)

        size = self._model.get_input_embeddings().embedding_dim
        start = SIGMA * torch.randn(len(index), int(sequences.lengths[index].max()), size, device=sequences.device)
        noise = ascend(lambda noise: change(noise, outputs.detach()), start)
        with torch.no_grad():
            past = forward(self.average.module, sequences, index)
        return LAMBDA_S * change(noise, outputs) + MU * self._divergence(outputs, past)


@torch.enable_grad()
def ascend(change: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
    """Make noise (N, L, D) worse by projected gradient ascent on `change`, which gives (N,).

    No number of the result is further than `EPSILON` from 0; it has no gradient.
    """
    for _ in range(ASCENT_STEPS):
        (gradient,) = torch.autograd.grad(change(noise.requires_grad_()).sum(), noise)
        largest = gradient.abs().amax(dim=(1, 2), keepdim=True)
        # Without a gradient, as in bf16 without dropout, the noise stays where it is.
        step = ETA * gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny)
        noise = (noise.detach() + step).clamp(-EPSILON, EPSILON)
    return noise


def symmetrised_kl(one: Tensor, other: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p) of the probabilities of two logits: (N, 1, C) -> (N,)."""
    log_p, log_q = (logits.float().log_softmax(dim=-1) for logits in (one, other))
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=(1, 2))


def squared_error(one: Tensor, other: Tensor) -> Tensor:
    """(N, 1, 1) -> (N,)."""
    return (one.float() - other.float()).square().sum(dim=(1, 2))
