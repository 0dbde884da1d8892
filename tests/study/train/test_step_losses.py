"""The losses of each method on a real step, worked out again by a plain loop over the examples and their samples."""

import itertools
import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from tiny import CPU, FILES, IMAGES, TAUGHT, one_by_one, task_of

from mmel import ChiSquare, CVaR
from mmel.augment.images import build_augmentation
from mmel.augment.resized_crop import center_crop
from mmel.augment.text import MaskedLMAugmenter, encode
from mmel.study.data import DataError
from mmel.study.data.glue import subset
from mmel.study.data.images import split_train
from mmel.study.datasets import dataset
from mmel.study.methods import methods_for
from mmel.study.models.encoder import load_classifier, load_masked_lm, load_tokenizer
from mmel.study.needs import teacher_of
from mmel.study.train import checkpoint
from mmel.study.train.step import Step

pytestmark = pytest.mark.usefixtures("one_thread")
K = 3


def base_loss(config, outputs, target):
    """The loss of one sample: outputs (C,), and a class, probabilities or a score."""
    if config.is_regression:
        return (outputs[0].item() - float(target)) ** 2
    if not isinstance(target, torch.Tensor) or not target.dim():
        target = F.one_hot(torch.tensor(int(target)), len(outputs)).float()
    entropy = -sum(p * math.log(p) for p in target.tolist() if p > 0) if config.base_loss == "kl" else 0.0
    return -(target * outputs.log_softmax(dim=0)).sum().item() - entropy


def worst(losses, lambda_p):
    """The maximal expected loss of one example and its weights (Eq. 5 and 6)."""
    parts = [math.exp(loss / lambda_p) for loss in losses]
    return lambda_p * math.log(sum(parts) / len(parts)), [part / sum(parts) for part in parts]


def by_hand(config, logits, label, targets, teacher=None):
    """Loss and weights of one example: logits (V, C), its label, its samples' targets, what a teacher says of them."""
    if config.method != "mmel_s":
        losses = [base_loss(config, outputs, target) for outputs, target in zip(logits, targets, strict=True)]
        if config.method == "mmel_h":
            return worst(losses, config.lambda_p)
        if config.method in ("cvar", "chi_square"):
            worst_case = CVaR(config.alpha) if config.method == "cvar" else ChiSquare(config.rho)
            (weights,) = worst_case.weights(torch.tensor([losses])).tolist()
            return sum(weight * loss for weight, loss in zip(weights, losses, strict=True)), weights
        return sum(losses) / len(losses), [1 / len(losses)] * len(losses)
    losses = []
    for n in range(1, len(logits)):
        target = logits[0, 0] if config.is_regression else logits[0].softmax(dim=0)
        if teacher is not None and config.is_regression:
            target = teacher[n] if abs(teacher[n] - target) > 0.5 else target
        elif teacher is not None and teacher[n].argmax() != teacher[0].argmax():
            target = teacher[n]
        losses.append(base_loss(config, logits[n], target))
    value, weights = worst(losses, config.lambda_p)
    first = base_loss(config.replace(base_loss="cross_entropy"), logits[0], label)
    return first + config.lambda_t * value, weights


def assert_step(task, index, expected):
    """A step's mean loss, and the sums of its weights' entropies, largest weights and effective numbers of views."""
    with torch.no_grad():
        terms = task.terms(index, 1)
    assert terms.loss.tolist() == pytest.approx([loss for loss, _ in expected], rel=1e-4, abs=1e-5)
    for found, (_, weights) in zip(terms.weights.tolist(), expected, strict=True):
        assert found == pytest.approx(weights, abs=1e-4)
    loss, (entropy, largest, effective) = Step(task, CPU)(index, 1)
    assert loss.item() == pytest.approx(sum(loss for loss, _ in expected) / len(index), rel=1e-4)
    in_nats = -sum(w * math.log(w) for _, ws in expected for w in ws if w)
    assert entropy.item() == pytest.approx(in_nats, rel=1e-3, abs=1e-5)
    assert largest.item() == pytest.approx(sum(max(ws) for _, ws in expected), rel=1e-4)
    assert effective.item() == pytest.approx(sum(1 / sum(w * w for w in ws) for _, ws in expected), rel=1e-3)


