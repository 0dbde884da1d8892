"""backward="sampled": the gradient of one drawn view in the place of all."""

import copy
import itertools

import pytest
import torch
from tiny import CPU, IMAGES, KINDS, task_of

from mmel.study.train import backward
from mmel.study.train.step import Step

pytestmark = pytest.mark.usefixtures("one_thread", "text_model")
K = 3
# A small lambda_p makes the weights unequal.
SAMPLED = {"backward": "sampled", "lambda_p": 0.02}


def gradients(task, index):
    """The terms of a batch, and all gradients of their mean loss."""
    task.model.zero_grad()
    torch.clear_autocast_cache()
    terms = task.terms(index, 1)
    terms.loss.mean().backward()
    return terms, torch.cat([p.grad.flatten() for p in task.model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("kind", "own_targets"), [("images", False), ("files", False), ("text", False), ("text", True)]
)
def test_the_expected_gradient_is_the_exact_one_without_batchnorm_and_dropout(kind, own_targets, store, monkeypatch):
    config, index, draws, asked = KINDS[kind].replace(**SAMPLED), torch.tensor([5, 2]), [], []
    exact, sampled = (task_of(config.replace(backward=name), store) for name in ("exact", "sampled"))
    for task in (exact, sampled):
        # BatchNorm does not see the batch then.
        task.model.eval()
        if own_targets:
            # As a teacher gives them: probabilities for each view.
            generator = torch.Generator().manual_seed(0)
            task.targets = torch.rand(config.train_size, K, 2, generator=generator).softmax(dim=-1)
    expected_terms, expected = gradients(exact, index)
    assert expected_terms.weights.amax(dim=1).min() > 0.35

    def given(losses, lambda_p):
        asked.append((losses, lambda_p))
        return torch.tensor(draws[-1])

    monkeypatch.setattr(backward, "sample_views", given)
    total, found = torch.zeros_like(expected), []
    for draw in itertools.product(range(K), repeat=len(index)):
        draws.append(draw)
        terms, gradient = gradients(sampled, index)
        found.append(gradient)
        total += expected_terms.weights[torch.arange(len(index)), list(draw)].prod() * gradient
        torch.testing.assert_close(terms, expected_terms)
    torch.testing.assert_close(total, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())
    # Draws differ far more than that.
    assert max((one - expected).norm() for one in found) > 1e-2 * expected.norm()
    # They are drawn from P*.
    torch.testing.assert_close(asked, [(expected_terms.sample_losses.detach(), 0.02)] * len(found))


def test_batchnorm_weighs_by_the_whole_batch_and_keeps_the_statistics_of_the_drawn_views():
    index = torch.arange(8)
    exact, sampled = (task_of(IMAGES.replace(**SAMPLED | {"backward": name})) for name in ("exact", "sampled"))
    drawn_only = copy.deepcopy(sampled.model)
    torch.manual_seed(3)
    terms, all_views = sampled.terms(index, 1), exact.terms(index, 1)
    assert torch.equal(terms.weights, all_views.weights)
    torch.manual_seed(3)
    views, drawn = sampled.views(index, 1)[0], torch.multinomial(all_views.weights, 1)[:, 0]
    drawn_only(sampled.normalize(views[torch.arange(8), drawn]))
    torch.testing.assert_close(dict(sampled.model.named_buffers()), dict(drawn_only.named_buffers()))


def test_in_bf16_every_weight_that_learns_still_learns(config, store):
    learning = []
    for name in ("exact", "sampled"):
        task = task_of(config.replace(backward=name), store)
        task.config = task.config.replace(precision="bf16")
        Step(task, CPU)(torch.arange(8), 1)
        learning.append({name for name, p in task.model.named_parameters() if p.grad is not None and p.grad.any()})
    assert learning[0] == learning[1]
