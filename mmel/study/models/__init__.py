"""The networks of the study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmel.study.datasets import IMAGE_MODELS, IMAGENET_MODELS

if TYPE_CHECKING:
    from torch import nn


class ModelError(Exception):
    """A text model that is missing, or lacks what it is wanted for."""


def text_model_name(named: str | None = None) -> str | None:
    """The name that runs have for a text encoder: its hub name, or its folder's name without the path.

    Args:
        named: hub name or folder; None for MMEL_TEXT_MODEL.

    Returns:
        The name; None if neither is set, for the encoder of a profile.
    """
    named = named or os.environ.get("MMEL_TEXT_MODEL")
    return Path(named).resolve().name if named and Path(named).is_dir() else named or None


def build_model(name: str, num_classes: int, in_channels: int = 3, shortcut: str = "A") -> nn.Module:
    """Build a network by name, freshly initialised from torch's global generator.

    Args:
        name: `resnet8` ... `resnet56`, the CIFAR ResNets; `resnet18`, `resnet34`, `resnet50`, torchvision's for
            ImageNet; `resnet18_narrow`.
        num_classes: width of the output.
        in_channels: channels of the images; 3 for ImageNet's networks.
        shortcut: of the CIFAR ResNets, `A` or `B`.

    Raises:
        ValueError: on a name that does not exist.
    """
    from mmel.study.models.cifar_resnet import CifarResNet

    if name in IMAGENET_MODELS:
        if in_channels != 3:
            raise ValueError(f"in_channels must be 3 for model {name!r}, got {in_channels}")
        from mmel.study.models.imagenet_resnet import imagenet_resnet

        return imagenet_resnet(name, num_classes)
    depth = name.removeprefix("resnet")
    if not name.startswith("resnet") or not depth.isdigit():
        raise ValueError(f"model must be one of {', '.join(IMAGE_MODELS)}, got {name!r}")
    return CifarResNet(int(depth), num_classes, in_channels, shortcut)
