import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from mmel import MMELHardLoss, MMELSoftLoss, UniformLoss, augmentation_weights, maximal_expected_loss

pytestmark = pytest.mark.usefixtures("one_thread")

N, K, C = 3, 4, 5
HARD = [MMELHardLoss, UniformLoss]
SOFT = [MMELSoftLoss]
ALL = HARD + SOFT
EXACT = {"rtol": 1e-12, "atol": 0}


def random_tensor(*shape, seed=0, scale=1.0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(scale).to(dtype)


def random_losses(n, k, seed=0, dtype=torch.float64):
    return random_tensor(n, k, seed=seed, dtype=dtype).abs() * 2


def random_probabilities(*shape, seed=1):
    return random_tensor(*shape, seed=seed, scale=2.0).softmax(dim=-1)


def class_targets(*shape, seed=0):
    return torch.randint(C, shape, generator=torch.Generator().manual_seed(seed))


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


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


def squared_by_hand(score, target):
    return (score - target) ** 2


def bracket_of_eq7(losses, lambda_p):
    """sum_z P* l - lambda_p P* log(|B| P*), term by term, with P* of Eq. 6."""
    weights = soft_max([loss / lambda_p for loss in losses])
    return sum(p * loss - lambda_p * p * math.log(len(losses) * p) for p, loss in zip(weights, losses, strict=True))


def numerical_supremum(losses, lambda_p):
    """The largest sum_k P_k l_k - lambda_p KL(P || uniform) over the simplex, found by search."""
    k = len(losses)
    found = minimize(
        lambda p: -(p @ losses - lambda_p * np.sum(p * np.log(k * p))) / lambda_p,
        np.full(k, 1 / k),
        jac=lambda p: -(losses - lambda_p * (np.log(k * p) + 1)) / lambda_p,
        method="SLSQP",
        bounds=[(1e-12, 1)] * k,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return -found.fun * lambda_p, found.x


# Theorem 1 and its limits.


@pytest.mark.parametrize("lambda_p", [0.2, 1.0, 50.0])
@pytest.mark.parametrize("k", [2, 10])
def test_equals_the_supremum_over_the_simplex(k, lambda_p):
    losses = random_losses(3, k, seed=k)
    values, weights = maximal_expected_loss(losses, lambda_p), augmentation_weights(losses, lambda_p)
    for row, value, weight in zip(losses, values, weights, strict=True):
        best_value, best_weight = numerical_supremum(row.numpy(), lambda_p)
        assert value.item() == pytest.approx(best_value, rel=1e-8)
        np.testing.assert_allclose(weight.numpy(), best_weight, rtol=0, atol=2e-5)


@pytest.mark.parametrize("lambda_p", [0.05, 1.0, 20.0])
def test_the_gradient_is_the_weights_which_have_none(lambda_p):
    losses = random_losses(4, 6).requires_grad_()
    weights = augmentation_weights(losses, lambda_p)
    (grad,) = gradient(maximal_expected_loss(losses, lambda_p), losses)
    torch.testing.assert_close(grad, weights, rtol=0, atol=1e-14)
    assert not weights.requires_grad
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4).double(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("lambda_p", [1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e6])
def test_float32_agrees_with_float64_at_every_scale(lambda_p):
    losses = random_losses(20, 10, dtype=torch.float32)
    exact = lambda_p * (torch.logsumexp(losses.double() / lambda_p, dim=1) - math.log(10))
    torch.testing.assert_close(maximal_expected_loss(losses, lambda_p).double(), exact, rtol=1e-6, atol=0)


# A Python float is a double: every positive finite one works, on float32 losses too.
@pytest.mark.parametrize("lambda_p", [1e-300, 1e-42, 1e-30, 1e-20, 1e-8, 1e7, 1e10, 1e30, 1e42, 1e300])
def test_the_ends_are_the_maximum_and_the_mean(lambda_p):
    losses = random_losses(20, 10, dtype=torch.float32).requires_grad_()
    if lambda_p < 1:
        limit, weights = losses.amax(dim=1), F.one_hot(losses.argmax(dim=1), 10).float()
    else:
        limit, weights = losses.mean(dim=1), torch.full_like(losses, 0.1)
    value = maximal_expected_loss(losses, lambda_p)
    torch.testing.assert_close(value, limit, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient(value, losses)[0], weights, rtol=1e-5, atol=0)
    torch.testing.assert_close(augmentation_weights(losses, lambda_p), weights, rtol=1e-5, atol=0)


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


@pytest.mark.parametrize(
    ("row", "lambda_p", "value", "weights"),
    [
        # -inf is the loss of a sample that is as good as certain; the others share the weight.
        ([-math.inf, 0.0, 0.0], 1.0, math.log(2 / 3), [0.0, 0.5, 0.5]),
        ([2.0, 1.0, 2.0], 1e-6, 2.0, [0.5, 0.0, 0.5]),
        ([0.0, 0.0, 0.0], 1.0, 0.0, [1 / 3] * 3),
        ([1e4, 0.0, 1e4], 1.0, 1e4 + math.log(2 / 3), [0.5, 0.0, 0.5]),
        # These differences are exact in float32, and the weights resolve them.
        ([1e4, 1e4 - 2**-9, 1e4 - 2**-10], 1e-3, 1e4, soft_max([0.0, -1000 / 2**9, -1000 / 2**10])),
    ],
    ids=str,
)
def test_ties_and_large_losses(row, lambda_p, value, weights):
    losses, weights = torch.tensor([row], requires_grad=True), torch.tensor([weights])
    found = maximal_expected_loss(losses, lambda_p)
    torch.testing.assert_close(found, torch.tensor([value]), rtol=2e-6, atol=0)
    torch.testing.assert_close(gradient(found, losses)[0], weights, rtol=1e-5, atol=0)
    torch.testing.assert_close(augmentation_weights(losses, lambda_p), weights, rtol=1e-5, atol=0)


@pytest.mark.parametrize("lambda_p", [0.1, 10.0])
def test_permutation_shift_scale_and_one_sample(lambda_p):
    losses, order = random_losses(4, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    value, weights = maximal_expected_loss(losses, lambda_p), augmentation_weights(losses, lambda_p)
    torch.testing.assert_close(maximal_expected_loss(losses[:, order], lambda_p), value, **EXACT)
    torch.testing.assert_close(augmentation_weights(losses[:, order], lambda_p), weights[:, order], **EXACT)
    torch.testing.assert_close(maximal_expected_loss(losses + 7, lambda_p), value + 7, **EXACT)
    torch.testing.assert_close(augmentation_weights(losses + 7, lambda_p), weights, **EXACT)
    torch.testing.assert_close(maximal_expected_loss(3 * losses, 3 * lambda_p), 3 * value, **EXACT)
    assert torch.equal(maximal_expected_loss(losses[:, :1], lambda_p), losses[:, 0])


# The equations of the paper, term by term.


@pytest.mark.parametrize("lambda_p", [0.3, 4.0])
def test_hard_loss_is_equation_7_and_uniform_is_equation_1(lambda_p):
    logits, targets = random_tensor(N, K, C), class_targets(N)
    losses = [
        [-math.log(soft_max(z)[y]) for z in views] for views, y in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    hard, uniform = MMELHardLoss(lambda_p).terms(logits, targets), UniformLoss().terms(logits, targets)
    torch.testing.assert_close(hard.loss, doubles([bracket_of_eq7(row, lambda_p) for row in losses]), **EXACT)
    torch.testing.assert_close(uniform.loss, doubles(losses).mean(dim=1), **EXACT)
    torch.testing.assert_close(hard.weights, (doubles(losses) / lambda_p).softmax(dim=1), **EXACT)
    torch.testing.assert_close(uniform.weights, torch.full((N, K), 1 / K).double(), **EXACT)
    for terms in (hard, uniform):
        torch.testing.assert_close(terms.sample_losses, doubles(losses), **EXACT)


# The teacher's class of x is 0 for the first example and 1 for the second, the label another, f(x)'s class a third:
# "disagrees" compares the teacher with itself, and with nothing else.
TEACHER = [
    [[0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]],
    [[0.3, 0.4, 0.3], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]],
]
TEACHER_DISAGREES = [[False, True, True], [True, False, False]]
LABELS = [1, 2]
LOGITS_BY_HAND = [
    [[0.1, 0.2, 1.5], [0.3, -0.2, 0.9], [1.0, 0.0, 0.4], [-0.5, 0.2, 0.1]],
    [[1.2, 0.3, -0.4], [0.0, 0.8, 0.2], [0.7, 0.6, -1.0], [0.1, 1.1, 0.3]],
]
SCORES_BY_HAND = [[1.0, 1.2, 2.5, 0.4], [4.0, 3.0, 4.4, 4.1]]
SCORE_LABELS = [1.5, 3.75]
# Off f(x) by 9 (the original's, never looked at), 0.25, 0.75 and exactly 0.5; then by 9, 1, 0.125 and -2.
SCORE_TEACHER = [[10.0, 1.25, 1.75, 0.5], [13.0, 5.0, 4.125, 2.0]]
NEVER = [[False] * 3] * 2


@pytest.mark.parametrize("num_views", [2, 4])
@pytest.mark.parametrize(
    ("base_loss", "threshold", "replaced"),
    [
        ("cross_entropy", 0.5, NEVER),
        ("cross_entropy", 0.5, TEACHER_DISAGREES),
        ("kl", 0.5, NEVER),
        ("kl", 0.5, TEACHER_DISAGREES),
        ("mse", 0.5, NEVER),
        ("mse", 0.5, [[False, True, False], [True, False, True]]),
        ("mse", 0.1, [[True, True, True], [True, True, True]]),
        ("mse", 1.0, [[False, False, False], [False, False, True]]),
    ],
)
def test_soft_loss_is_equation_8_with_the_teacher_where_it_disagrees(base_loss, threshold, replaced, num_views):
    lambda_p, lambda_t, scores = 0.4, 1.5, base_loss == "mse"
    logits, labels, teacher = (
        (SCORES_BY_HAND, SCORE_LABELS, SCORE_TEACHER) if scores else (LOGITS_BY_HAND, LABELS, TEACHER)
    )
    reference = {"cross_entropy": cross_entropy_by_hand, "kl": kl_by_hand, "mse": squared_by_hand}[base_loss]
    objectives, losses = [], []
    for (x, *views), y, (_, *says), row in zip(logits, labels, teacher, replaced, strict=True):
        own, first = (x, (x - y) ** 2) if scores else (soft_max(x), -math.log(soft_max(x)[y]))
        found = zip(views[: num_views - 1], says, row, strict=False)
        losses.append([reference(z, theirs if wins else own) for z, theirs, wins in found])
        objectives.append(first + lambda_t * bracket_of_eq7(losses[-1], lambda_p))
    loss = MMELSoftLoss(lambda_p, lambda_t, base_loss, threshold=threshold)
    outputs = None if replaced is NEVER else doubles(teacher)[:, :num_views]
    terms = loss.terms(doubles(logits)[:, :num_views], torch.tensor(labels), outputs)
    tolerance = {"rtol": 1e-12, "atol": 1e-15}
    torch.testing.assert_close(terms.sample_losses, doubles(losses), **tolerance)
    torch.testing.assert_close(terms.weights, (doubles(losses) / lambda_p).softmax(dim=1), **tolerance)
    torch.testing.assert_close(terms.loss, doubles(objectives), **tolerance)
    assert not terms.weights.requires_grad


# Gradients.

SCORES, SCORE_TARGETS = random_tensor(N, K), random_tensor(N, seed=1)
PROBABILITIES = random_probabilities(N, K, C)
GRADCHECKED = [
    (MMELHardLoss(0.5), class_targets(N)),
    (MMELHardLoss(0.5), class_targets(N, K)),
    (MMELHardLoss(0.5), PROBABILITIES),
    (MMELHardLoss(0.5, "kl"), PROBABILITIES),
    (MMELHardLoss(0.5, "mse"), SCORE_TARGETS),
    (UniformLoss(), class_targets(N)),
    (MMELSoftLoss(0.5, 2.0, target_gradient=True), class_targets(N)),
    (MMELSoftLoss(0.5, 2.0, target_gradient=True), class_targets(N), PROBABILITIES),
    (MMELSoftLoss(0.5, 2.0, "kl", target_gradient=True), class_targets(N)),
    (MMELSoftLoss(0.5, 2.0, "mse", target_gradient=True), SCORE_TARGETS),
]


@pytest.mark.parametrize("case", GRADCHECKED, ids=lambda case: str(case[0]))
def test_gradcheck(case):
    loss, *arguments = case
    shape = (N, K) if loss.base_loss == "mse" else (N, K, C)
    logits = random_tensor(*shape, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, *arguments), logits)


@pytest.mark.parametrize("base_loss", ["cross_entropy", "kl", "mse"])
def test_gradient_through_the_soft_target_is_stopped_unless_asked_for(base_loss):
    scores = base_loss == "mse"
    logits = random_tensor(N, K, *([] if scores else [C])).requires_grad_()
    targets = SCORE_TARGETS if scores else class_targets(N)
    (label_term,) = gradient((F.mse_loss if scores else F.cross_entropy)(logits[:, 0], targets), logits)

    def grad(target_gradient):
        return gradient(MMELSoftLoss(base_loss=base_loss, target_gradient=target_gradient)(logits, targets), logits)[0]

    stopped, flowing = grad(False), grad(True)
    torch.testing.assert_close(stopped[:, 0], label_term[:, 0], rtol=1e-12, atol=1e-15)
    assert ((flowing[:, 0] - label_term[:, 0]).abs() > 1e-3).any()
    assert torch.equal(stopped[:, 1:], flowing[:, 1:])


@pytest.mark.parametrize("scale", [200.0, 1e4])
@pytest.mark.parametrize(
    "loss",
    [
        MMELHardLoss(),
        UniformLoss(),
        MMELSoftLoss(),
        MMELSoftLoss(target_gradient=True),
        MMELSoftLoss(base_loss="kl", target_gradient=True),
    ],
    ids=str,
)
def test_confident_mistakes_have_the_gradients_of_float64(loss, scale):
    # exp(-200) is zero in float32, not in float64.
    logits = torch.tensor([[[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1 / scale, 2 / scale]]]) * scale
    grads = []
    for dtype in (torch.float32, torch.float64):
        z = logits.to(dtype).requires_grad_()
        grads += gradient(loss(z, torch.tensor([1])), z)
    torch.testing.assert_close(grads[0].double(), grads[1], rtol=1e-5, atol=1e-7)


# Targets and base losses of every accepted shape.


@pytest.mark.parametrize(("base_loss", "reference"), [("cross_entropy", cross_entropy_by_hand), ("kl", kl_by_hand)])
@pytest.mark.parametrize("loss_class", HARD)
def test_probability_targets(loss_class, base_loss, reference):
    logits, targets = random_tensor(N, K, C).requires_grad_(), PROBABILITIES.clone()
    # Zeros, whose logarithm is minus infinity.
    targets[0, 0] = F.one_hot(torch.tensor(2), C)
    expected = [
        [reference(z, q) for z, q in zip(*views, strict=True)]
        for views in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    terms = loss_class(base_loss=base_loss).terms(logits, targets)
    torch.testing.assert_close(terms.sample_losses, doubles(expected), **EXACT)
    assert torch.isfinite(gradient(terms.loss, logits)[0]).all()


OWN_CLASSES, SHARED_CLASSES = class_targets(N, K, seed=1), class_targets(N)
SHARED_PROBABILITIES = random_probabilities(N, C)
# C = K, where the dtype alone tells classes of each sample from probabilities shared by them.
SQUARE = random_tensor(N, C, C)


@pytest.mark.parametrize(
    ("base_loss", "logits", "targets", "same"),
    [
        ("cross_entropy", random_tensor(N, K, C), SHARED_CLASSES, SHARED_CLASSES[:, None].repeat(1, K)),
        ("cross_entropy", random_tensor(N, K, C), OWN_CLASSES, F.one_hot(OWN_CLASSES, C).double()),
        ("cross_entropy", random_tensor(N, K, C), SHARED_CLASSES.int(), SHARED_CLASSES),
        ("cross_entropy", random_tensor(N, K, C), SHARED_PROBABILITIES, SHARED_PROBABILITIES[:, None].repeat(1, K, 1)),
        ("kl", random_tensor(N, K, C), SHARED_PROBABILITIES, SHARED_PROBABILITIES[:, None].repeat(1, K, 1)),
        ("cross_entropy", SQUARE, SHARED_PROBABILITIES, SHARED_PROBABILITIES[:, None].repeat(1, C, 1)),
        ("cross_entropy", SQUARE, class_targets(N, C), F.one_hot(class_targets(N, C), C).double()),
        # N = K, where a wrong broadcast would pass unseen.
        ("mse", random_tensor(3, 3), doubles([1, 3, 5]), doubles([1, 3, 5])[:, None].repeat(1, 3)),
        ("mse", random_tensor(3, 3), torch.tensor([1, 3, 5]), doubles([1, 3, 5])),
    ],
)
@pytest.mark.parametrize("loss_class", HARD)
def test_targets_that_mean_the_same(loss_class, base_loss, logits, targets, same):
    loss = loss_class(base_loss=base_loss, reduction="none")
    torch.testing.assert_close(loss(logits, targets), loss(logits, same), **EXACT)


def test_regression_scores_with_and_without_a_last_dimension():
    for loss_class in ALL:
        loss = loss_class(base_loss="mse", reduction="none")
        assert torch.equal(loss(SCORES, SCORE_TARGETS), loss(SCORES[..., None], SCORE_TARGETS))
    loss, teacher = MMELSoftLoss(base_loss="mse", threshold=0.0), random_tensor(N, K, seed=2)
    expected = loss(SCORES, SCORE_TARGETS, teacher)
    for scores in (SCORES, SCORES[..., None]):
        assert torch.equal(loss(scores, SCORE_TARGETS, teacher[..., None]), expected)


def test_cross_entropy_and_kl_share_the_weights_where_samples_share_the_target():
    def weights(targets, base_loss):
        return MMELHardLoss(0.5, base_loss).terms(random_tensor(N, K, C), targets).weights

    shared, own = SHARED_PROBABILITIES, PROBABILITIES
    torch.testing.assert_close(weights(shared, "cross_entropy"), weights(shared, "kl"), rtol=1e-10, atol=0)
    assert ((weights(own, "cross_entropy") - weights(own, "kl")).abs() > 0.01).any()


@pytest.mark.parametrize("loss_class", ALL)
def test_a_callable_gets_flat_samples_and_targets_example_by_example(loss_class):
    logits, targets, seen = random_tensor(N, K, C), class_targets(N), []

    def base_loss(outputs, flat_targets):
        seen.append((outputs, flat_targets))
        return F.cross_entropy(outputs, flat_targets, reduction="none")

    loss = loss_class(base_loss=base_loss)(logits, targets)
    torch.testing.assert_close(loss, loss_class()(logits, targets), **EXACT)
    if loss_class is MMELSoftLoss:
        own = logits[:, :1].softmax(dim=-1)
        expected = [(logits[:, 0], targets), (logits[:, 1:].flatten(0, 1), own.repeat(1, K - 1, 1).flatten(0, 1))]
    else:
        expected = [(logits.flatten(0, 1), targets.repeat_interleave(K))]
    for got, want in zip(seen, expected, strict=True):
        assert all(map(torch.equal, got, want))


def test_a_callable_may_take_targets_that_are_no_probabilities():
    def base_loss(outputs, targets):
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(dim=-1)

    logits, labels = random_tensor(N, K, C), torch.ones(N, C).double()
    loss = MMELHardLoss(base_loss=base_loss)
    assert torch.equal(loss(logits, labels), loss(logits, labels[:, None].repeat(1, K, 1)))


@pytest.mark.parametrize("loss_class", ALL)
def test_reductions(loss_class):
    logits, targets = random_tensor(N, K, C), class_targets(N)
    each = loss_class(reduction="none")(logits, targets)
    assert torch.equal(each, loss_class().terms(logits, targets).loss)
    assert torch.equal(loss_class(reduction="sum")(logits, targets), each.sum())
    assert torch.equal(loss_class()(logits, targets), each.mean())


# Precision.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    losses = random_losses(N, K).to(dtype)
    for function in (maximal_expected_loss, augmentation_weights):
        assert torch.equal(function(losses, 0.5), function(losses.float(), 0.5))
    for loss_class in ALL:
        for base_loss, shape in (("mse", (N, K)), ("cross_entropy", (N, K, C))):
            targets = SCORE_TARGETS if base_loss == "mse" else class_targets(N)
            half = random_tensor(*shape, dtype=dtype).requires_grad_()
            loss = loss_class(base_loss=base_loss)
            result = loss(half, targets)
            assert torch.equal(result, loss(half.detach().float(), targets))
            (grad,) = gradient(result, half)
            assert grad.dtype == dtype
            assert torch.isfinite(grad).all()


@pytest.mark.parametrize("loss_class", ALL)
def test_float64_stays_and_autocast_lowers_nothing(loss_class):
    logits, targets, loss = random_tensor(N, K, C), class_targets(N), loss_class(reduction="none")
    exact, single = loss.terms(logits, targets), loss(logits.float(), targets)
    assert {value.dtype for value in exact} == {torch.float64}
    # Not float32 under another name.
    assert exact.loss.tolist() != single.double().tolist()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(logits.float(), targets), single)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_probabilities_may_be_rounded(dtype):
    # 30,522 classes, a vocabulary, spread widely and narrowly.
    logits = random_tensor(8, 2, 30522, dtype=torch.float32)
    for scale in (0.1, 1.0, 10.0):
        probabilities = (scale * logits).softmax(dim=-1).to(dtype)
        assert MMELHardLoss(base_loss="kl")(logits, probabilities).isfinite()
        assert MMELSoftLoss()(logits, torch.zeros(8).long(), probabilities).isfinite()


# In a compiled function and under torch.func, where no value can be looked at.


@pytest.mark.parametrize(
    "case",
    [
        (MMELHardLoss(), class_targets(N)),
        (MMELHardLoss(base_loss="kl"), PROBABILITIES),
        (MMELSoftLoss(), class_targets(N), PROBABILITIES),
        (MMELSoftLoss(base_loss="mse"), SCORE_TARGETS, SCORES),
    ],
    ids=lambda case: str(case[0]),
)
def test_torch_compile_vmap_and_grad(case):
    loss, *arguments = case
    shape = (N, K) if loss.base_loss == "mse" else (N, K, C)
    logits = random_tensor(2, *shape, seed=5)
    expected = torch.stack([loss(one, *arguments) for one in logits])
    compiled = torch.compile(lambda z, *rest: loss(z, *rest), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits[0], *arguments), expected[0], **EXACT)
    batch = [torch.stack([value] * 2) for value in arguments]
    torch.testing.assert_close(torch.func.vmap(loss)(logits, *batch), expected, **EXACT)
    z = logits.clone().requires_grad_()
    (each,) = gradient(torch.stack([loss(one, *arguments) for one in z]), z)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(logits, *batch), each, rtol=1e-10, atol=1e-15)