# Images.


@pytest.mark.parametrize(
    "changes",
    [
        *({"method": method} for method in methods_for("images") if method != "chi_square"),
        {"method": "chi_square", "rho": 0.2},
        {"method": "mmel_h", "lambda_p": 0.5, "original": "augmented"},
        {"method": "mmel_s", "lambda_p": 0.5, "lambda_t": 2.0, "target_gradient": True},
        {"method": "mmel_s", "base_loss": "kl"},
        {"method": "mmel_h", "redraw": False},
        {"method": "mmel_h", "lambda_p": 0.5, "backward": "sampled"},
    ],
    ids=str,
)
def test_a_step_on_images(changes):
    config = IMAGES.replace(num_augmented=1 if changes["method"] == "baseline_da" else K, **changes)
    task, index = task_of(config), torch.tensor([3, 20, 1, 8])
    task.model.eval()
    full, _ = config.data.load()
    train, _ = split_train(full, config.train_size)
    pixels, labels = train.pixels[index], train.labels[index]
    # A method that trains on one view never sees x; else it is first, unless it is one more random view.
    clean = config.plan.all_views and config.original == "clean"
    augmentation = build_augmentation("crop", 8)
    codes = augmentation.draw(index, config.num_views - clean, seed=0, epoch=int(config.redraw))
    views = augmentation.apply(pixels, codes)
    if clean:
        views = torch.cat([pixels[:, None], views], dim=1)
    assert torch.equal(task.views(index, 1)[0], views)
    values = full.pixels.double() / 255
    inputs = ((views.double() / 255 - values.mean()) / values.std(correction=0)).float()
    with torch.no_grad():
        logits = torch.stack([torch.stack([task.model(view[None])[0] for view in row]) for row in inputs])
    expected = [by_hand(config, one, label, [label] * len(one)) for one, label in zip(logits, labels, strict=True)]
    assert_step(task, index, expected)


def test_an_image_file_that_cannot_be_decoded_is_left_out_of_its_batch(few_files):
    task, index = task_of(FILES), torch.arange(4)
    task.model.eval()
    files = dataset("drawings").load()[0]
    views, labels = task.views(index, 1)
    assert views.shape == (4, K, 3, 32, 32)
    assert torch.equal(views[:, 0], center_crop([files.decode(place)[1] for place in range(4)], 32))
    assert not torch.equal(views[:, 1:], task.views(index, 2)[0][:, 1:])
    assert task_of(FILES.replace(method="baseline_da", num_augmented=1)).views(index, 1)[0].shape[1] == 1
    few_files.add("train/checks/001.jpg")
    part = task_of(FILES)
    part.model.eval()
    assert torch.equal(part.views(index, 1)[0], views[[0, 2, 3]])
    with torch.no_grad():
        logits = task.model(task.normalize(views.flatten(0, 1))).unflatten(0, (4, K))
    expected = [by_hand(FILES, one, label, [label] * K) for one, label in zip(logits, labels, strict=True)]
    # The batch's loss is still divided by its size.
    assert_step(part, index, [expected[place] for place in (0, 2, 3)])


def test_files_none_of_which_can_be_decoded_are_an_error(few_files):
    train, _ = dataset("drawings").load()
    few_files.update(train.read(index)[0] for index in range(len(train)))
    with pytest.raises(DataError, match="drawings"):
        task_of(FILES).terms(torch.arange(8), 1)


# Text.


@cache
def materials(name, small_bert):
    """Labels, token ids (24, K) and types of the training texts, and (24, K) outputs of a teacher of many minds."""
    data = dataset(name)
    train, tokenizer = subset(data.load()["train"], 24), load_tokenizer(small_bert)
    ids = MaskedLMAugmenter(load_masked_lm(small_bert), tokenizer, K).ids(train.sentences, train.pairs)
    types = [entry.type_ids for entry in encode(tokenizer, train.sentences, train.pairs)]
    torch.manual_seed(7)
    network = load_classifier(small_bert, data.num_outputs, 0.1, 0.1)
    with torch.no_grad():
        # Each output has mean 0 and a deviation at which both sides of every threshold are met.
        outputs, head = one_by_one(network, ids, types).flatten(0, 1), network.classifier
        scale = 0.4 / outputs.std(dim=0)
        head.bias.sub_(outputs.mean(dim=0)).mul_(scale)
        head.weight.mul_(scale[:, None])
    said = one_by_one(network, ids, types)
    return train.targets, ids, types, network, said[..., 0] if data.is_regression else said.softmax(dim=-1)


