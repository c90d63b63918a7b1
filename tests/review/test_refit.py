"""Refits of the head during a review: calibrated predictions, a committee, and an accuracy that allows for selection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from seedling.review.background import AccuracyHistory
from seedling.review.refit import (
    FOLDS,
    MEMBERS,
    accuracy_of,
    assign_folds,
    bootstrap_within_classes,
    nearest_row_shares,
    refit,
)
from seedling.workspace import Workspace


def at_degrees(*angles: float) -> NDArray[np.float32]:
    """Features on a circle."""
    radians = np.deg2rad(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def separated(n_rows: int, n_classes: int, scale: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows around one direction per class, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_rows) % n_classes
    features = np.eye(n_classes, 12)[labels] + rng.normal(scale=scale, size=(n_rows, 12))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), labels


def test_the_head_is_a_calibrated_logistic_regression() -> None:
    """The probabilities are those of scikit-learn's model on rows of length 1, its logits divided by the temperature."""
    features, labels = separated(90, 3, 0.4, seed=0)
    result = refit(3 * features, labels, np.ones(90), 3, 5 * features, seed=0)
    model = LogisticRegression(C=10.0, max_iter=200, tol=1e-3).fit(features, labels)
    expected = softmax(model.decision_function(features) / result.temperature, axis=1)
    assert np.abs(result.probabilities - expected).max() < 0.01
    assert result.committee.shape == (MEMBERS, 90, 3)
    assert result.committee.sum(axis=2) == pytest.approx(1, abs=1e-5)


def test_members_of_the_committee_differ_most_between_classes() -> None:
    """The standard deviation between members is larger halfway between two classes than at their centers."""
    features, labels = separated(60, 2, 0.3, seed=1)
    between = np.concatenate([features[:1] * 0 + np.eye(1, 12), np.eye(1, 12) + np.roll(np.eye(1, 12), 1)])
    result = refit(features, labels, np.ones(60), 2, between.astype(np.float32), seed=0)
    deviations = result.committee[:, :, 0].std(axis=0)
    assert deviations[1] > 2 * deviations[0]


def test_a_planted_label_error_is_the_most_suspicious_one() -> None:
    """Of 60 labels, the one that was changed has the highest p_label_error, and an out-of-fold p(label) below 0.5."""
    features, labels = separated(60, 3, 0.2, seed=2)
    labels[17] = (labels[17] + 1) % 3
    result = refit(features, labels, np.ones(60), 3, features, seed=0)
    assert int(result.p_label_error.argmax()) == 17
    assert result.out_of_fold[17, labels[17]] < 0.5
    faster = refit(features, labels, np.ones(60), 3, features, seed=0, estimate_label_errors=False)
    assert np.isnan(faster.p_label_error).all()
    assert np.array_equal(faster.probabilities, result.probabilities)


def test_a_class_without_labels_is_not_predicted() -> None:
    """The third class has no label yet: its probability is 0, and the others sum to 1."""
    features, labels = separated(40, 2, 0.3, seed=3)
    result = refit(features, labels, np.ones(40), 3, features, seed=0)
    assert result.probabilities[:, 2].max() < 1e-3
    assert result.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("n_labels", [0, 4])
def test_one_class_is_not_enough_for_a_head(n_labels: int) -> None:
    """Without labels, or with those of one class, nothing is predicted: the queue starts with typical rows."""
    features = np.eye(6, dtype=np.float32)
    result = refit(features[:n_labels], np.zeros(n_labels, dtype=np.int64), np.ones(n_labels), 2, features, seed=0)
    assert np.isnan(result.probabilities).all() and result.probabilities.shape == (6, 2)
    assert result.accuracy is None
    assert result.committee.shape == (0, 6, 2)
    assert result.out_of_fold.shape == (n_labels, 2)


def test_two_labels_are_enough_for_a_head() -> None:
    """One row of each of two classes: each is predicted as its class, the accuracy is not known yet."""
    features = np.eye(2, dtype=np.float32)
    result = refit(features, np.array([0, 1]), np.ones(2), 2, features, seed=0)
    assert result.probabilities.argmax(axis=1).tolist() == [0, 1]
    assert result.accuracy is None