# Bad input: a ValueError that begins with the argument's name.


def raises_naming(argument):
    return pytest.raises(ValueError, match=rf"^{argument}\b.*got ")


@pytest.mark.parametrize("losses", [torch.rand(3), torch.rand(2, 3, 4), torch.rand(2, 0), torch.ones(2, 3).long()])
def test_bad_losses(losses):
    for function in (maximal_expected_loss, augmentation_weights):
        with raises_naming("losses"):
            function(losses, 1.0)


# The last integer is finite, and beyond all floats.
@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.inf, -math.inf, math.nan, True, "1", None, 10**400], ids=repr)
def test_bad_coefficients(value):
    for function in (maximal_expected_loss, augmentation_weights):
        with raises_naming("lambda_p"):
            function(torch.rand(2, 3), value)
    for loss_class in (MMELHardLoss, MMELSoftLoss):
        with raises_naming("lambda_p"):
            loss_class(value)
    with raises_naming("lambda_t"):
        MMELSoftLoss(lambda_t=value)


@pytest.mark.parametrize(
    ("classes", "argument", "values"),
    [
        (ALL, "base_loss", ["hinge", None, 1]),
        (ALL, "reduction", ["max", None]),
        (SOFT, "threshold", [-0.5, math.nan, "0.5", None]),
    ],
)
def test_bad_options(classes, argument, values):
    for loss_class in classes:
        for value in values:
            with raises_naming(argument):
                loss_class(**{argument: value})


