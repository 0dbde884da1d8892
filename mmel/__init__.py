"""Minimizing the maximal expected loss over augmented samples (MMEL, ICLR 2021); its names load torch in use alone."""

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

_NAMES = {
    "losses": "MMELHardLoss MMELSoftLoss UniformLoss WorstCaseLoss",
    "worst_cases": "KL ChiSquare CVaR Maximum augmentation_weights maximal_expected_loss sample_views",
    "views": "KViews ViewsCollator group_views",
    "augment.color": "ColorJitter",
    "augment.images": "RandomCropFlip",
    "augment.resized_crop": "RandomResizedCropFlip",
}
_HOMES = {name: f"mmel.{module}" for module, names in _NAMES.items() for name in names.split()}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mmel' has no attribute {name!r}")
