"""Training: one loop for every run, and what differs between images and text as adapters."""

from mmel.train.loop import TrainingError, load_trained, train

__all__ = ["TrainingError", "load_trained", "train"]
