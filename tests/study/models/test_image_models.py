import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmel.study.models.resnet import BasicBlock, build_model, narrow_resnet18

pytestmark = pytest.mark.usefixtures("one_thread")


def random_tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "classes", "options", "parameters"),
    [
        ("resnet20", 10, {}, 269_722),
        ("resnet20", 10, {"shortcut": "B"}, 272_474),
        ("resnet32", 10, {}, 464_154),
        ("resnet44", 10, {}, 658_586),
        ("resnet56", 10, {}, 853_018),
        # Classes and channels change the ends alone.
        ("resnet20", 100, {}, 269_722 + 90 * 65),
        ("resnet20", 10, {"in_channels": 1}, 269_722 - 2 * 16 * 9),
        ("resnet18", 1000, {}, 11_689_512),
        ("resnet34", 1000, {}, 21_797_672),
        ("resnet50", 1000, {}, 25_557_032),
        ("resnet18_narrow", 1000, {}, 831_096),
    ],
)
def test_parameter_counts(name, classes, options, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in build_model(name, classes, **options).parameters()) == parameters


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_stages_halve_the_resolution_pooling_is_global_and_everything_learns(shortcut):
    torch.manual_seed(0)
    model, shapes, ends = build_model("resnet14", 7, in_channels=1, shortcut=shortcut), [], []
    for made in model.blocks:
        made.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model.blocks.register_forward_hook(lambda module, inputs, output: ends.append(output))
    model.fc.register_forward_hook(lambda module, inputs, output: ends.append(inputs[0]))
    logits = model(random_tensor(5, 1, 24, 16))
    assert logits.shape == (5, 7)
    assert shapes == [(16, 24, 16)] * 2 + [(32, 12, 8)] * 2 + [(64, 6, 4)] * 2
    torch.testing.assert_close(ends[1], ends[0].mean(dim=(2, 3)), rtol=1e-5, atol=1e-6)
    F.cross_entropy(logits, torch.arange(5)).backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())


def reference(block, x, stride, out_channels):
    """A block without any operation in place; He et al.'s shortcut A pixel by pixel, B as a convolution."""
    out = block.bn1(F.conv2d(x, block.conv1.weight, stride=stride, padding=1)).relu()
    out = block.bn2(F.conv2d(out, block.conv2.weight, padding=1))
    if block.projection is not None:
        projection, norm = block.projection
        return (out + norm(F.conv2d(x, projection.weight, stride=stride))).relu()
    shortcut = torch.zeros_like(out)
    # The new channels are zero, half before and half after the old ones.
    before = (out_channels - x.shape[1]) // 2
    for channel in range(x.shape[1]):
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                shortcut[:, before + channel, i, j] = x[:, channel, i * stride, j * stride]
    return (out + shortcut).relu()


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize(
    ("channels", "stride", "size"), [((16, 32), 2, (8, 8)), ((3, 8), 2, (7, 10)), ((4, 4), 1, (6, 5))]
)
def test_a_block_is_the_reference_and_so_is_its_gradient(shortcut, channels, stride, size):
    torch.manual_seed(0)
    block = BasicBlock(*channels, stride, shortcut).double()
    for module in block.modules():
        # Not the identity that they begin as.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    # If the shape stays there is nothing to project.
    assert (block.projection is not None) == (shortcut == "B" and stride == 2)
    x = random_tensor(3, channels[0], *size).double().requires_grad_()
    out, expected = block(x), reference(block, x, stride, channels[1])
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    inputs, probe = [x, *block.parameters()], random_tensor(*out.shape, seed=1)
    gradients = [torch.autograd.grad((result * probe).sum(), inputs) for result in (out, expected)]
    for actual, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "first", "last", "bias"),
    [("resnet20", -0.1106791, -0.0068845, 0.1120965), ("resnet18_narrow", 0.0433973, 0.0008915, -0.0004894)],
)
def test_a_seed_fixes_the_initial_weights_at_the_scale_of_he_et_al(name, first, last, bias):
    # Recorded runs started from these weights.
    torch.manual_seed(0)
    model = build_model(name, 10)
    weights = [module.weight.detach() for module in model.modules() if isinstance(module, nn.Conv2d)]
    ends = [weights[0].flatten()[0], weights[-1].flatten()[-1], list(model.parameters())[-1][0]]
    assert [end.item() for end in ends] == pytest.approx([first, last, bias], rel=0, abs=1e-6)
    for weight in weights:
        if weight.numel() > 2000:
            expected = (2 / weight[:, 0].numel()) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.08)


def test_the_narrow_one_at_full_width_is_torchvisions():
    from torchvision import models

    wide, theirs = narrow_resnet18(10, width=64), models.resnet18(num_classes=10)
    # Layer by layer the same shapes in the same order, so the weights of one fit the other.
    wide.load_state_dict(dict(zip(wide.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(wide.eval()(images), theirs.eval()(images), atol=1e-5)
