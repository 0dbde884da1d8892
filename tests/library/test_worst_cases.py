import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize
from scipy.special import softmax
from test_losses import EXACT, gradient, raises_naming

from mmel import KL, ChiSquare, CVaR, Maximum, augmentation_weights, maximal_expected_loss, sample_views

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILY = [
    *(KL(0.05), KL(0.2), KL(1.0), KL(50.0)),
    *(ChiSquare(0.01), ChiSquare(0.3), ChiSquare(1.5), ChiSquare(4)),
    *(CVaR(0.25), CVaR(0.37), CVaR(0.9), CVaR(1)),
    Maximum(),
]
each_worst_case = pytest.mark.parametrize("worst_case", FAMILY, ids=str)


def random_losses(n, k, seed=0, dtype=torch.float64):
    losses = torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return losses.abs().mul(2).to(dtype)


def numerical_supremum(losses, worst_case):
    """The worst case of one row by its definition, found by search over the simplex."""
    k, lambda_p, highest = len(losses), 0.0, 1.0
    constraints = [{"type": "eq", "fun": lambda q: q.sum() - 1, "jac": np.ones_like}]
    match worst_case:
        case KL():
            lambda_p = worst_case.lambda_p
        case CVaR():
            highest = min(1.0, 1 / (worst_case.alpha * k))
        case ChiSquare():
            ball = {"fun": lambda q: worst_case.rho - ((k * q - 1) ** 2).sum() / (2 * k), "jac": lambda q: 1 - k * q}
            constraints.append({"type": "ineq", **ball})
    scale = max(lambda_p, 1.0)
    found = minimize(
        lambda q: -(q @ losses - lambda_p * np.sum(q * np.log(k * q))) / scale,
        np.full(k, 1 / k),
        jac=lambda q: -(losses - lambda_p * (np.log(k * q) + 1)) / scale,
        method="SLSQP",
        bounds=[(1e-12, highest)] * k,
        constraints=constraints,
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return -found.fun * scale, found.x


@each_worst_case
@pytest.mark.parametrize("k", [2, 10])
def test_value_and_weights_are_the_supremum_over_the_simplex(worst_case, k):
    losses = random_losses(3, k, seed=k)
    for row, value, weights in zip(losses, worst_case.value(losses), worst_case.weights(losses), strict=True):
        best_value, best_weights = numerical_supremum(row.numpy(), worst_case)
        assert value.item() == pytest.approx(best_value, rel=1e-8)
        np.testing.assert_allclose(weights.numpy(), best_weights, rtol=0, atol=2e-5)


@each_worst_case
def test_the_gradient_is_the_weights_which_have_none(worst_case):
    losses = random_losses(4, 6).requires_grad_()
    weights, value = worst_case.weights(losses), worst_case.value(losses)
    assert not weights.requires_grad
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(gradient(value, losses)[0], weights, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(worst_case.value, losses)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e30])
@pytest.mark.parametrize(
    "worst_case",
    [*map(KL, (1e-6, 1e-3, 0.1, 1.0, 1e3, 1e6)), *map(ChiSquare, (1e-6, 1e-3, 0.1, 1.0, 4.0)), CVaR(0.37)],
    ids=str,
)
def test_float32_agrees_with_float64_at_every_scale_and_near_ties(worst_case, scale):
    # Three losses near the largest, the rest far below.
    losses = (-scale * random_losses(20, 10) * torch.tensor([1e-4] * 3 + [1.0] * 7)).float()
    weights, exact = worst_case.weights(losses), worst_case.weights(losses.double())
    torch.testing.assert_close(weights.double(), exact, rtol=0, atol=1e-6)
    torch.testing.assert_close((weights - 0.1).norm(dim=1).double(), (exact - 0.1).norm(dim=1), rtol=1e-4, atol=1e-8)
    value, exact = worst_case.value(losses), worst_case.value(losses.double())
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0)


# A Python float is a double: every positive finite one works, on float32 losses too.
TO_THE_MAXIMUM = [
    KL(1e-300),
    KL(1e-42),
    KL(1e-30),
    KL(1e-8),
    ChiSquare(4.5),
    ChiSquare(10**300),
    CVaR(0.1),
    CVaR(1e-300),
]
TO_THE_MEAN = [KL(1e7), KL(1e10), KL(1e30), KL(1e300), ChiSquare(1e-14), ChiSquare(1e-300), CVaR(1.0)]