def test_shares_of_nearest_rows_by_hand() -> None:
    """Of 10°, 20° and 80°, two are nearest to 0° and one to 90°; with the two rows themselves, 3/5 and 2/5."""
    assert nearest_row_shares(at_degrees(0, 90), at_degrees(10, 20, 80)) == pytest.approx([0.6, 0.4])


def test_the_interval_of_evenly_spread_rows_is_wilsons() -> None:
    """If each labeled row is the nearest one of as many rows, accuracy and interval are those of 7 of 10 rows."""
    features = np.eye(10, dtype=np.float32)
    correct = np.arange(10) < 7
    result = accuracy_of(correct, features, features, np.random.default_rng(0))
    peer = binomtest(7, 10).proportion_ci(method="wilson")
    assert result == pytest.approx((0.7, peer.low, peer.high))


def test_accuracy_allows_for_the_selection_of_difficult_rows() -> None:
    """Half of the reviewed rows are the difficult tenth of all rows: the plain share of right ones is 20 points low."""
    rng = np.random.default_rng(0)

    def draw(n_easy: int, n_difficult: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        n_rows = n_easy + n_difficult
        labels = rng.integers(2, size=n_rows)
        is_easy = np.arange(n_rows) < n_easy
        features = np.zeros((n_rows, 3))
        features[:, 0], features[:, 1] = np.where(is_easy, 2 * labels - 1, 0), np.where(is_easy, 0, 3)
        features = features + rng.normal(scale=0.2, size=features.shape)
        return features.astype(np.float32), labels

    everything, truth = draw(900, 100)
    reviewed, labels = draw(60, 60)
    result = refit(reviewed, labels, np.ones(120), 2, everything, seed=0)
    accuracy = float((result.probabilities.argmax(axis=1) == truth).mean())
    plain = float((result.out_of_fold.argmax(axis=1) == labels).mean())
    assert result.accuracy is not None
    value, low, high = result.accuracy
    assert plain < accuracy - 0.15
    assert value == pytest.approx(accuracy, abs=0.05)
    assert low < accuracy < high


def test_bootstrap_draws_keep_the_class_counts() -> None:
    """Every draw has as many rows of each class as there are, and repeats some."""
    labels = np.array([2, 0, 0, 1, 0, 2, 0, 0, 2, 2])
    drawn = bootstrap_within_classes(labels, np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [5, 1, 4]
    assert len(np.unique(drawn)) < len(labels)


def test_folds_keep_near_duplicates_together_and_spread_classes() -> None:
    """Rows of a group share a fold, and each class with one row per group has as many rows in every fold."""
    labels = np.repeat([0, 1, 2], [20, 10, 5])
    fold = assign_folds(np.arange(35), labels, np.random.default_rng(0))
    for label, per_fold in enumerate([4, 2, 1]):
        assert np.bincount(fold[labels == label], minlength=FOLDS).tolist() == [per_fold] * FOLDS
    groups = np.arange(35) // 2
    fold = assign_folds(groups, labels, np.random.default_rng(0))
    assert all(len(set(fold[groups == group].tolist())) == 1 for group in groups)


def test_wrong_input_is_refused() -> None:
    """Arrays of different rows, and labels that are no class numbers, are errors that give the numbers."""
    features = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="3 features, 2 labels and 3 weights"):
        refit(features, np.array([0, 1]), np.ones(3), 2, features, seed=0)
    with pytest.raises(ValueError, match="Labels from 0 to 2 are not numbers of 2 classes"):
        refit(features, np.array([0, 1, 2]), np.ones(3), 2, features, seed=0)


def test_a_damaged_file_of_accuracies_starts_a_new_curve(tmp_path: Path) -> None:
    """The review goes on without the earlier points."""
    path = Workspace(tmp_path).review_accuracies
    path.parent.mkdir(parents=True)
    path.write_text("[[20, 0.5, 0.4", encoding="utf-8")
    history = AccuracyHistory.of(tmp_path)
    assert history.points == []
    history.add(40, (0.6, 0.5, 0.7))
    assert AccuracyHistory.of(tmp_path).points == [(40, 0.6, 0.5, 0.7)]
