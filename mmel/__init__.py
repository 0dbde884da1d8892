"""Minimizing the maximal expected loss over augmented samples (MMEL, ICLR 2021).

The names below are imported when first used, so that planning and reporting never load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmel.augment.color import ColorJitter as ColorJitter
    from mmel.augment.images import RandomCropFlip as RandomCropFlip
    from mmel.augment.resized_crop import RandomResizedCropFlip as RandomResizedCropFlip
    from mmel.losses import MMELHardLoss as MMELHardLoss
    from mmel.losses import MMELSoftLoss as MMELSoftLoss
    from mmel.losses import UniformLoss as UniformLoss
    from mmel.losses import WorstCaseLoss as WorstCaseLoss
    from mmel.views import KViews as KViews
    from mmel.views import ViewsCollator as ViewsCollator
    from mmel.views import group_views as group_views
    from mmel.worst_cases import KL as KL
    from mmel.worst_cases import ChiSquare as ChiSquare
    from mmel.worst_cases import CVaR as CVaR
    from mmel.worst_cases import Maximum as Maximum
    from mmel.worst_cases import augmentation_weights as augmentation_weights
    from mmel.worst_cases import maximal_expected_loss as maximal_expected_loss
    from mmel.worst_cases import sample_views as sample_views

__version__ = "0.1.0"

_HOMES = {
    "maximal_expected_loss": "mmel.worst_cases",
    "augmentation_weights": "mmel.worst_cases",
    "sample_views": "mmel.worst_cases",
    "MMELHardLoss": "mmel.losses",
    "MMELSoftLoss": "mmel.losses",
    "UniformLoss": "mmel.losses",
    "WorstCaseLoss": "mmel.losses",
    "KL": "mmel.worst_cases",
    "ChiSquare": "mmel.worst_cases",
    "CVaR": "mmel.worst_cases",
    "Maximum": "mmel.worst_cases",
    "group_views": "mmel.views",
    "KViews": "mmel.views",
    "ViewsCollator": "mmel.views",
    "RandomCropFlip": "mmel.augment.images",
    "RandomResizedCropFlip": "mmel.augment.resized_crop",
    "ColorJitter": "mmel.augment.color",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mmel' has no attribute {name!r}")
