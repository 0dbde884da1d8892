"""Data sets, whole or read as they are wanted: the real ones from disk or the hub, the embedded ones from code."""


class DataError(Exception):
    """A data set that is missing or damaged."""
