import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmel.models import build_model
from mmel.models.cifar_resnet import BasicBlock, CifarResNet

pytestmark = pytest.mark.usefixtures("one_thread")

# (model, shortcut, parameters for 10 classes)
PARAMETERS = [
    ("resnet20", "A", 269_722),
    ("resnet32", "A", 464_154),
    ("resnet44", "A", 658_586),
    ("resnet56", "A", 853_018),
    ("resnet20", "B", 272_474),
]


def count(model):
    return sum(p.numel() for p in model.parameters())


def random_tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def block(*args, seed=0):
    """A block whose BatchNorms are not the identity they begin as."""
    torch.manual_seed(seed)
    made = BasicBlock(*args)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return made.double()


def subsample_and_pad(x, stride, out_channels):
    """He et al.'s shortcut A, pixel by pixel: the new channels are zero, half before and half after the old ones."""
    n, channels, height, width = x.shape
    out = torch.zeros(n, out_channels, -(-height // stride), -(-width // stride), dtype=x.dtype)
    before = (out_channels - channels) // 2
    for channel in range(channels):
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                out[:, before + channel, i, j] = x[:, channel, i * stride, j * stride]
    return out


def main_path(made, x):
    """The two convolutions, without any operation in place."""
    out = F.conv2d(x, made.conv1.weight, stride=made.stride, padding=1)
    out = F.conv2d(made.bn1(out).relu(), made.conv2.weight, padding=1)
    return made.bn2(out)


@pytest.mark.parametrize(("name", "shortcut", "parameters"), PARAMETERS)
def test_parameter_counts(name, shortcut, parameters):
    assert count(build_model(name, 10, shortcut=shortcut)) == parameters


def test_shortcut_a_is_the_default():
    assert count(build_model("resnet20", 10)) == count(CifarResNet(20, 10)) == 269_722
    assert all(conv.kernel_size == (3, 3) for conv in CifarResNet(20, 10).modules() if isinstance(conv, nn.Conv2d))


def test_classes_and_channels_change_the_ends_only():
    assert count(build_model("resnet20", 100)) - count(build_model("resnet20", 10)) == 90 * 65
    assert count(build_model("resnet20", 10)) - count(build_model("resnet20", 10, in_channels=1)) == 2 * 16 * 9


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("name", ["resnet8", "resnet14"])
def test_small_models_on_small_images(name, shortcut):
    torch.manual_seed(0)
    model = build_model(name, 7, in_channels=1, shortcut=shortcut)
    logits = model(random_tensor(5, 1, 8, 8))
    assert logits.shape == (5, 7)
    assert torch.isfinite(logits).all()
    F.cross_entropy(logits, torch.arange(5)).backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (24, 16)])
def test_stages_halve_the_resolution_and_pooling_is_global(size):
    model, shapes = build_model("resnet14", 10).eval(), []
    for made in model.blocks:
        made.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    pooled = []
    model.fc.register_forward_hook(lambda module, inputs, output: pooled.append(inputs[0]))
    final = []
    model.blocks.register_forward_hook(lambda module, inputs, output: final.append(output))
    with torch.no_grad():
        assert model(random_tensor(2, 3, *size)).shape == (2, 10)
    h, w = size
    assert shapes == [(16, h, w)] * 2 + [(32, h // 2, w // 2)] * 2 + [(64, h // 4, w // 4)] * 2
    torch.testing.assert_close(pooled[0], final[0].flatten(2).mean(dim=2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "stride", "size"), [((16, 32), 2, (8, 8)), ((3, 8), 2, (7, 10)), ((4, 4), 1, (6, 5))]
)
def test_block_with_shortcut_a(channels, stride, size):
    made = block(*channels, stride, "A")
    x = random_tensor(3, channels[0], *size).double().requires_grad_()
    out, expected = made(x), (main_path(made, x) + subsample_and_pad(x, stride, channels[1])).relu()
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    # The operations in place leave the gradient as it is without them.
    inputs = [x, *made.parameters()]
    probe = random_tensor(*out.shape, seed=1)
    for a, b in zip(
        torch.autograd.grad((out * probe).sum(), inputs),
        torch.autograd.grad((expected * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_block_with_shortcut_b():
    made = block(16, 32, 2, "B")
    x = random_tensor(3, 16, 8, 8).double()
    projection, norm = made.projection
    shortcut = norm(F.conv2d(x, projection.weight, stride=2))
    assert projection.weight.shape == (32, 16, 1, 1)
    torch.testing.assert_close(made(x), (main_path(made, x) + shortcut).relu(), rtol=1e-12, atol=1e-12)
    # Where the shape stays there is nothing to project.
    assert block(16, 16, 1, "B").projection is None


def test_convolutions_begin_at_the_scale_of_he_et_al():
    torch.manual_seed(0)
    for conv in CifarResNet(20, 10).modules():
        if isinstance(conv, nn.Conv2d) and conv.weight.numel() > 2000:
            fan_out = conv.out_channels * 9
            assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.08)


def test_the_seed_fixes_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return build_model("resnet8", 10).state_dict()

    one, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["conv.weight"], other["conv.weight"])
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize("depth", [2, 7, 9, 18, 21, 0, -4])
def test_bad_depth(depth):
    with pytest.raises(ValueError, match=rf"^depth must be 6n \+ 2 .*8, 14, 20, 32, 44, 56.*got {depth}$"):
        CifarResNet(depth, 10)


@pytest.mark.parametrize("shortcut", ["C", "a", "", None])
def test_bad_shortcut(shortcut):
    with pytest.raises(ValueError, match=r"^shortcut must be one of \('A', 'B'\), got "):
        build_model("resnet20", 10, shortcut=shortcut)


@pytest.mark.parametrize("name", ["vgg16", "resnet", "resnet20x", "resnet-20", "ResNet20", "", "20"])
def test_bad_name(name):
    with pytest.raises(ValueError, match=rf"^model must be .*resnet8.*resnet56.*, got '{name}'$"):
        build_model(name, 10)


@pytest.mark.parametrize("name", ["resnet2", "resnet19"])
def test_name_with_a_bad_depth(name):
    with pytest.raises(ValueError, match=r"8, 14, 20, 32, 44, 56|resnet8.*resnet56"):
        build_model(name, 10)
