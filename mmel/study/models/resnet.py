"""The residual networks of He et al. (2016): for CIFAR (section 4.2), and for ImageNet those of torchvision."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmel.study.datasets import IMAGENET_MODELS


def build_model(name: str, num_classes: int, in_channels: int = 3, shortcut: str = "A") -> nn.Module:
    """Build a network by name, freshly initialised from torch's global generator.

    Args:
        name: `resnet8` ... `resnet56`, the CIFAR ResNets; `resnet18`, `resnet34`, `resnet50`, torchvision's for
            ImageNet; `resnet18_narrow`, a quarter as wide.
        num_classes: width of the output.
        in_channels: channels of the images, of a CIFAR ResNet; ImageNet's have 3.
        shortcut: of a CIFAR ResNet, `A` or `B`.
    """
    if name not in IMAGENET_MODELS:
        return CifarResNet(int(name.removeprefix("resnet")), num_classes, in_channels, shortcut)
    if name == "resnet18_narrow":
        return narrow_resnet18(num_classes, 16)
    from torchvision import models

    return getattr(models, name)(num_classes=num_classes)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut.

    Where the shape changes, shortcut `A` subsamples and pads with zero channels (no parameters); `B` projects by a 1x1
    convolution and BatchNorm.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.extra_channels = out_channels - in_channels
        self.projection: nn.Module | None = None
        if shortcut == "B" and (stride != 1 or self.extra_channels):
            self.projection = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out)).add_(self._shortcut(x))
        return F.relu(out, inplace=True)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.projection is not None:
            return self.projection(x)
        if self.extra_channels:
            before = self.extra_channels // 2
            # Pooling one pixel picks what slicing would; unlike slicing its gradient stays channels_last.
            x = F.avg_pool2d(x, 1, self.stride)
            return F.pad(x, (0, 0, 0, 0, before, self.extra_channels - before))
        return x


class CifarResNet(nn.Module):
    """A ResNet of depth 6n + 2: three stages of n blocks with 16, 32 and 64 channels, then global average pooling.

    With shortcut `A` it has the paper's count of parameters: 269,722 for depth 20 and 10 classes.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int, shortcut: str):
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        stages, channels = [], 16
        for width, first_stride in ((16, 1), (32, 2), (64, 2)):
            for block in range(blocks):
                stages.append(BasicBlock(channels, width, first_stride if block == 0 else 1, shortcut))
                channels = width
        self.blocks = nn.Sequential(*stages)
        self.fc = nn.Linear(64, num_classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) normalised images -> (N, num_classes) logits."""
        out = F.relu(self.bn(self.conv(images)), inplace=True)
        return self.fc(self.blocks(out).mean(dim=(2, 3)))


def narrow_resnet18(num_classes: int, width: int) -> nn.Module:
    """A ResNet-18 for ImageNet whose stages have 1, 2, 4 and 8 times `width` channels; torchvision's has 64."""
    from torchvision.models import resnet

    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = width
    for stage in range(4):
        planes, stride = width * 2**stage, 2 if stage else 1
        shortcut = nn.Sequential(resnet.conv1x1(channels, planes, stride), nn.BatchNorm2d(planes)) if stage else None
        layers += [resnet.BasicBlock(channels, planes, stride, shortcut), resnet.BasicBlock(planes, planes)]
        channels = planes
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    return model.apply(_initialise)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
