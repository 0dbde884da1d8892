"""Minimizing the maximal expected loss over augmented samples (MMEL, ICLR 2021).

The names below are imported when first used, so that planning and reporting never load torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "maximal_expected_loss": "mmel.losses",
    "augmentation_weights": "mmel.losses",
    "MMELHardLoss": "mmel.losses",
    "MMELSoftLoss": "mmel.losses",
    "UniformLoss": "mmel.losses",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mmel' has no attribute {name!r}")
