import pytest
import torch

from mmel.models import build_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032), ("resnet18_narrow", 831_096)],
)
def test_parameters_for_a_thousand_classes(name, parameters):
    with torch.device("meta"):
        model = build_model(name, 1000)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_narrow_one_at_full_width_is_torchvisions():
    from torchvision import models

    from mmel.models.imagenet_resnet import narrow_resnet18

    wide, theirs = narrow_resnet18(10, width=64), models.resnet18(num_classes=10)
    # Layer by layer the same shapes in the same order, so the weights of one fit the other.
    wide.load_state_dict(dict(zip(wide.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(wide.eval()(images), theirs.eval()(images), atol=1e-5)


def test_images_must_have_three_channels():
    with pytest.raises(ValueError, match=r"^in_channels must be 3 for model 'resnet18', got 1$"):
        build_model("resnet18", 10, in_channels=1)
