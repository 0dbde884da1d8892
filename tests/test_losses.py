import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import nn

from mmel import MMELHardLoss, MMELSoftLoss, UniformLoss, augmentation_weights, maximal_expected_loss

pytestmark = pytest.mark.usefixtures("one_thread")

N, K, C = 3, 4, 5
LOSS_CLASSES = [MMELHardLoss, MMELSoftLoss, UniformLoss]
# The last integer is finite, and beyond all floats.
BAD_COEFFICIENTS = [0, 0.0, -1.0, math.inf, -math.inf, math.nan, True, "1", None, 10**400]


def random_tensor(*shape, seed=0, scale=1.0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(scale).to(dtype)


def random_losses(n, k, seed=0, dtype=torch.float64):
    return random_tensor(n, k, seed=seed, dtype=dtype).abs() * 2


def random_probabilities(*shape, seed=0, dtype=torch.float64):
    return random_tensor(*shape, seed=seed, scale=2.0).softmax(dim=-1).to(dtype)


def class_targets(*shape, seed=0):
    return torch.randint(C, shape, generator=torch.Generator().manual_seed(seed))


def gradient(loss, *inputs):
    return torch.autograd.grad(loss.sum(), inputs)


# Plain-Python references: no torch, one number at a time.


def soft_max(values):
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def cross_entropy_by_hand(logits, target):
    return -sum(q * math.log(p) for q, p in zip(target, soft_max(logits), strict=True))


def kl_by_hand(logits, target):
    return sum(q * math.log(q / p) for q, p in zip(target, soft_max(logits), strict=True) if q > 0)


def bracket_of_eq7(losses, lambda_p):
    """sum_z P* l - lambda_p P* log(|B| P*), term by term, with P* of Eq. 6."""
    weights = soft_max([loss / lambda_p for loss in losses])
    return sum(p * loss - lambda_p * p * math.log(len(losses) * p) for p, loss in zip(weights, losses, strict=True))


def numerical_supremum(losses, lambda_p):
    """The largest sum_k P_k l_k - lambda_p KL(P || uniform) over the simplex, found by search."""
    k = len(losses)

    def negative(p):
        return -(p @ losses - lambda_p * np.sum(p * np.log(k * p))) / lambda_p

    def jacobian(p):
        return -(losses - lambda_p * (np.log(k * p) + 1)) / lambda_p

    found = minimize(
        negative,
        np.full(k, 1 / k),
        jac=jacobian,
        method="SLSQP",
        bounds=[(1e-12, 1)] * k,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return -found.fun * lambda_p, found.x


# Theorem 1.


@pytest.mark.parametrize("lambda_p", [0.2, 1.0, 3.0, 50.0])
@pytest.mark.parametrize("k", [2, 5, 10])
def test_equals_the_supremum_over_the_simplex(k, lambda_p):
    losses = random_losses(3, k, seed=k)
    values, weights = maximal_expected_loss(losses, lambda_p), augmentation_weights(losses, lambda_p)
    for row, value, weight in zip(losses, values, weights, strict=True):
        best_value, best_weight = numerical_supremum(row.numpy(), lambda_p)
        assert value.item() == pytest.approx(best_value, rel=1e-8)
        np.testing.assert_allclose(weight.numpy(), best_weight, rtol=0, atol=2e-5)


@pytest.mark.parametrize("lambda_p", [0.05, 1.0, 20.0])
def test_gradient_of_the_closed_form_is_the_weights(lambda_p):
    losses = random_losses(4, 6).requires_grad_()
    (grad,) = gradient(maximal_expected_loss(losses, lambda_p), losses)
    torch.testing.assert_close(grad, augmentation_weights(losses, lambda_p), rtol=0, atol=1e-14)


def test_weights_are_detached_and_sum_to_one():
    losses = random_losses(4, 6).requires_grad_()
    weights = augmentation_weights(losses, 0.5)
    assert not weights.requires_grad
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("lambda_p", [1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e6])
def test_float32_agrees_with_float64_at_every_scale(lambda_p):
    losses = random_losses(20, 10, dtype=torch.float32)
    exact = losses.double()
    exact = lambda_p * (torch.logsumexp(exact / lambda_p, dim=1) - math.log(10))
    torch.testing.assert_close(maximal_expected_loss(losses, lambda_p).double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("lambda_p", [1e7, 1e10, 1e30])
def test_large_lambda_p_tends_to_the_mean(lambda_p):
    losses = random_losses(20, 10, dtype=torch.float32).requires_grad_()
    naive = lambda_p * (torch.logsumexp(losses / lambda_p, dim=1) - math.log(10))
    value = maximal_expected_loss(losses, lambda_p)
    torch.testing.assert_close(value, losses.mean(dim=1), rtol=1e-6, atol=0)
    # The tolerance means something: what one writes down first is far outside it.
    assert ((naive - losses.mean(dim=1)).abs() > 1e-2).any()
    torch.testing.assert_close(gradient(value, losses)[0], torch.full_like(losses, 0.1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("lambda_p", [1e-8, 1e-20, 1e-30])
def test_small_lambda_p_tends_to_the_maximum(lambda_p):
    losses = random_losses(20, 10, dtype=torch.float32).requires_grad_()
    value = maximal_expected_loss(losses, lambda_p)
    torch.testing.assert_close(value, losses.amax(dim=1), rtol=2e-7, atol=0)
    one_hot = F.one_hot(losses.argmax(dim=1), 10).float()
    torch.testing.assert_close(gradient(value, losses)[0], one_hot, rtol=1e-5, atol=0)
    torch.testing.assert_close(augmentation_weights(losses, lambda_p), one_hot, rtol=0, atol=0)


@pytest.mark.parametrize(("lambda_p", "limit"), [(1e-300, "max"), (1e-42, "max"), (1e42, "mean"), (1e300, "mean")])
def test_lambda_p_outside_the_range_of_float32_gives_the_limit(lambda_p, limit):
    # A Python float is a double: every positive finite one is promised to work, on float32 losses too.
    losses = torch.tensor([[1.0, 2.0, 6.0]], requires_grad=True)
    value = maximal_expected_loss(losses, lambda_p)
    expected_value, expected_weights = {"max": (6.0, [0.0, 0.0, 1.0]), "mean": (3.0, [1 / 3] * 3)}[limit]
    expected_weights = torch.tensor([expected_weights])
    torch.testing.assert_close(value, torch.tensor([expected_value]), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient(value, losses)[0], expected_weights, rtol=1e-5, atol=0)
    torch.testing.assert_close(augmentation_weights(losses, lambda_p), expected_weights, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lambda_p", [1e-30, 1.0, 1e20])
@pytest.mark.parametrize(
    ("row", "value", "weights"),
    [
        ([math.inf, 1.0, 2.0], math.inf, [1.0, 0.0, 0.0]),
        ([1.0, math.inf, math.inf], math.inf, [0.0, 0.5, 0.5]),
        ([math.inf] * 3, math.inf, [1 / 3] * 3),
        ([math.inf, -math.inf, 0.0], math.inf, [1.0, 0.0, 0.0]),
        ([-math.inf] * 3, -math.inf, [1 / 3] * 3),
        ([math.nan, 1.0, math.inf], math.nan, [math.nan] * 3),
    ],
    ids=str,
)
def test_infinite_losses_have_the_limits_of_the_formula(row, value, weights, lambda_p, dtype):
    losses = torch.tensor([row, [1.0, 2.0, 6.0]], dtype=dtype, requires_grad=True)
    found = maximal_expected_loss(losses, lambda_p)
    torch.testing.assert_close(found[0], torch.tensor(value, dtype=dtype), equal_nan=True)
    expected = torch.tensor(weights, dtype=dtype)
    torch.testing.assert_close(augmentation_weights(losses, lambda_p)[0], expected, equal_nan=True)
    # The rows beside it are as they were, in value and gradient.
    torch.testing.assert_close(found[1:], maximal_expected_loss(losses[1:], lambda_p))
    (grad,) = gradient(found, losses)
    torch.testing.assert_close(grad[1:], augmentation_weights(losses[1:], lambda_p), rtol=1e-5, atol=0)
    assert math.isnan(value) or grad.isfinite().all()


def test_a_sample_without_a_loss_weighs_nothing():
    # -inf is the loss of a sample that is as good as certain; the others share the weight.
    losses = torch.tensor([[-math.inf, 0.0, 0.0]], requires_grad=True)
    value = maximal_expected_loss(losses, 1.0)
    assert value.item() == pytest.approx(math.log(2 / 3))
    torch.testing.assert_close(gradient(value, losses)[0], torch.tensor([[0.0, 0.5, 0.5]]))


@pytest.mark.parametrize("base_loss", ["cross_entropy", "mse"])
def test_hard_loss_tends_to_the_uniform_loss(base_loss):
    logits = random_tensor(N, K, *([] if base_loss == "mse" else [C]), dtype=torch.float32)
    targets = random_tensor(N, seed=1) if base_loss == "mse" else class_targets(N)
    hard, uniform = MMELHardLoss(1e8, base_loss)(logits, targets), UniformLoss(base_loss)(logits, targets)
    torch.testing.assert_close(hard, uniform, rtol=1e-6, atol=0)


def test_ties_share_the_weight():
    losses = torch.tensor([[2.0, 1.0, 2.0]])
    assert augmentation_weights(losses, 1e-6).tolist() == [[0.5, 0.0, 0.5]]


@pytest.mark.parametrize("lambda_p", [0.1, 1.0, 10.0])
def test_permutation_shift_and_scale(lambda_p):
    losses, order = random_losses(4, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    value, weights = maximal_expected_loss(losses, lambda_p), augmentation_weights(losses, lambda_p)
    close = {"rtol": 1e-12, "atol": 0}
    torch.testing.assert_close(maximal_expected_loss(losses[:, order], lambda_p), value, **close)
    torch.testing.assert_close(augmentation_weights(losses[:, order], lambda_p), weights[:, order], **close)
    torch.testing.assert_close(maximal_expected_loss(losses + 7, lambda_p), value + 7, **close)
    torch.testing.assert_close(augmentation_weights(losses + 7, lambda_p), weights, **close)
    torch.testing.assert_close(maximal_expected_loss(3 * losses, 3 * lambda_p), 3 * value, **close)


@pytest.mark.parametrize("lambda_p", [1e-3, 1.0, 1e3])
def test_one_sample_keeps_its_loss(lambda_p):
    losses = random_losses(4, 1, dtype=torch.float32)
    assert torch.equal(maximal_expected_loss(losses, lambda_p), losses[:, 0])
    assert torch.equal(augmentation_weights(losses, lambda_p), torch.ones(4, 1))
    logits, targets = random_tensor(N, 1, C, dtype=torch.float32), class_targets(N)
    expected = F.cross_entropy(logits[:, 0], targets, reduction="none")
    assert torch.equal(MMELHardLoss(lambda_p, reduction="none")(logits, targets), expected)


def test_losses_of_zero_and_of_ten_thousand():
    losses = torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, 1e4], [1e4, 1e4, 1e4]], requires_grad=True)
    value = maximal_expected_loss(losses, 1.0)
    weights = torch.tensor([[1 / 3] * 3, [0.5, 0.0, 0.5], [1 / 3] * 3])
    expected = torch.tensor([0.0, 1e4 + math.log(2 / 3), 1e4])
    torch.testing.assert_close(value, expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(gradient(value, losses)[0], weights, rtol=1e-6, atol=0)
    torch.testing.assert_close(augmentation_weights(losses, 1.0), weights, rtol=1e-6, atol=0)


def test_weights_keep_their_accuracy_on_large_losses():
    # These differences are exact in float32, and the gradient of the closed form resolves them.
    losses = torch.tensor([[1e4, 1e4 - 2**-9, 1e4 - 2**-10]], requires_grad=True)
    exact = torch.softmax(losses.detach().double() / 1e-3, dim=1).float()
    torch.testing.assert_close(gradient(maximal_expected_loss(losses, 1e-3), losses)[0], exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(augmentation_weights(losses, 1e-3), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_confident_mistakes_have_finite_gradients(loss_class):
    logits = torch.zeros(1, 3, 2)
    logits[0, :, 0] = torch.tensor([1e4, -1e4, 0.0])
    logits.requires_grad_()
    loss = loss_class()(logits, torch.tensor([1]))
    assert loss.item() > 1e3
    assert torch.isfinite(gradient(loss, logits)[0]).all()


# The equations of the paper, term by term.


@pytest.mark.parametrize("lambda_p", [0.3, 1.0, 4.0])
def test_hard_loss_is_equation_7(lambda_p):
    logits, targets = random_tensor(N, K, C), class_targets(N)
    expected = [
        bracket_of_eq7([-math.log(soft_max(z)[y]) for z in sample], lambda_p)
        for sample, y in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    assert MMELHardLoss(lambda_p, reduction="none")(logits, targets).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("lambda_p", "lambda_t"), [(0.3, 1.0), (1.0, 0.5), (4.0, 2.0)])
def test_soft_loss_is_equation_8(lambda_p, lambda_t):
    logits, targets = random_tensor(N, K, C), class_targets(N)
    expected = []
    for (x, *variants), y in zip(logits.tolist(), targets.tolist(), strict=True):
        losses = [cross_entropy_by_hand(z, soft_max(x)) for z in variants]
        expected.append(-math.log(soft_max(x)[y]) + lambda_t * bracket_of_eq7(losses, lambda_p))
    loss = MMELSoftLoss(lambda_p, lambda_t, reduction="none")(logits, targets)
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("lambda_p", [0.1, 10.0])
def test_soft_loss_with_two_samples_has_nothing_to_weigh(lambda_p):
    logits, targets = random_tensor(N, 2, C), class_targets(N)
    terms = MMELSoftLoss(lambda_p, lambda_t=0.7).terms(logits, targets)
    assert torch.equal(terms.weights, torch.ones(N, 1, dtype=torch.float64))
    soft = F.cross_entropy(logits[:, 1], logits[:, 0].softmax(dim=-1), reduction="none")
    expected = F.cross_entropy(logits[:, 0], targets, reduction="none") + 0.7 * soft
    torch.testing.assert_close(terms.loss, expected, rtol=1e-12, atol=0)


# Gradients.


def probability_loss(loss_class, base_loss):
    loss, probabilities = loss_class(base_loss=base_loss), random_probabilities(N, K, C, seed=1)
    return lambda logits: loss(logits, probabilities)


GRADCHECKED = {
    "maximal_expected_loss": (lambda losses: maximal_expected_loss(losses, 0.5), (N, K)),
    "hard classes": (lambda z: MMELHardLoss(0.5)(z, class_targets(N)), (N, K, C)),
    "hard classes of each sample": (lambda z: MMELHardLoss(0.5)(z, class_targets(N, K)), (N, K, C)),
    "hard probabilities": (probability_loss(MMELHardLoss, "cross_entropy"), (N, K, C)),
    "hard kl": (probability_loss(MMELHardLoss, "kl"), (N, K, C)),
    "hard mse": (lambda z: MMELHardLoss(0.5, "mse")(z, random_tensor(N, seed=1)), (N, K)),
    "uniform": (lambda z: UniformLoss()(z, class_targets(N)), (N, K, C)),
    "soft": (lambda z: MMELSoftLoss(0.5, 2.0, target_gradient=True)(z, class_targets(N)), (N, K, C)),
    "soft kl": (lambda z: MMELSoftLoss(0.5, 2.0, "kl", target_gradient=True)(z, class_targets(N)), (N, K, C)),
    "soft mse": (
        lambda z: MMELSoftLoss(0.5, 2.0, "mse", target_gradient=True)(z, random_tensor(N, seed=1)),
        (N, K),
    ),
    "soft teacher": (
        lambda z: MMELSoftLoss(0.5, 2.0, target_gradient=True)(
            z, class_targets(N), random_probabilities(N, K, C, seed=1)
        ),
        (N, K, C),
    ),
    # With f(x) held fixed the numerical derivative does not see what the default stops.
    "soft stopped": (
        lambda z: MMELSoftLoss(0.5, 2.0)(torch.cat([random_tensor(N, 1, C, seed=2), z], 1), class_targets(N)),
        (N, K, C),
    ),
}


@pytest.mark.parametrize("name", GRADCHECKED)
def test_gradcheck(name):
    function, shape = GRADCHECKED[name]
    assert torch.autograd.gradcheck(function, random_tensor(*shape, seed=3).requires_grad_())


@pytest.mark.parametrize("method", ["hard", "soft", "uniform"])
def test_gradient_is_the_weighted_sum_of_per_sample_gradients(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, C)).double()
    parameters = list(model.parameters())
    inputs, targets = random_tensor(N, K, 6), class_targets(N)
    loss = {"hard": MMELHardLoss(0.2), "soft": MMELSoftLoss(0.2, 0.7), "uniform": UniformLoss()}[method]
    actual = gradient(loss(model(inputs), targets), *parameters)

    terms = loss.terms(model(inputs), targets)
    # Were all weights alike the test would not see them.
    assert (terms.weights.std(dim=1) > 0.05).all() == (method != "uniform")
    expected = [torch.zeros_like(p) for p in parameters]

    def add(sample_loss, weight):
        for total, grad in zip(expected, gradient(sample_loss, *parameters), strict=True):
            total += weight / N * grad

    for n in range(N):
        if method == "soft":
            add(F.cross_entropy(model(inputs[n, 0]), targets[n]), 1)
        for v, weight in enumerate(terms.weights[n].tolist()):
            if method == "soft":
                target = model(inputs[n, 0]).softmax(dim=-1).detach()
                add(F.cross_entropy(model(inputs[n, v + 1]), target), 0.7 * weight)
            else:
                add(F.cross_entropy(model(inputs[n, v]), targets[n]), weight)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("base_loss", ["cross_entropy", "kl", "mse"])
def test_gradient_through_the_soft_target_is_stopped_unless_asked_for(base_loss):
    regression = base_loss == "mse"
    logits = random_tensor(N, K, *([] if regression else [C])).requires_grad_()
    targets = random_tensor(N, seed=1) if regression else class_targets(N)
    first = F.mse_loss if regression else F.cross_entropy
    (label_term,) = gradient(first(logits[:, 0], targets), logits)

    def at_original(target_gradient):
        loss = MMELSoftLoss(base_loss=base_loss, target_gradient=target_gradient)
        return gradient(loss(logits, targets), logits)[0]

    stopped, flowing = at_original(False), at_original(True)
    torch.testing.assert_close(stopped[:, 0], label_term[:, 0], rtol=1e-12, atol=1e-15)
    assert ((flowing[:, 0] - label_term[:, 0]).abs() > 1e-3).any()
    assert torch.equal(stopped[:, 1:], flowing[:, 1:])


@pytest.mark.parametrize("base_loss", ["cross_entropy", "kl"])
def test_gradient_through_a_saturated_soft_target_is_finite(base_loss):
    # exp(-200) is zero in float32, not in float64.
    logits = torch.tensor([[[200.0, 0.0, 0.0], [0.0, 1.0, 2.0], [1.0, 1.0, 0.0]]])
    loss = MMELSoftLoss(base_loss=base_loss, target_gradient=True)
    grads = []
    for dtype in (torch.float32, torch.float64):
        z = logits.to(dtype).requires_grad_()
        grads += gradient(loss(z, torch.tensor([0])), z)
    torch.testing.assert_close(grads[0].double(), grads[1], rtol=1e-5, atol=1e-7)


# Targets and base losses.


def test_classes_shared_and_classes_of_each_sample():
    logits, shared = random_tensor(N, K, C), class_targets(N)
    loss = MMELHardLoss(reduction="none")
    assert torch.equal(loss(logits, shared), loss(logits, shared[:, None].repeat(1, K)))
    own = class_targets(N, K, seed=1)
    one_hot = F.one_hot(own, C).double()
    torch.testing.assert_close(loss(logits, own), loss(logits, one_hot), rtol=1e-12, atol=0)
    assert not torch.allclose(loss(logits, own), loss(logits, shared))


@pytest.mark.parametrize(("base_loss", "reference"), [("cross_entropy", cross_entropy_by_hand), ("kl", kl_by_hand)])
@pytest.mark.parametrize("loss_class", [MMELHardLoss, UniformLoss])
def test_probability_targets(loss_class, base_loss, reference):
    logits, targets = random_tensor(N, K, C), random_probabilities(N, K, C, seed=1)
    targets[0, 0] = F.one_hot(torch.tensor(2), C)
    expected = [
        [reference(z, q) for z, q in zip(*sample, strict=True)]
        for sample in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    losses = loss_class(base_loss=base_loss).terms(logits, targets).sample_losses
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_cross_entropy_and_kl_share_the_weights_where_samples_share_the_target():
    logits = random_tensor(N, K, C)
    shared = random_probabilities(N, 1, C, seed=1).repeat(1, K, 1)
    own = random_probabilities(N, K, C, seed=2)

    def weights(targets, base_loss):
        return MMELHardLoss(0.5, base_loss).terms(logits, targets).weights

    torch.testing.assert_close(weights(shared, "cross_entropy"), weights(shared, "kl"), rtol=1e-10, atol=0)
    assert ((weights(own, "cross_entropy") - weights(own, "kl")).abs() > 0.01).any()


def test_kl_takes_targets_with_zeros():
    logits = random_tensor(N, K, C, dtype=torch.float32).requires_grad_()
    one_hot = F.one_hot(class_targets(N, K), C).float()
    loss = MMELHardLoss(base_loss="kl")(logits, one_hot)
    torch.testing.assert_close(loss, MMELHardLoss()(logits, one_hot), rtol=1e-6, atol=0)
    assert torch.isfinite(gradient(loss, logits)[0]).all()


def soft_by_hand(logits, targets, teacher, reference, lambda_p, lambda_t):
    """Objective, losses and weights of the soft loss with a teacher: loops over Python numbers."""
    objectives, losses, weights = [], [], []
    for (x, *variants), y, (teacher_x, *teacher_variants) in zip(logits, targets, teacher, strict=True):
        row = []
        for z, teacher_z in zip(variants, teacher_variants, strict=True):
            disagrees = teacher_z.index(max(teacher_z)) != teacher_x.index(max(teacher_x))
            row.append(reference(z, teacher_z if disagrees else soft_max(x)))
        losses.append(row)
        weights.append(soft_max([loss / lambda_p for loss in row]))
        objectives.append(-math.log(soft_max(x)[y]) + lambda_t * bracket_of_eq7(row, lambda_p))
    return [torch.tensor(values, dtype=torch.float64) for values in (objectives, losses, weights)]


# The teacher's class of x is 0 for the first example and 1 for the second, the label another, f(x)'s class a third:
# "disagrees" compares the teacher with itself, and with nothing else.
TEACHER = [
    [[0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]],
    [[0.3, 0.4, 0.3], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]],
]
TEACHER_DISAGREES = [[False, True, True], [True, False, False]]
TEACHER_LABELS = [1, 2]
TEACHER_LOGITS = [
    [[0.1, 0.2, 1.5], [0.3, -0.2, 0.9], [1.0, 0.0, 0.4], [-0.5, 0.2, 0.1]],
    [[1.2, 0.3, -0.4], [0.0, 0.8, 0.2], [0.7, 0.6, -1.0], [0.1, 1.1, 0.3]],
]


@pytest.mark.parametrize(("base_loss", "reference"), [("cross_entropy", cross_entropy_by_hand), ("kl", kl_by_hand)])
def test_teacher_replaces_the_target_where_it_disagrees(base_loss, reference):
    logits, labels = torch.tensor(TEACHER_LOGITS, dtype=torch.float64), torch.tensor(TEACHER_LABELS)
    teacher = torch.tensor(TEACHER, dtype=torch.float64)
    loss = MMELSoftLoss(0.4, 1.5, base_loss)
    terms = loss.terms(logits, labels, teacher)
    objectives, losses, weights = soft_by_hand(TEACHER_LOGITS, TEACHER_LABELS, TEACHER, reference, 0.4, 1.5)
    torch.testing.assert_close(terms.sample_losses, losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms.weights, weights, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms.loss, objectives, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(logits, labels, teacher), objectives.mean(), rtol=1e-12, atol=0)
    # Exactly those losses, and every weight of a row with such a loss, differ from those without a teacher.
    alone = loss.terms(logits, labels)
    assert ((terms.sample_losses - alone.sample_losses).abs() > 1e-3).tolist() == TEACHER_DISAGREES
    assert ((terms.weights - alone.weights).abs() > 1e-3).all()


def test_teacher_that_agrees_changes_nothing():
    logits, targets = random_tensor(N, K, C), class_targets(N)
    teacher = random_probabilities(N, K, C, seed=1)
    # The same class for all, with other probabilities.
    teacher[..., 3] += 1
    teacher /= 2
    loss = MMELSoftLoss(reduction="none")
    assert torch.equal(loss(logits, targets, teacher), loss(logits, targets))


REGRESSION_SCORES = [[1.0, 1.2, 2.5, 0.4], [4.0, 3.0, 4.4, 4.1]]
REGRESSION_LABELS = [1.5, 3.75]
# Off f(x) by 9 (the original's, never looked at), 0.25, 0.75 and exactly 0.5; then by 9, 1, 0.125 and -2.
REGRESSION_TEACHER = [[10.0, 1.25, 1.75, 0.5], [13.0, 5.0, 4.125, 2.0]]


@pytest.mark.parametrize(
    ("threshold", "replaced"),
    [
        (0.5, [[False, True, False], [True, False, True]]),
        (0.1, [[True, True, True], [True, True, True]]),
        (1.0, [[False, False, False], [False, False, True]]),
    ],
)
def test_regression_with_a_teacher(threshold, replaced):
    lambda_p, lambda_t = 0.7, 1.5
    expected, expected_weights = [], []
    for (x, *variants), y, (_, *teacher), row in zip(
        REGRESSION_SCORES, REGRESSION_LABELS, REGRESSION_TEACHER, replaced, strict=True
    ):
        losses = [(z - (t if r else x)) ** 2 for z, t, r in zip(variants, teacher, row, strict=True)]
        expected.append((x - y) ** 2 + lambda_t * bracket_of_eq7(losses, lambda_p))
        expected_weights.append(soft_max([loss / lambda_p for loss in losses]))
    scores, labels, teacher = (
        torch.tensor(v, dtype=torch.float64) for v in (REGRESSION_SCORES, REGRESSION_LABELS, REGRESSION_TEACHER)
    )
    terms = MMELSoftLoss(lambda_p, lambda_t, "mse", threshold=threshold).terms(scores, labels, teacher)
    assert terms.loss.tolist() == pytest.approx(expected, rel=1e-12)
    expected_weights = torch.tensor(expected_weights, dtype=torch.float64)
    torch.testing.assert_close(terms.weights, expected_weights, rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_regression_scores_with_and_without_a_last_dimension(loss_class):
    scores, targets = random_tensor(N, K), random_tensor(N, seed=1)
    loss = loss_class(base_loss="mse", reduction="none")
    assert torch.equal(loss(scores, targets), loss(scores[..., None], targets))


@pytest.mark.parametrize("integer_targets", [False, True])
def test_regression_targets_go_along_the_examples(integer_targets):
    # N = K, where a wrong broadcast would pass unseen.
    scores, targets = random_tensor(3, 3), torch.tensor([1, 3, 5])
    losses = [[(scores[n, k] - targets[n]).item() ** 2 for k in range(3)] for n in range(3)]
    targets = targets if integer_targets else targets.double()
    for given in (targets, targets[:, None].repeat(1, 3)):
        terms = UniformLoss("mse").terms(scores, given)
        torch.testing.assert_close(terms.sample_losses, torch.tensor(losses, dtype=torch.float64), rtol=1e-12, atol=0)


def focal(outputs, targets):
    chosen = outputs.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]
    return -((1 - chosen.exp()) ** 2) * chosen


@pytest.mark.parametrize("loss_class", [MMELHardLoss, UniformLoss])
def test_a_callable_gets_flat_samples_example_by_example(loss_class):
    logits, targets = random_tensor(N, K, C), class_targets(N)
    seen = []

    def base_loss(outputs, flat_targets):
        seen.append((outputs, flat_targets))
        return focal(outputs, flat_targets)

    terms = loss_class(base_loss=base_loss).terms(logits, targets)
    ((outputs, flat_targets),) = seen
    assert outputs.shape == (N * K, C)
    assert torch.equal(outputs[1 * K + 2], logits[1, 2])
    assert flat_targets.tolist() == [y for y in targets.tolist() for _ in range(K)]
    torch.testing.assert_close(terms.sample_losses[1, 2], focal(logits[1, 2:3], targets[1:2])[0], rtol=1e-12, atol=0)


def test_soft_loss_gives_a_callable_labels_and_then_probabilities():
    logits, targets = random_tensor(N, K, C), class_targets(N)
    seen = []

    def base_loss(outputs, flat_targets):
        seen.append(flat_targets)
        return F.cross_entropy(outputs, flat_targets, reduction="none")

    loss = MMELSoftLoss(base_loss=base_loss)(logits, targets)
    torch.testing.assert_close(loss, MMELSoftLoss()(logits, targets), rtol=1e-12, atol=0)
    labels, probabilities = seen
    assert torch.equal(labels, targets)
    assert torch.equal(probabilities, logits[:, :1].softmax(dim=-1).repeat(1, K - 1, 1).flatten(0, 1))


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_reductions(loss_class):
    logits, targets = random_tensor(N, K, C), class_targets(N)
    each = loss_class(reduction="none")(logits, targets)
    assert each.shape == (N,)
    assert torch.equal(each, loss_class().terms(logits, targets).loss)
    for reduction, expected in (("sum", each.sum()), ("mean", each.sum() / N)):
        loss = loss_class(reduction=reduction)(logits, targets)
        assert loss.shape == ()
        torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)
    assert loss_class().reduction == "mean"


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_terms_hold_the_weights_of_their_losses(loss_class):
    logits, targets = random_tensor(N, K, C).requires_grad_(), class_targets(N)
    terms = loss_class().terms(logits, targets)
    uniform = loss_class is UniformLoss
    expected = torch.full((N, K), 1 / K).double() if uniform else augmentation_weights(terms.sample_losses, 1.0)
    torch.testing.assert_close(terms.weights, expected, rtol=1e-12, atol=0)
    assert not terms.weights.requires_grad
    assert terms.loss.requires_grad


# Precision.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("base_loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_half_precision_logits_are_computed_in_float32(loss_class, base_loss, dtype):
    shape = (N, K) if base_loss == "mse" else (N, K, C)
    targets = random_tensor(N, seed=1, dtype=torch.float32) if base_loss == "mse" else class_targets(N)
    logits = random_tensor(*shape, dtype=torch.float32)
    half = logits.to(dtype).requires_grad_()
    loss = loss_class(base_loss=base_loss)
    result = loss(half, targets)
    assert result.dtype == torch.float32
    # No further rounding than that of the logits themselves.
    assert torch.equal(result, loss(half.detach().float(), targets))
    torch.testing.assert_close(result, loss(logits, targets), rtol=10 * torch.finfo(dtype).eps, atol=0)
    (grad,) = gradient(result, half)
    assert grad.dtype == dtype
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("function", [maximal_expected_loss, augmentation_weights])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_losses_are_weighted_in_float32(function, dtype):
    losses = random_losses(N, K).to(dtype)
    result = function(losses, 0.5)
    assert result.dtype == torch.float32
    assert torch.equal(result, function(losses.float(), 0.5))


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_float64_stays_float64(loss_class):
    logits, targets = random_tensor(N, K, C), class_targets(N)
    terms = loss_class().terms(logits, targets)
    assert {value.dtype for value in terms} == {torch.float64}
    # Not float32 under another name.
    assert terms.loss.tolist() != loss_class(reduction="none")(logits.float(), targets).double().tolist()


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_autocast_does_not_lower_the_precision(loss_class):
    logits, targets = random_tensor(N, K, C, dtype=torch.float32), class_targets(N)
    loss = loss_class()
    with torch.autocast("cpu", torch.bfloat16):
        result = loss(logits, targets)
    assert result.dtype == torch.float32
    assert torch.equal(result, loss(logits, targets))


# Bad input: a ValueError that begins with the argument's name.


def raises_naming(argument):
    return pytest.raises(ValueError, match=rf"^{argument}\b.*got ")


@pytest.mark.parametrize("function", [maximal_expected_loss, augmentation_weights])
@pytest.mark.parametrize("losses", [torch.rand(3), torch.rand(2, 3, 4), torch.rand(2, 0), torch.ones(2, 3).long()])
def test_bad_losses(function, losses):
    with raises_naming("losses"):
        function(losses, 1.0)


@pytest.mark.parametrize("value", BAD_COEFFICIENTS)
def test_bad_coefficients(value):
    for function in (maximal_expected_loss, augmentation_weights):
        with raises_naming("lambda_p"):
            function(torch.rand(2, 3), value)
    for loss_class in (MMELHardLoss, MMELSoftLoss):
        with raises_naming("lambda_p"):
            loss_class(value)
    with raises_naming("lambda_t"):
        MMELSoftLoss(lambda_t=value)


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
@pytest.mark.parametrize(
    ("argument", "value"),
    [("base_loss", "hinge"), ("base_loss", None), ("base_loss", 1), ("reduction", "max"), ("reduction", None)],
)
def test_bad_options(loss_class, argument, value):
    with raises_naming(argument):
        loss_class(**{argument: value})


@pytest.mark.parametrize("value", [-0.5, math.nan, "0.5", None])
def test_bad_threshold(value):
    with raises_naming("threshold"):
        MMELSoftLoss(base_loss="mse", threshold=value)


LOGITS, CLASSES, PROBABILITIES = torch.zeros(N, K, C), torch.zeros(N).long(), torch.full((N, K, C), 1 / C)
SCORES, SCORE_TARGETS = torch.zeros(N, K), torch.zeros(N)


def with_value(tensor, value):
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


BAD_FOR_ALL = [
    ("logits", "cross_entropy", torch.zeros(N, C), CLASSES),
    ("logits", "cross_entropy", torch.zeros(N, K, C, 1), CLASSES),
    ("logits", "cross_entropy", torch.zeros(N, 0, C), CLASSES),
    ("logits", "cross_entropy", torch.zeros(N, K, 0), CLASSES),
    ("logits", "cross_entropy", LOGITS.long(), CLASSES),
    ("logits", "mse", LOGITS, SCORE_TARGETS),
    ("logits", "mse", torch.zeros(N), SCORE_TARGETS),
    ("logits", "mse", torch.zeros(N, 0), SCORE_TARGETS),
    ("targets", "cross_entropy", LOGITS, torch.zeros(N + 1).long()),
    ("targets", "cross_entropy", LOGITS, torch.zeros(N, K + 1).long()),
    ("targets", "cross_entropy", LOGITS, torch.zeros(N, 1).long()),
    ("targets", "cross_entropy", LOGITS, torch.zeros(N, K, C).long()),
    ("targets", "cross_entropy", LOGITS, torch.tensor(0)),
    ("targets", "cross_entropy", LOGITS, torch.zeros(N)),
    ("targets", "cross_entropy", LOGITS, with_value(CLASSES, C)),
    ("targets", "cross_entropy", LOGITS, with_value(CLASSES, -1)),
    ("targets", "cross_entropy", LOGITS, with_value(CLASSES, -100)),
    ("targets", "mse", SCORES, torch.zeros(N + 1)),
    ("targets", "mse", SCORES, torch.zeros(N, 1)),
    ("targets", "mse", SCORES, torch.zeros(N, K, 1)),
    ("targets", "mse", SCORES, torch.tensor(0.0)),
    ("targets", "mse", SCORES, with_value(SCORE_TARGETS, math.nan)),
    ("targets", "mse", SCORES, with_value(SCORE_TARGETS, math.inf)),
    ("base_loss", lambda outputs, targets: outputs.mean(), LOGITS, CLASSES),
    ("base_loss", lambda outputs, targets: outputs[:, :1], LOGITS, CLASSES),
    ("base_loss", lambda outputs, targets: outputs[1:, 0], LOGITS, CLASSES),
]
BAD_FOR_HARD = [
    ("targets", "cross_entropy", LOGITS, torch.zeros(N, C)),
    ("targets", "cross_entropy", LOGITS, torch.zeros(N, K, C + 1)),
    ("targets", "cross_entropy", LOGITS, torch.zeros(N, 1, C)),
    ("targets", "cross_entropy", LOGITS, with_value(PROBABILITIES, math.nan)),
    ("targets", "cross_entropy", LOGITS, with_value(torch.zeros(N, K).long(), C)),
    ("targets", "kl", LOGITS, with_value(PROBABILITIES, math.nan)),
    ("targets", "kl", LOGITS, CLASSES),
    ("targets", "kl", LOGITS, torch.zeros(N, K).long()),
    ("targets", "mse", SCORES, with_value(torch.zeros(N, K), math.nan)),
]
BAD_FOR_SOFT = [
    ("logits", "cross_entropy", LOGITS[:, :1], CLASSES),
    ("logits", "mse", SCORES[:, :1], SCORE_TARGETS),
    ("targets", "cross_entropy", LOGITS, torch.zeros(N, K).long()),
    ("targets", "cross_entropy", LOGITS, PROBABILITIES),
    ("targets", "kl", LOGITS, with_value(CLASSES, C)),
    ("targets", "mse", SCORES, torch.zeros(N, K)),
]


@pytest.mark.parametrize(
    ("loss_class", "argument", "base_loss", "logits", "targets"),
    [(loss_class, *bad) for bad in BAD_FOR_ALL for loss_class in LOSS_CLASSES]
    + [(loss_class, *bad) for bad in BAD_FOR_HARD for loss_class in (MMELHardLoss, UniformLoss)]
    + [(MMELSoftLoss, *bad) for bad in BAD_FOR_SOFT],
)
def test_bad_logits_and_targets(loss_class, argument, base_loss, logits, targets):
    loss = loss_class(base_loss=base_loss)
    with raises_naming(argument):
        loss(logits, targets)
    with raises_naming(argument):
        loss.terms(logits, targets)


@pytest.mark.parametrize(
    ("base_loss", "teacher"),
    [
        ("cross_entropy", PROBABILITIES[:, 1:]),
        ("cross_entropy", PROBABILITIES[:, 0]),
        ("cross_entropy", PROBABILITIES[..., :-1]),
        ("cross_entropy", PROBABILITIES[:-1]),
        ("cross_entropy", with_value(PROBABILITIES, math.nan)),
        ("kl", with_value(PROBABILITIES, math.inf)),
        ("mse", SCORES[:, 1:]),
        ("mse", SCORES[:, :1]),
        ("mse", with_value(SCORES, math.nan)),
    ],
)
def test_bad_teacher_outputs(base_loss, teacher):
    logits, targets = (SCORES, SCORE_TARGETS) if base_loss == "mse" else (LOGITS, CLASSES)
    with raises_naming("teacher_outputs"):
        MMELSoftLoss(base_loss=base_loss)(logits, targets, teacher)