def with_value(tensor, value):
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


LOGITS, CLASSES, EACH = torch.zeros(N, K, C), torch.zeros(N).long(), torch.zeros(N, K).long()
SHARED, UNIFORM = torch.full((N, C), 1 / C), torch.full((N, K, C), 1 / C)
# What is no distribution: NaN, below 0 with a sum of 1, logits.
NO_PROBABILITIES = [
    with_value(UNIFORM, math.nan),
    with_value(UNIFORM, math.inf),
    UNIFORM + torch.tensor([0.3, -0.3, 0, 0, 0]),
    0.9 * UNIFORM,
    random_tensor(N, K, C),
]
HALVES = with_value(SHARED, 0.5)


@pytest.mark.parametrize(
    ("classes", "base_loss", "targets", "logits"),
    [
        (ALL, "cross_entropy", CLASSES, [LOGITS[:, 0], LOGITS[..., None], LOGITS[:, :0], LOGITS.long()]),
        (ALL, "kl", CLASSES, [LOGITS[..., :0]]),
        (ALL, "mse", SCORE_TARGETS, [LOGITS, SCORES[:, 0], SCORES[:, :0]]),
        (SOFT, "cross_entropy", CLASSES, [LOGITS[:, :1]]),
        (SOFT, "mse", SCORE_TARGETS, [SCORES[:, :1]]),
    ],
)
def test_bad_logits(classes, base_loss, targets, logits):
    for loss_class in classes:
        for given in logits:
            with raises_naming("logits"):
                loss_class(base_loss=base_loss)(given, targets)


