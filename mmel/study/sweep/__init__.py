"""Many runs: which are missing, what they cost, and their training here or on a cluster."""

from enum import Enum
from typing import NamedTuple

from mmel.study.records import LockedError


class Outcome(Enum):
    """How a run ended."""

    # Before the sweep began, or by another sweep.
    RECORDED = "recorded"
    TRAINED = "trained"
    FAILED = "failed"
    # Its process died; the next sweep resumes it from its checkpoint.
    LOST = "lost"
    # Another process trains it.
    LOCKED = "locked"
    # The budget does not suffice, or a run that it needs did not finish.
    LEFT = "left"


class Ended(NamedTuple):
    """How a run ended, and why if it was not trained."""

    outcome: Outcome
    reason: str = ""


# By the name of an exception, which is all that a notebook's kernel tells of it.
_OUTCOMES = {
    "BudgetError": Outcome.LEFT,
    LockedError.__name__: Outcome.LOCKED,
    "DeadKernelError": Outcome.LOST,
}


class NotebookError(Exception):
    """A notebook that does not fit its parameters, or in which a cell failed by an exception of some `name`."""

    def __init__(self, message: str, name: str | None = None):
        super().__init__(message)
        self.name = name


def ended_by(error: Exception) -> Ended:
    """The end of a run that raised an exception: whatever it is, the other runs are still to be trained."""
    name = type(error).__name__
    if isinstance(error, NotebookError):
        return Ended(_OUTCOMES.get(error.name, Outcome.FAILED), str(error))
    return Ended(_OUTCOMES.get(name, Outcome.FAILED), f"{name}: {error}")
