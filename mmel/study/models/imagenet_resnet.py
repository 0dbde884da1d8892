"""ResNets for ImageNet (He et al. 2016): torchvision's, and a narrow one for small images."""

from __future__ import annotations

from torch import nn

NARROW_WIDTH = 16


def imagenet_resnet(name: str, num_classes: int) -> nn.Module:
    """Build a ResNet for images of three channels, freshly initialised from torch's global generator.

    Args:
        name: `resnet18`, `resnet34` or `resnet50`, torchvision's; `resnet18_narrow`.
        num_classes: width of the output.

    Raises:
        ModuleNotFoundError: if torchvision is missing.
    """
    from torchvision import models

    if name == "resnet18_narrow":
        return narrow_resnet18(num_classes)
    return getattr(models, name)(num_classes=num_classes)


def narrow_resnet18(num_classes: int, width: int = NARROW_WIDTH) -> nn.Module:
    """A ResNet-18 whose stages have `width`, 2, 4 and 8 times `width` channels; torchvision's has a width of 64.

    Args:
        num_classes: width of the output.
        width: channels of the first stage.
    """
    from torchvision.models.resnet import BasicBlock, conv1x1

    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = width
    for stage in range(4):
        planes, stride = width * 2**stage, 1 if stage == 0 else 2
        shortcut = None if stage == 0 else nn.Sequential(conv1x1(channels, planes, stride), nn.BatchNorm2d(planes))
        layers += [BasicBlock(channels, planes, stride, shortcut), BasicBlock(planes, planes)]
        channels = planes
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
