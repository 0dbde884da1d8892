import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from mmel import KL, ChiSquare, CVaR, Maximum, MMELHardLoss, MMELSoftLoss, UniformLoss, WorstCaseLoss

pytestmark = pytest.mark.usefixtures("one_thread")

N, K, C = 3, 4, 5
HARD = [MMELHardLoss, UniformLoss, partial(WorstCaseLoss, ChiSquare(0.3))]
SOFT = [MMELSoftLoss]
ALL = HARD + SOFT
EXACT = {"rtol": 1e-12, "atol": 0}


def random_tensor(*shape, seed=0, scale=1.0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(scale).to(dtype)


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


def bracket_of_eq7(losses, lambda_p):
    """sum_z P* l - lambda_p P* log(|B| P*), term by term, with P* of Eq. 6."""
    weights = soft_max([loss / lambda_p for loss in losses])
    return sum(p * loss - lambda_p * p * math.log(len(losses) * p) for p, loss in zip(weights, losses, strict=True))


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
    reference = {"cross_entropy": cross_entropy_by_hand, "kl": kl_by_hand, "mse": lambda z, y: (z - y) ** 2}[base_loss]
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


# The other worst cases.


@pytest.mark.parametrize("worst_case", [KL(0.3), ChiSquare(0.3), CVaR(0.4), Maximum()], ids=str)
def test_any_worst_case_weighs_the_losses_of_mmel_h_and_mmel_s(worst_case):
    logits, targets = random_tensor(N, K, C), class_targets(N)
    own = F.cross_entropy(logits[:, 0], targets, reduction="none")
    for given, paper, label_term, factor in (
        (WorstCaseLoss(worst_case), MMELHardLoss(), 0, 1),
        (MMELSoftLoss(lambda_t=2.0, worst_case=worst_case), MMELSoftLoss(), own, 2.0),
    ):
        terms, losses = given.terms(logits, targets), paper.terms(logits, targets).sample_losses
        assert torch.equal(terms.sample_losses, losses)
        assert torch.equal(terms.weights, worst_case.weights(losses))
        assert torch.equal(terms.loss, label_term + factor * worst_case.value(losses))


def test_the_paper_has_the_kl_worst_case():
    logits, targets = random_tensor(N, K, C), class_targets(N)
    assert torch.equal(WorstCaseLoss(KL(0.3))(logits, targets), MMELHardLoss(0.3)(logits, targets))
    soft = MMELSoftLoss(lambda_t=2.0, worst_case=KL(0.3))
    assert torch.equal(soft(logits, targets), MMELSoftLoss(0.3, 2.0)(logits, targets))


# Gradients.

SCORES, SCORE_TARGETS = random_tensor(N, K), random_tensor(N, seed=1)
PROBABILITIES = random_probabilities(N, K, C)
CASES = [
    (MMELHardLoss(0.5), class_targets(N)),
    (MMELHardLoss(0.5), class_targets(N, K)),
    (MMELHardLoss(0.5, "kl"), PROBABILITIES),
    (MMELHardLoss(0.5, "mse"), SCORE_TARGETS),
    (WorstCaseLoss(ChiSquare(0.3)), PROBABILITIES),
    (WorstCaseLoss(CVaR(0.4), "mse"), SCORE_TARGETS),
    (UniformLoss(), class_targets(N)),
    (MMELSoftLoss(0.5, 2.0, target_gradient=True), class_targets(N), PROBABILITIES),
    (MMELSoftLoss(0.5, 2.0, "kl", target_gradient=True), class_targets(N)),
    (MMELSoftLoss(0.5, 2.0, "mse", target_gradient=True), SCORE_TARGETS, SCORES),
    (MMELSoftLoss(worst_case=Maximum(), target_gradient=True), class_targets(N)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0]))
def test_gradients_also_compiled_and_under_torch_func(case):
    loss, *arguments = case
    logits = random_tensor(2, N, K, *([] if loss.base_loss == "mse" else [C]), seed=5)
    assert torch.autograd.gradcheck(lambda z: loss(z, *arguments), logits[0].clone().requires_grad_())
    # There no value can be looked at.
    expected = torch.stack([loss(one, *arguments) for one in logits])
    torch.compiler.reset()  # else eight cases are the limit
    compiled = torch.compile(lambda z, *rest: loss(z, *rest), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits[0], *arguments), expected[0], **EXACT)
    batch = [torch.stack([value] * 2) for value in arguments]
    torch.testing.assert_close(torch.func.vmap(loss)(logits, *batch), expected, **EXACT)
    z = logits.clone().requires_grad_()
    (each,) = gradient(torch.stack([loss(one, *arguments) for one in z]), z)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(logits, *batch), each, rtol=1e-10, atol=1e-15)


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
    [*(loss_class() for loss_class in ALL), *(MMELSoftLoss(1.0, 1.0, base, True) for base in ("cross_entropy", "kl"))],
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


