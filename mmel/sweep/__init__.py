"""Many runs: what is missing, what it costs, and papermill."""

# What a run says that its budget stopped: the name of `mmel.train.BudgetError`, which a notebook's kernel reports.
BUDGET_SPENT = "BudgetError"


class NotebookError(Exception):
    """A notebook that does not fit its parameters, or in which a cell failed.

    Attributes:
        name: of the exception that the cell raised, if one did.
    """

    def __init__(self, message: str, name: str | None = None):
        super().__init__(message)
        self.name = name
