"""Training: one loop for every run, and what differs between images and text as adapters."""

from mmel.train.look import look
from mmel.train.loop import BudgetError, TrainingError, load_trained, train

__all__ = ["BudgetError", "TrainingError", "load_trained", "look", "train"]
