"""GLUE's scores.

Each is a line of numpy, so that a GPU machine needs no statistics package; tests hold them against scikit-learn and
scipy.
"""

import numpy as np


def score(metric: str, predictions: list, targets: list) -> float:
    """A score in percent.

    Args:
        metric: `accuracy_pct`, `f1_pct` (of class 1), `matthews_pct` (of two classes) or `spearman_pct`.
        predictions: N classes, or N real scores for `spearman_pct`.
        targets: likewise.

    Returns:
        The score times 100; 0 where it is undefined, as for a correlation with constant predictions.

    Raises:
        ValueError: on another metric, or lists that are empty or differ in length.
    """
    if metric not in _SCORES:
        raise ValueError(f"metric must be one of {', '.join(_SCORES)}, got {metric!r}")
    if not 0 < len(predictions) == len(targets):
        raise ValueError(f"predictions and targets must be equally many, got {len(predictions)} and {len(targets)}")
    return 100 * float(_SCORES[metric](np.asarray(predictions), np.asarray(targets)))


def confusion(predictions: list, targets: list) -> list[list[int]]:
    """How often each of two classes was taken for which.

    Args:
        predictions: N classes, 0 or 1.
        targets: likewise.

    Returns:
        2 x 2 counts, a row a true class, as scikit-learn has them: what the sampling error of Matthews' correlation
        depends on.
    """
    return np.bincount(2 * np.asarray(targets) + np.asarray(predictions), minlength=4).reshape(2, 2).tolist()


def _accuracy(predictions: np.ndarray, targets: np.ndarray) -> float:
    return (predictions == targets).mean()


def _f1(predictions: np.ndarray, targets: np.ndarray) -> float:
    both = (predictions == 1).sum() + (targets == 1).sum()
    return 2 * ((predictions == 1) & (targets == 1)).sum() / both if both else 0.0


def _pearson(predictions: np.ndarray, targets: np.ndarray) -> float:
    if np.ptp(predictions) == 0 or np.ptp(targets) == 0:
        return 0.0
    return np.corrcoef(predictions, targets)[0, 1]


def _spearman(predictions: np.ndarray, targets: np.ndarray) -> float:
    return _pearson(_ranks(predictions), _ranks(targets))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


# Of two binary variables Pearson's correlation is Matthews'.
_SCORES = {"accuracy_pct": _accuracy, "f1_pct": _f1, "matthews_pct": _pearson, "spearman_pct": _spearman}
