"""Training: one loop for every run, and what differs between images and text as adapters."""

from mmel.requirements import check_versions

# Before anything below fails on an old package in its own words.
check_versions()

from mmel.train.look import look  # noqa: E402
from mmel.train.loop import BudgetError, TrainingError, load_trained, train  # noqa: E402

__all__ = ["BudgetError", "TrainingError", "load_trained", "look", "train"]
