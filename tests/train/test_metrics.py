"""GLUE's scores, held against scikit-learn and scipy."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from mmel.train.metrics import confusion, score

# What each score is elsewhere; scipy says NaN for a correlation with a constant.
REFERENCES = {
    "accuracy_pct": lambda predictions, targets: accuracy_score(targets, predictions),
    "f1_pct": lambda predictions, targets: f1_score(targets, predictions, zero_division=0.0),
    "matthews_pct": lambda predictions, targets: matthews_corrcoef(targets, predictions),
    "spearman_pct": lambda predictions, targets: spearmanr(predictions, targets).statistic,
}
CLASSES = [
    ([1, 0, 1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 0, 1, 1, 1]),
    ([1, 0, 1], [1, 0, 1]),
    ([0, 1, 0], [1, 0, 1]),
    ([0, 0, 0], [0, 1, 0]),
    ([1, 1, 1], [0, 1, 0]),
    ([0, 1, 0], [1, 1, 1]),
    ([0, 0], [0, 0]),
    ([1, 1], [1, 1]),
    ([1], [1]),
    ([0], [1]),
]


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("metric", ["accuracy_pct", "f1_pct", "matthews_pct"])
@pytest.mark.parametrize(("predictions", "targets"), CLASSES, ids=str)
def test_scores_of_classes(metric, predictions, targets):
    assert score(metric, predictions, targets) == pytest.approx(100 * REFERENCES[metric](predictions, targets))


@pytest.mark.parametrize("metric", ["accuracy_pct", "f1_pct", "matthews_pct"])
@pytest.mark.parametrize("seed", range(5))
def test_scores_of_many_classes_drawn_at_random(metric, seed):
    generator = np.random.default_rng(seed)
    targets = (generator.random(277) < 0.3).astype(int)
    predictions = np.where(generator.random(277) < 0.2, 1 - targets, targets)
    expected = 100 * REFERENCES[metric](predictions, targets)
    assert 30 < expected < 95
    assert score(metric, predictions.tolist(), targets.tolist()) == pytest.approx(expected)


def test_accuracy_of_three_classes():
    # MNLI.
    assert score("accuracy_pct", [0, 1, 2, 2], [0, 1, 1, 2]) == 75


def test_f1_is_of_class_1():
    # 1 hit, 1 miss and 0 false alarms: 2 / 3; of class 0 it would be 4 / 5.
    assert score("f1_pct", [1, 0, 0, 0], [1, 1, 0, 0]) == pytest.approx(200 / 3)


@pytest.mark.parametrize("decimals", [0, 1, 6], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("seed", range(3))
def test_rank_correlation(seed, decimals):
    generator = np.random.default_rng(seed)
    targets = np.round(5 * generator.random(100), decimals)
    predictions = np.round(targets + generator.normal(size=100), decimals)
    # Ranks only: any increasing function of the scores, in any range, correlates alike.
    predictions = np.exp(predictions)
    expected = 100 * REFERENCES["spearman_pct"](predictions, targets)
    assert 50 < expected < 95
    assert score("spearman_pct", predictions.tolist(), targets.tolist()) == pytest.approx(expected)
    assert score("spearman_pct", (-predictions).tolist(), targets.tolist()) == pytest.approx(-expected)


@pytest.mark.parametrize(("predictions", "targets"), [([2.0, 2.0, 2.0], [1.0, 3.0, 2.0]), ([1.0, 3.0], [4.0, 4.0])])
def test_an_undefined_correlation_is_0(predictions, targets):
    # A record is JSON, which has no NaN; and a network that says one thing of all texts knows nothing.
    with pytest.warns(Warning, match="constant"):
        assert math.isnan(REFERENCES["spearman_pct"](predictions, targets))
    assert score("spearman_pct", predictions, targets) == 0


@pytest.mark.parametrize("metric", REFERENCES)
def test_a_score_is_a_plain_number(metric):
    assert type(score(metric, [1, 0, 1], [1, 0, 0])) is float


def test_unknown_metrics_are_refused():
    allowed = "accuracy_pct, f1_pct, matthews_pct, spearman_pct"
    with pytest.raises(ValueError, match=f"^metric must be one of {allowed}, got 'accuracy'$"):
        score("accuracy", [1], [1])


@pytest.mark.parametrize(("predictions", "targets"), [([], []), ([1], []), ([1, 0], [1])])
def test_lists_of_other_lengths_are_refused(predictions, targets):
    message = f"^predictions and targets must be equally many.*, got {len(predictions)} and {len(targets)}$"
    with pytest.raises(ValueError, match=message):
        score("accuracy_pct", predictions, targets)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_confusions_are_counted_as_scikit_learn_counts_them(share):
    generator = np.random.default_rng(0)
    targets = (generator.random(50) < 0.7).astype(int).tolist()
    predictions = (generator.random(50) < share).astype(int).tolist()
    assert confusion(predictions, targets) == confusion_matrix(targets, predictions, labels=[0, 1]).tolist()
