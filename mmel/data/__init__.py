"""Data sets as whole tensors: the real ones from disk, the embedded ones from code."""


class DataError(Exception):
    """A data set that is missing or damaged."""
