import pytest
import torch

from mmel.config import RunConfig
from mmel.grids import runs_of
from mmel.losses import MMELHardLoss, MMELSoftLoss, UniformLoss
from mmel.methods import LABELS, build_criterion, describe, view_plan
from mmel.names import IMAGE_METHODS, PROFILES, TEXT_METHODS

IMAGES = RunConfig(method="mmel_s", num_augmented=5, lambda_p=0.5, lambda_t=2.0)
TEXT = RunConfig(dataset="rte", model="bert", method="mmel_s", num_augmented=5, lambda_p=0.5, lambda_t=2.0)


def with_method(base, method):
    own = {"lambda_p": base.lambda_p if method.startswith("mmel") else 1.0}
    own["lambda_t"] = base.lambda_t if method == "mmel_s" else 1.0
    own["num_augmented"] = 1 if method in ("baseline", "baseline_da") else 5
    return base.replace(method=method, **own)


@pytest.mark.parametrize(
    ("method", "num_random", "original_first"),
    [
        ("baseline_da", 1, False),
        ("baseline_da_long", 1, False),
        ("baseline_da_uni", 4, True),
        ("mmel_h", 4, True),
        ("mmel_s", 4, True),
    ],
)
def test_views_of_an_image(method, num_random, original_first):
    plan = view_plan(with_method(IMAGES, method))
    assert (plan.num_random, plan.original_first) == (num_random, original_first)


def test_an_original_may_be_a_random_view_too():
    plan = view_plan(IMAGES.replace(original="augmented"))
    assert (plan.num_random, plan.original_first) == (5, False)


LOSSES = {"baseline_da_uni": UniformLoss, "mmel_h": MMELHardLoss, "mmel_s": MMELSoftLoss}


@pytest.mark.parametrize(
    ("base", "method"),
    [*((IMAGES, method) for method in IMAGE_METHODS), *((TEXT, method) for method in TEXT_METHODS)],
    ids=lambda value: value if isinstance(value, str) else value.dataset,
)
def test_the_loss_of_a_method_with_the_runs_coefficients(base, method):
    # One view is the mean over one.
    loss = LOSSES.get(method, UniformLoss)
    criterion = build_criterion(with_method(base, method))
    assert type(criterion) is loss
    assert criterion.base_loss == "cross_entropy"
    # The soft targets carry no gradient, the paper's 0.5 decides on STS-B.
    expected = {"lambda_p": 0.5, "lambda_t": 2.0, "target_gradient": False, "threshold": 0.5}
    for name in {UniformLoss: (), MMELHardLoss: ("lambda_p",), MMELSoftLoss: tuple(expected)}[loss]:
        assert getattr(criterion, name) == expected[name]


def test_the_options_of_the_loss_reach_it():
    soft = build_criterion(TEXT.replace(dataset="stsb", threshold=0.25, target_gradient=True))
    assert (soft.base_loss, soft.threshold, soft.target_gradient) == ("mse", 0.25, True)
    assert build_criterion(IMAGES.replace(base_loss="kl")).base_loss == "kl"
    assert build_criterion(with_method(TEXT.replace(base_loss="kl"), "mmel_h")).base_loss == "kl"


@pytest.mark.parametrize("method", TEXT_METHODS)
def test_regression_is_by_squared_error(method):
    criterion = build_criterion(with_method(TEXT.replace(dataset="stsb", lambda_p=1.0), method))
    assert criterion.base_loss == "mse"
    terms = criterion.terms(torch.tensor([[[1.0], [1.0]]]), torch.tensor([3.0]))
    # Both samples say 1: the second is as far from the first as from itself.
    assert terms.loss.item() == pytest.approx(4.0)


def test_every_method_has_the_papers_name():
    assert set(LABELS) == {*IMAGE_METHODS, *TEXT_METHODS}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_run_of_every_grid_can_be_described(profile):
    for config in runs_of(["table1", "table3", "table4", "table6"], profile)[::7]:
        text = describe(config)
        assert f"**{LABELS[config.method]}**" in text
        assert config.run_id in text
        assert f"K = {config.num_augmented}," in text
        # A formula left open would spill over the rest of the cell.
        assert text.count("$") % 2 == 0
        assert text.count("{") == text.count("}")


def test_what_a_description_of_text_says():
    text = describe(
        TEXT.replace(method="mmel_h", lambda_t=1.0, fill="beam", mask_ratio=0.2, pair_mode="joint", lr=3e-5)
    )
    for words in ("learning rate 3e-05 falling linearly to 0", "beam", "20%", "two sentences of a pair as one"):
        assert words in text
    assert "targets are the teacher's output" in text
    assert "y_z" in text
    original = describe(TEXT.replace(method="mmel_h", lambda_t=1.0, label_source="original"))
    assert "targets are their example's label" in original
    assert "y_z" not in original
    baseline = describe(with_method(TEXT, "baseline"))
    assert "Algorithm 2" not in baseline
    assert "y_z" not in baseline


def test_what_a_description_of_images_says():
    text = describe(with_method(IMAGES, "baseline_da_long"))
    assert "one random view" in text
    assert "5 times the steps" in text
    assert "1000 epochs of batch 128, learning rate 0.1 times 0.2 after epochs 300, 600, 800" in text
    assert "Algorithm 2" not in text