@pytest.mark.parametrize("worst_case", [*TO_THE_MAXIMUM, *TO_THE_MEAN], ids=str)
def test_the_ends_are_the_maximum_and_the_mean(worst_case):
    losses = random_losses(20, 10, dtype=torch.float32).requires_grad_()
    weights = Maximum().weights(losses) if worst_case in TO_THE_MAXIMUM else torch.full_like(losses, 0.1)
    value = worst_case.value(losses)
    torch.testing.assert_close(value, (weights * losses).sum(dim=1), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient(value, losses)[0], weights, rtol=1e-5, atol=0)
    torch.testing.assert_close(worst_case.weights(losses), weights, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("worst_case", [KL(1e-30), KL(1.0), KL(1e20), ChiSquare(1.0), CVaR(1 / 3), Maximum()], ids=str)
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
def test_infinite_losses_have_the_limits_of_the_formula(row, value, weights, worst_case, dtype):
    losses = torch.tensor([row, [1.0, 2.0, 6.0]], dtype=dtype, requires_grad=True)
    found = worst_case.value(losses)
    torch.testing.assert_close(found[0], torch.tensor(value, dtype=dtype), equal_nan=True)
    expected = torch.tensor(weights, dtype=dtype)
    torch.testing.assert_close(worst_case.weights(losses)[0], expected, equal_nan=True)
    # The rows beside it are as they were, in value and gradient.
    torch.testing.assert_close(found[1:], worst_case.value(losses[1:]))
    (grad,) = gradient(found, losses)
    torch.testing.assert_close(grad[1:], worst_case.weights(losses[1:]), rtol=1e-5, atol=0)
    assert math.isnan(value) or grad.isfinite().all()


@pytest.mark.parametrize(
    ("worst_case", "row", "value", "weights"),
    [
        # -inf is the loss of a sample that is as good as certain; the others share the weight.
        (KL(1.0), [-math.inf, 0.0, 0.0], math.log(2 / 3), [0.0, 0.5, 0.5]),
        (KL(1e-6), [2.0, 1.0, 2.0], 2.0, [0.5, 0.0, 0.5]),
        (KL(1.0), [1e4, 0.0, 1e4], 1e4 + math.log(2 / 3), [0.5, 0.0, 0.5]),
        # These differences are exact in float32, and the weights resolve them.
        (KL(1e-3), [1e4, 1e4 - 2**-9, 1e4 - 2**-10], 1e4, softmax([0, -1000 / 2**9, -1000 / 2**10])),
        (CVaR(0.5), [4.0, 1.0, 0.0], 3.0, [2 / 3, 1 / 3, 0.0]),
        (CVaR(0.5), [1.0, 3.0, 0.0, 1.0], 2.0, [0.25, 0.5, 0.0, 0.25]),
        (ChiSquare(1 / 9), [2.0, 1.0, 2.0], 17 / 9, [4 / 9, 1 / 9, 4 / 9]),
        # Where the ball holds (0.5, 0, 0.5), no others are worse.
        (ChiSquare(0.3), [2.0, 1.0, 2.0], 2.0, [0.5, 0.0, 0.5]),
        (ChiSquare(1 / 9), [1e4 + 2**-9, 1e4, 1e4 + 2**-9], 1e4, [4 / 9, 1 / 9, 4 / 9]),
        *((worst_case, [0.0] * 3, 0.0, [1 / 3] * 3) for worst_case in FAMILY),
    ],
    ids=str,
)
def test_ties_and_large_losses(worst_case, row, value, weights):
    losses, weights = torch.tensor([row], requires_grad=True), torch.tensor([list(weights)]).float()
    found = worst_case.value(losses)
    torch.testing.assert_close(found, torch.tensor([value]), rtol=2e-6, atol=0)
    torch.testing.assert_close(gradient(found, losses)[0], weights, rtol=1e-5, atol=0)
    torch.testing.assert_close(worst_case.weights(losses), weights, rtol=1e-5, atol=0)


@each_worst_case
def test_permutation_shift_scale_and_one_sample(worst_case):
    losses, order = random_losses(4, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    value, weights = worst_case.value(losses), worst_case.weights(losses)
    thrice = KL(3 * worst_case.lambda_p) if isinstance(worst_case, KL) else worst_case
    torch.testing.assert_close(worst_case.value(losses[:, order]), value, **EXACT)
    torch.testing.assert_close(worst_case.weights(losses[:, order]), weights[:, order], **EXACT)
    torch.testing.assert_close(worst_case.value(losses + 7), value + 7, **EXACT)
    torch.testing.assert_close(worst_case.weights(losses + 7), weights, **EXACT)
    torch.testing.assert_close(thrice.value(3 * losses), 3 * value, **EXACT)
    assert torch.equal(worst_case.value(losses[:, :1]), losses[:, 0])


@each_worst_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(worst_case, dtype):
    losses = random_losses(3, 4).to(dtype)
    for function in (worst_case.value, worst_case.weights):
        assert function(losses).dtype == torch.float32
        assert torch.equal(function(losses), function(losses.float()))


# One view drawn from P*.


def test_views_are_drawn_as_often_as_their_weights():
    rows, draws = random_losses(2, 5), 20_000
    index = sample_views(rows.repeat(draws, 1).requires_grad_(), 0.7, torch.Generator().manual_seed(0)).view(draws, 2)
    assert index.dtype == torch.int64
    for column, weights in zip(index.T, augmentation_weights(rows, 0.7), strict=True):
        counts = column.bincount(minlength=5)
        assert stats.chisquare(counts, weights.numpy() * draws).pvalue > 0.01
        # Far from the other temperature's.
        assert stats.chisquare(counts, augmentation_weights(rows, 1.0)[0].numpy() * draws).pvalue < 1e-6


# Bad input.


@pytest.mark.parametrize("losses", [torch.rand(3), torch.rand(2, 3, 4), torch.rand(2, 0), torch.ones(2, 3).long()])
def test_bad_losses(losses):
    functions = [function for worst_case in FAMILY for function in (worst_case.value, worst_case.weights)]
    for function in [*functions, lambda given: sample_views(given, 1.0)]:
        with raises_naming("losses"):
            function(losses)


# The last integer is finite, and beyond all floats.
@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.inf, -math.inf, math.nan, True, "1", None, 10**400], ids=repr)
def test_bad_coefficients(value):
    for function in (maximal_expected_loss, augmentation_weights, sample_views):
        with raises_naming("lambda_p"):
            function(torch.rand(2, 3), value)
    for worst_case, argument in ((KL, "lambda_p"), (ChiSquare, "rho"), (CVaR, "alpha")):
        with raises_naming(argument):
            worst_case(value)
    with raises_naming("alpha"):
        CVaR(1.0001)
