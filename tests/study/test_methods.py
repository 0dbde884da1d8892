import pytest
import torch

from mmel.losses import MMELHardLoss, MMELSoftLoss, UniformLoss, WorstCaseLoss
from mmel.study.config import ImageRun, TextRun
from mmel.study.datasets import DATASETS, Dataset, ImageDataset
from mmel.study.methods import METHODS, Method, methods_for
from mmel.study.records import Store
from mmel.study.train import train

IMAGES = ImageRun(method="mmel_s", num_augmented=5, lambda_p=0.5, lambda_t=2.0)
TEXT = TextRun(dataset="rte", method="mmel_s", lambda_p=0.5, lambda_t=2.0)
SCORES = TEXT.replace(dataset="stsb")
LOSSES = {"mmel_h": MMELHardLoss, "mmel_s": MMELSoftLoss, "cvar": WorstCaseLoss, "chi_square": WorstCaseLoss}
each_pair = pytest.mark.parametrize(
    ("base", "method"), [(base, method) for base in (IMAGES, TEXT, SCORES) for method in methods_for(base.kind)]
)


@each_pair
def test_the_loss_of_a_method_with_the_runs_coefficients(base, method):
    criterion = METHODS[method].loss(base.with_method(method, 0))
    # One view is the mean over one.
    assert type(criterion) is LOSSES.get(method, UniformLoss)
    assert criterion.base_loss == ("mse" if base is SCORES else "cross_entropy")
    # The soft targets carry no gradient; the paper's 0.5 decides on STS-B.
    expected = {"lambda_p": 0.5, "lambda_t": 2.0, "target_gradient": False, "threshold": 0.5}
    for name in {"mmel_h": ("lambda_p",), "mmel_s": expected}.get(method, ()):
        assert getattr(criterion, name) == expected[name]
    if base is SCORES:
        # Both samples say 1: the second is as far from the first as from itself.
        terms = criterion.terms(torch.tensor([[[1.0], [1.0]]]), torch.tensor([3.0]))
        assert terms.loss.item() == pytest.approx(4.0)


def test_the_options_of_the_loss_reach_it():
    assert METHODS["mmel_s"].loss(SCORES.replace(target_gradient=True)).target_gradient
    for base in (IMAGES, TEXT, TEXT.replace(method="mmel_h", lambda_t=1.0)):
        assert METHODS[base.method].loss(base.replace(base_loss="kl")).base_loss == "kl"


def test_images_and_text_share_four_methods_and_each_has_the_papers_name():
    apart = {"baseline", "baseline_da", "smart", "cvar", "chi_square"}
    assert set(methods_for("images")) ^ set(methods_for("text")) == apart
    assert [method.label for method in METHODS.values()] == [
        "Baseline", "Baseline(DA)", "Baseline(DA+Long)", "Baseline(DA+UNI)", "SMART", "MMEL-H", "MMEL-S", "CVaR",
        "chi-square",
    ]  # fmt: skip
    for method in METHODS.values():
        formula = method.objective.format(loss=r"\ell(f_\theta(z), y)", k=5)
        # One left open would spill over the rest of the page.
        assert formula.count("$") % 2 == 0
        assert formula.count("{") == formula.count("}")


# Adding a noun: one record, and one loader or loss.


def load_stripes(data: Dataset, data_root=None):
    """Upright or level stripes, on which a small network is soon right."""
    from mmel.study.data.images import Images

    parts = []
    for size in data.sizes.values():
        labels = torch.arange(size) % 2
        upright = (torch.arange(8) % 2 * 255).to(torch.uint8).expand(8, 8)
        pixels = torch.where(labels.bool()[:, None, None], upright, upright.T)[:, None]
        parts.append(Images(pixels, labels, 2))
    return tuple(parts)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", ["mmel_h", "mmel_new"])
def test_a_data_set_is_one_record_and_one_loader_and_a_method_one_record(method, tmp_path, monkeypatch):
    loader = f"{__name__}:load_stripes"
    stripes = ImageDataset(
        name="stripes", label="Stripes", loader=loader, sizes={"train": 64, "test": 32}, side=8, embedded=True
    )
    monkeypatch.setitem(DATASETS, "stripes", stripes)
    new = Method(
        **{"name": "mmel_new", "label": "MMEL-New", "colour": "#000000", "data": ("images",), "objective": "${loss}$"},
        **{"all_views": True, "criterion": "mmel.losses:MMELHardLoss", "coefficients": ("lambda_p",)},
    )
    monkeypatch.setitem(METHODS, "mmel_new", new)
    scale = {"epochs": 1, "decay_epochs": (), "num_augmented": 3, "batch_size": 8, "lambda_p": 0.5}
    run = ImageRun(dataset="stripes", model="resnet8", method=method, augment="crop", precision="fp32", **scale)
    (line,) = train(run, Store(tmp_path), device="cpu")
    record = Store(tmp_path).read(run)
    assert (record.config, record.finished) == (run, True)
    assert record.header["sizes"]["train"] == 64
    assert record.header["sizes"]["sampled"] == []
    assert line["accuracy_pct"] > 90
    if method == "mmel_new":
        # Its loss is MMEL-H's, and so is its result.
        (other,) = train(run.replace(method="mmel_h"), Store(tmp_path), device="cpu")
        assert other["train_loss"] == line["train_loss"]
