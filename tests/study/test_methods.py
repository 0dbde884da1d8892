import pytest
import torch

from mmel.study.config import ImageRun, TextRun
from mmel.study.datasets import DATASETS, Dataset, ImageDataset
from mmel.study.methods import METHODS, Method, methods_for
from mmel.study.train import train


@pytest.mark.parametrize("given", [False, True])
def test_whether_soft_targets_carry_a_gradient_reaches_the_loss(given):
    # The value of no step tells it; all other fields of a loss are worked out again in train/test_step_losses.py.
    run = TextRun(dataset="stsb", method="mmel_s", target_gradient=given)
    assert METHODS[run.method].loss(run).target_gradient is given


def test_images_and_text_share_four_methods_and_each_has_a_whole_formula():
    apart = {"baseline", "baseline_da", "smart", "cvar", "chi_square"}
    assert set(methods_for("images")) ^ set(methods_for("text")) == apart
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
def test_a_data_set_is_one_record_and_one_loader_and_a_method_one_record(method, store, monkeypatch):
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
    (line,) = train(run, store, device="cpu")
    record = store.read(run)
    assert (record.config, record.finished) == (run, True)
    assert record.header["sizes"]["train"] == 64
    assert record.header["sizes"]["sampled"] == []
    assert line["accuracy_pct"] > 90
    if method == "mmel_new":
        # Its loss is MMEL-H's, and so is its result.
        (other,) = train(run.replace(method="mmel_h"), store, device="cpu")
        assert other["train_loss"] == line["train_loss"]
