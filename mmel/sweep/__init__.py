"""Many runs: what is missing, what it costs, and papermill."""

# Why a run was not trained though nothing failed: its budget stopped it, or another process trains it. The names of
# `mmel.train.BudgetError` and `mmel.records.ClaimedError`, which is all that a notebook's kernel tells of an exception.
BUDGET_SPENT, CLAIMED = "BudgetError", "ClaimedError"
# What is said of a run whose process or kernel was killed; it goes on from its checkpoint.
LOST = "the process that trained it died"


class NotebookError(Exception):
    """A notebook that does not fit its parameters, or in which a cell failed.

    Attributes:
        name: of the exception that the cell raised, if one did.
    """

    def __init__(self, message: str, name: str | None = None):
        super().__init__(message)
        self.name = name