# Bad input: a ValueError that begins with the argument's name.


def raises_naming(argument):
    return pytest.raises(ValueError, match=rf"^{argument}\b.*got ")


@pytest.mark.parametrize(
    ("classes", "argument", "values"),
    [
        (ALL, "base_loss", ["hinge", None, 1]),
        (ALL, "reduction", ["max", None]),
        ([WorstCaseLoss, MMELSoftLoss], "worst_case", ["max", Maximum]),
        ([MMELHardLoss, MMELSoftLoss], "lambda_p", [0.0, math.nan]),
        ([partial(MMELSoftLoss, worst_case=Maximum())], "lambda_p", [0.5]),
        (SOFT, "lambda_t", [0.0, math.inf]),
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
    ("argument", "classes", "base_loss", "values"),
    [
        ("logits", ALL, "cross_entropy", [LOGITS[:, 0], LOGITS[..., None], LOGITS[:, :0], LOGITS.long()]),
        ("logits", ALL, "cross_entropy", [LOGITS.tolist()]),
        ("logits", ALL, "kl", [LOGITS[..., :0]]),
        ("logits", ALL, "mse", [LOGITS, SCORES[:, 0], SCORES[:, :0]]),
        ("logits", SOFT, "cross_entropy", [LOGITS[:, :1]]),
        ("logits", SOFT, "mse", [SCORES[:, :1]]),
        ("targets", ALL, "cross_entropy", [CLASSES[1:], CLASSES[0], CLASSES.float(), CLASSES.tolist(), LOGITS.long()]),
        ("targets", ALL, "cross_entropy", [EACH[:, :1], EACH[:, 1:]]),
        ("targets", ALL, "cross_entropy", [with_value(CLASSES, bad) for bad in (C, -1, -100)]),
        ("targets", HARD, "cross_entropy", [with_value(EACH, C), SHARED[:, 1:], UNIFORM[:, :1], UNIFORM[..., 1:]]),
        ("targets", HARD, "cross_entropy", [*NO_PROBABILITIES, HALVES]),
        ("targets", HARD, "kl", [*NO_PROBABILITIES, HALVES, CLASSES, EACH]),
        ("targets", HARD, lambda outputs, targets: outputs[:, 0], NO_PROBABILITIES[:2]),
        ("targets", SOFT, "cross_entropy", [EACH, UNIFORM, SHARED]),
        ("targets", SOFT, "kl", [with_value(CLASSES, C)]),
        ("targets", ALL, "mse", [SCORE_TARGETS[1:], SCORE_TARGETS[0], SCORES[:, :1], SCORES[..., None]]),
        ("targets", ALL, "mse", [with_value(SCORE_TARGETS, bad) for bad in (math.nan, math.inf)]),
        ("targets", HARD, "mse", [with_value(SCORES, math.nan)]),
        ("targets", SOFT, "mse", [SCORES]),
        ("teacher_outputs", SOFT, "cross_entropy", [UNIFORM[:, 1:], UNIFORM[:, 0], UNIFORM[..., 1:], UNIFORM[1:]]),
        ("teacher_outputs", SOFT, "cross_entropy", NO_PROBABILITIES),
        ("teacher_outputs", SOFT, "kl", NO_PROBABILITIES),
        ("teacher_outputs", SOFT, "mse", [SCORES[:, 1:], SCORES[:, :1], SCORES[:, None], with_value(SCORES, math.nan)]),
        *(
            ("base_loss", ALL, lambda outputs, targets, chosen=chosen: outputs[chosen], [None])
            for chosen in ((), (slice(None), slice(1)), (slice(1, None), 0))
        ),
    ],
)
def test_bad_inputs(argument, classes, base_loss, values):
    logits, targets = (SCORES, SCORE_TARGETS) if base_loss == "mse" else (LOGITS, CLASSES)
    for loss_class in classes:
        for value in values:
            given = {"logits": logits, "targets": targets, argument: value}
            # A callable is wrong by what it gives.
            given.pop("base_loss", None)
            with raises_naming(argument):
                loss_class(base_loss=base_loss)(**given)
