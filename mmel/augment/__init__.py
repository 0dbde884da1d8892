"""Augmented samples: B(x) for images and, in `text`, for sentences."""
