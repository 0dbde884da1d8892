"""SMART against networks small enough to work out, and against its equations one example at a time."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tiny import CPU, STILL, TEXT, task_of
from torch import nn

from mmel.study.train import smart
from mmel.study.train.sequences import Sequences
from mmel.study.train.smart import Smart
from mmel.study.train.step import Step

pytestmark = pytest.mark.usefixtures("one_thread")

RUN = TEXT.with_method("smart", 0).replace(**STILL)
BIG = {"EPSILON": 0.05, "SIGMA": 0.02, "ETA": 0.03}


@pytest.fixture
def big(monkeypatch):
    """Changes large enough to be told from rounding."""
    for name, value in BIG.items():
        monkeypatch.setattr(smart, name, value)


class Linear(nn.Module):
    """w . (the sum of the embeddings), without padding."""

    def __init__(self, weight):
        super().__init__()
        self.config = SimpleNamespace(hidden_size=len(weight), type_vocab_size=1)
        self.table = nn.Embedding(9, len(weight))
        self.weight = nn.Parameter(torch.tensor(weight))

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids=None, inputs_embeds=None):
        states = self.table(input_ids) if inputs_embeds is None else inputs_embeds
        return SimpleNamespace(logits=(states.sum(dim=1) @ self.weight)[:, None])


def test_on_a_linear_network_the_ascent_goes_along_its_weights(monkeypatch, big):
    monkeypatch.setattr(smart, "ETA", 1.0)
    # The change w . (the sum of the noise) has the gradient w at each of the three tokens, whose largest number is 2: a
    # step of 1 reaches the bound in each coordinate, on the side where the start was.
    weight = [1.0, -2.0, 0.5]
    model = Linear(weight)
    sequences = Sequences([[[1, 2, 3]], [[4, 5, 6]]], [[0] * 3] * 2, CPU)
    index = torch.arange(2)
    outputs = model(torch.tensor([[1, 2, 3], [4, 5, 6]])).logits[:, None]
    terms = Smart(model, is_regression=True).terms(sequences, index, outputs)
    largest = 3 * BIG["EPSILON"] * sum(map(abs, weight))
    # The network is its own average as yet.
    assert terms.tolist() == pytest.approx([5 * largest**2] * 2, rel=1e-4)


def by_the_equations(task, average, index):
    """Each example's loss, one by one, without padding."""
    found = []
    longest, width = int(task.sequences.lengths[index].max()), task.model.config.hidden_size
    starts = BIG["SIGMA"] * torch.randn(len(index), longest, width)
    for n, start in zip(index.tolist(), starts, strict=True):
        batch = task.sequences.batch(torch.tensor([n]))
        ids = batch.pop("input_ids")
        words = task.model.get_input_embeddings()(ids)
        output, past = task.model(ids, **batch).logits, average(ids, **batch).logits.detach()

        def l_s(one, other):
            if task.config.is_regression:
                return (one - other).square().sum()
            one, other = (logits.softmax(dim=-1).log() for logits in (one, other))
            return sum(F.kl_div(a, b, reduction="sum", log_target=True) for a, b in ((one, other), (other, one)))

        start = start[None, : ids.shape[1]].requires_grad_()
        change = l_s(task.model(inputs_embeds=words + start, **batch).logits, output.detach())
        (gradient,) = torch.autograd.grad(change, start)
        noise = start.detach() + BIG["ETA"] * gradient / gradient.abs().max()
        noise = noise.clamp(-BIG["EPSILON"], BIG["EPSILON"])
        near = task.model(inputs_embeds=words + noise, **batch).logits
        label = task.targets[n, None]
        own = F.mse_loss(output[:, 0], label) if task.config.is_regression else F.cross_entropy(output, label)
        found.append(own + 5 * l_s(near, output) + l_s(output, past))
    return torch.stack(found)


@pytest.mark.parametrize("name", ["grammar_cola", "grammar_stsb", "grammar_mnli"])
def test_loss_and_gradient_are_those_of_the_equations(name, store, text_model, big):
    task = task_of(RUN.replace(dataset=name), store)
    average = task.parts["average"].module
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    index, found = torch.arange(12), []
    for losses in (lambda: task.terms(index, 1).loss, lambda: by_the_equations(task, average, index)):
        torch.manual_seed(3)
        task.model.zero_grad()
        losses_of_all = losses()
        losses_of_all.sum().backward()
        found.append([losses_of_all, *(p.grad for p in task.model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert all(parameter.grad is None for parameter in average.parameters())


def test_the_change_is_within_its_bound_and_zero_gradients_do_no_harm(big):
    start = torch.tensor([[[0.02, -0.049]], [[0.03, 0.2]]])
    # The first gradient is (2, -1): a step of 0.03 along (1, -0.5), then the bound. The second has none.
    slopes = torch.tensor([[[2.0, -1.0]], [[0.0, 0.0]]])
    found = smart.ascend(lambda noise: (noise * slopes).sum(dim=(1, 2)), start)
    torch.testing.assert_close(found, torch.tensor([[[0.05, -0.05]], [[0.03, 0.05]]]))
    assert not found.requires_grad


def test_after_each_step_the_average_takes_a_hundredth_of_the_network(store, text_model):
    task = task_of(RUN, store)
    step, average = Step(task, CPU), task.parts["average"].module
    wanted = {name: value.clone() for name, value in task.model.state_dict().items()}
    for index in task.order(1).split(RUN.batch_size):
        step(index, 1)
        now = task.model.state_dict()
        wanted = {name: 0.99 * value + 0.01 * now[name] for name, value in wanted.items()}
    torch.testing.assert_close(average.state_dict(), wanted)
    assert not torch.equal(wanted["classifier.weight"], now["classifier.weight"])