# SMART's are in `test_smart`.
TEXT_METHODS = [method for method in methods_for("text") if method != "smart"]
TEXT_STEPS = (
    *({"method": method} for method in TEXT_METHODS),
    *({"method": method, "label_source": "original"} for method in TEXT_METHODS[1:]),
    {"method": "mmel_h", "lambda_p": 0.5},
    {"method": "mmel_h", "backward": "sampled"},
    {"method": "mmel_s", "lambda_p": 0.5, "lambda_t": 2.0},
)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *itertools.product(("grammar_cola", "grammar_stsb", "grammar_mnli"), TEXT_STEPS),
        *(("grammar_cola", {"method": method, "base_loss": "kl"}) for method in ("mmel_h", "mmel_s")),
    ],
    ids=str,
)
def test_a_step_on_text(name, changes, store, text_model):
    config = TAUGHT.with_method(changes["method"], seed=0).replace(dataset=name, **changes)
    labels, ids, types, network, said = materials(name, text_model)
    if teacher := teacher_of(config):
        checkpoint.save(store.weights_path(teacher), {"model": network.state_dict(), "score": 62.5})
    task = task_of(config, store)
    task.model.eval()
    logits = one_by_one(task.model, ids, types)
    if teacher:
        if config.is_regression:
            apart = (said[:, 1:] - said[:, :1]).abs() > 0.5
        else:
            apart = said.argmax(-1)[:, 1:] != said.argmax(-1)[:, :1]
        assert 0 < apart.sum() < apart.numel()
        assert task.provenance["teacher_disagreement_pct"] == pytest.approx(100 * apart.float().mean().item())
    expected = []
    for n, label in enumerate(labels):
        # x keeps its y; each variant takes what the teacher says.
        targets = [label, *(said[n, 1:] if teacher else [label] * (K - 1))]
        if config.method == "baseline":
            expected.append(by_hand(config, logits[n, :1], label, [label]))
        elif config.method == "baseline_da_long":
            # Every sample is an example of its own.
            expected += [by_hand(config, logits[n, k : k + 1], label, [targets[k]]) for k in range(K)]
        else:
            expected.append(by_hand(config, logits[n], label, targets, said[n] if teacher else None))
    # The same batch size, so K times the steps.
    assert task.steps == len(expected) // config.batch_size
    index = torch.randperm(len(expected), generator=torch.Generator().manual_seed(0))
    assert_step(task, index, [expected[place] for place in index])


@pytest.mark.parametrize("changes", [{"mask_ratio": 0.2}, {"fill": "beam"}, {"pair_mode": "joint"}], ids=str)
def test_every_setting_of_the_augmentation_reaches_it(changes, store, text_model):
    config = TAUGHT.replace(dataset="grammar_rte", label_source="original")
    digests = {task_of(each, store).provenance["augmented_texts"] for each in (config, config.replace(**changes))}
    assert len(digests) == 2


def test_all_runs_share_the_samples_but_not_the_network(store, text_model, monkeypatch):
    # "Generated once, offline" (section 3.3).
    config = TAUGHT.replace(label_source="original")
    tasks = [task_of(each, store) for each in (config, config.replace(seed=5), config.replace(method="mmel_s", lr=1.0))]
    assert len({task.provenance["augmented_texts"] for task in tasks}) == 1
    one, other, same = (task.model.state_dict()["classifier.weight"] for task in tasks)
    assert not torch.equal(one, other)
    assert torch.equal(one, same)
    # A baseline needs no masked LM.
    monkeypatch.setattr("mmel.study.train.encoder.load_masked_lm", None)
    assert set(task_of(teacher_of(TAUGHT), store).provenance) == {"text_model"}
