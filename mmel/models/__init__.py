"""The networks of the study."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


class ModelError(Exception):
    """A text model that is missing, or lacks what it is wanted for."""


def build_model(name: str, num_classes: int, in_channels: int = 3, shortcut: str = "A") -> nn.Module:
    """Build a network by name, freshly initialised from torch's global generator.

    Args:
        name: `resnet8` ... `resnet56`, the CIFAR ResNets.
        num_classes: width of the output.
        in_channels: channels of the images.
        shortcut: `A` or `B`.

    Raises:
        ValueError: on a name that does not exist.
    """
    from mmel.models.cifar_resnet import CifarResNet

    depth = name.removeprefix("resnet")
    if not name.startswith("resnet") or not depth.isdigit():
        raise ValueError(f"model must be resnet8, resnet14, resnet20, resnet32, resnet44 or resnet56, got {name!r}")
    return CifarResNet(int(depth), num_classes, in_channels, shortcut)
