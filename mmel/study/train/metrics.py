"""GLUE's scores, by scikit-learn and SciPy."""

import numpy as np

METRICS = ("accuracy_pct", "f1_pct", "matthews_pct", "spearman_pct")


def score(metric: str, predictions: list, targets: list) -> float:
    """A score in percent.

    Args:
        metric: `accuracy_pct`, `f1_pct` (of class 1), `matthews_pct` (of two classes) or `spearman_pct`.
        predictions: N classes, or N real scores for `spearman_pct`.
        targets: likewise.

    Returns:
        The score times 100; 0 if it is undefined, as a correlation with constant predictions is.

    Raises:
        ValueError: on another metric, or lists that are empty or differ in length.
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if not 0 < len(predictions) == len(targets):
        raise ValueError(f"predictions and targets must be equally many, got {len(predictions)} and {len(targets)}")
    if metric == "accuracy_pct":
        return 100 * float(accuracy_score(targets, predictions))
    if metric == "f1_pct":
        return 100 * float(f1_score(targets, predictions, zero_division=0))
    if metric == "matthews_pct":
        return 100 * float(matthews_corrcoef(targets, predictions))
    constant = np.ptp(predictions) == 0 or np.ptp(targets) == 0
    return 0.0 if constant else 100 * float(spearmanr(predictions, targets).statistic)
