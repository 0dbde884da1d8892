"""Many runs: what is missing, what it costs, and papermill."""


class NotebookError(Exception):
    """A notebook that does not fit its parameters, or in which a cell failed."""