@pytest.mark.parametrize(
    ("classes", "base_loss", "targets"),
    [
        (ALL, "cross_entropy", [CLASSES[1:], CLASSES[0], CLASSES.float(), EACH[:, :1], EACH[:, 1:], LOGITS.long()]),
        (ALL, "cross_entropy", [with_value(CLASSES, bad) for bad in (C, -1, -100)]),
        (HARD, "cross_entropy", [with_value(EACH, C), SHARED[:, 1:], UNIFORM[:, :1], UNIFORM[..., 1:]]),
        (HARD, "cross_entropy", [*NO_PROBABILITIES, HALVES]),
        (HARD, "kl", [*NO_PROBABILITIES, HALVES, CLASSES, EACH]),
        (HARD, lambda outputs, targets: outputs[:, 0], NO_PROBABILITIES[:2]),
        (SOFT, "cross_entropy", [EACH, UNIFORM, SHARED]),
        (SOFT, "kl", [with_value(CLASSES, C)]),
        (ALL, "mse", [SCORE_TARGETS[1:], SCORE_TARGETS[0], SCORES[:, :1], SCORES[..., None]]),
        (ALL, "mse", [with_value(SCORE_TARGETS, bad) for bad in (math.nan, math.inf)]),
        (HARD, "mse", [with_value(SCORES, math.nan)]),
        (SOFT, "mse", [SCORES]),
    ],
)
def test_bad_targets(classes, base_loss, targets):
    for loss_class in classes:
        for given in targets:
            with raises_naming("targets"):
                loss_class(base_loss=base_loss)(SCORES if base_loss == "mse" else LOGITS, given)


@pytest.mark.parametrize("chosen", [(), (slice(None), slice(1)), (slice(1, None), 0)], ids=str)
def test_a_callable_that_does_not_give_one_loss_per_sample(chosen):
    for loss_class in ALL:
        with raises_naming("base_loss"):
            loss_class(base_loss=lambda outputs, targets: outputs[chosen])(LOGITS, CLASSES)


@pytest.mark.parametrize(
    ("base_loss", "outputs"),
    [
        ("cross_entropy", [UNIFORM[:, 1:], UNIFORM[:, 0], UNIFORM[..., 1:], UNIFORM[1:], *NO_PROBABILITIES]),
        ("kl", NO_PROBABILITIES),
        ("mse", [SCORES[:, 1:], SCORES[:, :1], SCORES[:, None], with_value(SCORES, math.nan)]),
    ],
)
def test_bad_teacher_outputs(base_loss, outputs):
    logits, targets = (SCORES, SCORE_TARGETS) if base_loss == "mse" else (LOGITS, CLASSES)
    for teacher in outputs:
        with raises_naming("teacher_outputs"):
            MMELSoftLoss(base_loss=base_loss)(logits, targets, teacher)
