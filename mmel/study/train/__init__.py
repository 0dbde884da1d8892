"""Training: one loop for every run, and a task for each kind of data."""

from mmel.study.train.machine import check_versions

# Before an import below fails on an old package in words of its own.
check_versions()

from mmel.study.train.look import look  # noqa: E402
from mmel.study.train.loop import BudgetError, train  # noqa: E402
from mmel.study.train.step import DivergedError, TrainingError  # noqa: E402

__all__ = ["BudgetError", "DivergedError", "TrainingError", "look", "train"]
