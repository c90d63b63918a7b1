"""Refits the head on cached features after a number of answers, in seconds.

- The head is the logistic regression of seedling/models/heads.py on features of length 1.
- Cross-validation on the labeled rows gives a temperature, which calibrates the probabilities, and the accuracy.
  Answers are about rows that were selected, often difficult ones. Row i therefore counts as much as the share of all
  rows whose nearest labeled row it is, v_i = n_i / n (Loog 2012), which corrects for the selection:

      accuracy = Σ v_i correct_i,    with Wilson's interval at the effective number of rows 1 / Σ v_i² (Kish 1965).

- The committee are heads fitted on bootstrap draws of the labeled rows (Breiman 1996), within each class, so that no
  member misses a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seedling.features.classical import Inputs
from seedling.features.normalization import normalize_rows
from seedling.label_quality.label_issues import label_error_probabilities
from seedling.models.heads import Head
from seedling.stats.randomness import generator
from seedling.stats.statistics import Floats, Ints, fit_temperature, softmax, wilson_of

FOLDS = 5
MEMBERS = 5
MIN_ROWS_FOR_ACCURACY = 10
MAX_REFERENCES = 5_000  # rows whose nearest labeled rows are searched
ROWS_PER_BLOCK = 16_384

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Refit:
    """A head fitted on m labeled rows, and what it predicts for n rows.

    probabilities: (n, k), calibrated, NaN if fewer than two classes have labels. committee: (members, n, k).
    out_of_fold: (m, k), calibrated probabilities of the labeled rows by heads that were not fitted on them, and
    p_label_error: (m,), by the same heads; NaN with too few rows. is_evaluable: (m,), whether these heads have seen the
    row's class. accuracy: cross-validated, (value, low, high); None
    with fewer than MIN_ROWS_FOR_ACCURACY rows.
    """

    probabilities: Probabilities
    committee: Probabilities
    out_of_fold: Probabilities
    p_label_error: Probabilities
    is_evaluable: NDArray[np.bool_]
    accuracy: tuple[float, float, float] | None
    temperature: float


def refit(  # noqa: PLR0913  (the labeled rows, all rows, and how to fit)
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    n_classes: int,
    all_features: NDArray[np.float32],
    seed: int,
    *,
    members: int = MEMBERS,
    groups: NDArray[np.int64] | None = None,
    estimate_label_errors: bool = True,
) -> Refit:
    """Fit the head, its temperature and a committee on the labeled rows, and predict all rows.

    features: (m, d), labels and weights: (m,), of labeled rows. all_features: (n, d). groups: (m,), near-duplicates,
    which stay in one fold; by default, each row is its own group. estimate_label_errors: whether to compute
    p_label_error, which takes longer than the fits with few labels; NaN otherwise.

    Raises:
        ValueError: the arrays are not of the same rows, or a label is not a class number.
    """
    _check(features, labels, weights, n_classes)
    n_rows = len(all_features)
    rng = generator(seed, "review refit")
    if len(np.unique(labels)) < 2:
        return _without_heads(n_rows, len(labels), n_classes)
    rows = np.asarray(normalize_rows(np.asarray(features, dtype=np.float32)), dtype=np.float32)
    fold = assign_folds(np.arange(len(labels)) if groups is None else groups, labels, rng)
    logits, is_evaluable = out_of_fold_logits(rows, labels, weights, fold, n_classes)
    temperature = fit_temperature(logits[is_evaluable], labels[is_evaluable])
    head = fit_head(rows, labels, weights, n_classes)
    unknown_errors = np.full(len(labels), np.nan, dtype=np.float32)
    committee = [
        fit_head(rows[draw], labels[draw], weights[draw], n_classes)
        for draw in (bootstrap_within_classes(labels, rng) for _ in range(members))
    ]
    out_of_fold = softmax(logits / temperature).astype(np.float32)
    out_of_fold[np.isnan(logits[:, 0])] = np.nan
    return Refit(
        probabilities=predict(head, all_features, temperature),
        committee=np.stack([predict(member, all_features, temperature) for member in committee])
        if committee
        else np.zeros((0, n_rows, n_classes), dtype=np.float32),
        out_of_fold=out_of_fold,
        p_label_error=_label_errors(logits, labels, fold) if estimate_label_errors else unknown_errors,
        is_evaluable=is_evaluable,
        accuracy=accuracy_of(logits.argmax(axis=1) == labels, rows, all_features, rng),
        temperature=temperature,
    )


def _without_heads(n_rows: int, n_labels: int, n_classes: int) -> Refit:
    """What is known with fewer than two classes: nothing."""
    return Refit(
        probabilities=np.full((n_rows, n_classes), np.nan, dtype=np.float32),
        committee=np.zeros((0, n_rows, n_classes), dtype=np.float32),
        out_of_fold=np.full((n_labels, n_classes), np.nan, dtype=np.float32),
        p_label_error=np.full(n_labels, np.nan, dtype=np.float32),
        is_evaluable=np.zeros(n_labels, dtype=bool),
        accuracy=None,
        temperature=1.0,
    )


def _check(features: NDArray[np.float32], labels: Ints, weights: Floats, n_classes: int) -> None:
    if not len(features) == len(labels) == len(weights):
        raise ValueError(f"{len(features)} features, {len(labels)} labels and {len(weights)} weights do not match.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < n_classes:
        raise ValueError(f"Labels from {labels.min()} to {labels.max()} are not numbers of {n_classes} classes.")


def assign_folds(groups: NDArray[np.int64], labels: Ints, rng: np.random.Generator) -> Ints:
    """(m,): folds of whole groups, with each class spread evenly: groups are dealt in the order of their classes."""
    _, first, group_index = np.unique(groups, return_index=True, return_inverse=True)
    ties = rng.permutation(len(first))
    order = ties[np.argsort(labels[first][ties], kind="stable")]
    fold_of_group = np.empty(len(first), dtype=np.int64)
    fold_of_group[order] = np.arange(len(first)) % FOLDS
    return np.asarray(fold_of_group[group_index])


def fit_head(features: NDArray[np.float32], labels: Ints, weights: Floats, n_classes: int) -> Head:
    """Return a logistic regression fitted on rows of length 1."""
    head = Head("logistic_regression", 0, n_classes)
    head.fit(Inputs(features), np.eye(n_classes)[labels], weights)
    return head


def out_of_fold_logits(
    features: NDArray[np.float32], labels: Ints, weights: Floats, fold: Ints, n_classes: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """(m, k) logits of heads fitted on the other folds, and (m,) whether these hold the row's class."""
    logits, is_evaluable = np.full((len(labels), n_classes), np.nan), np.zeros(len(labels), dtype=bool)
    for fold_index in np.unique(fold):
        held_out, training = np.flatnonzero(fold == fold_index), np.flatnonzero(fold != fold_index)
        if len(training) == 0 or not (weights[training] > 0).any():
            continue
        head = fit_head(features[training], labels[training], weights[training], n_classes)
        logits[held_out] = head.logits(Inputs(features[held_out]))
        is_evaluable[held_out] = np.isin(labels[held_out], labels[training])
    return logits, is_evaluable


def bootstrap_within_classes(labels: Ints, rng: np.random.Generator) -> NDArray[np.intp]:
    """(m,): a bootstrap draw of the rows that has as many rows of each class as there are."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    first, size = np.repeat(starts, counts), np.repeat(counts, counts)
    return np.asarray(order[first + rng.integers(size)], dtype=np.intp)


def _label_errors(logits: Floats, labels: Ints, fold: Ints) -> Probabilities:
    """(m,): p_label_error from out-of-fold logits; NaN where it cannot be estimated."""
    result = np.full(len(labels), np.nan, dtype=np.float32)
    rows = np.flatnonzero(~np.isnan(logits[:, 0]))
    if len(rows) >= MIN_ROWS_FOR_ACCURACY:
        result[rows] = label_error_probabilities(logits[rows], labels[rows], fold[rows])
    return result


def predict(head: Head, features: NDArray[np.float32], temperature: float) -> Probabilities:
    """(n, k): softmax(logits / temperature), one block of rows at a time."""
    probabilities = np.empty((len(features), head.classes), dtype=np.float32)
    for start in range(0, len(features), ROWS_PER_BLOCK):
        block = normalize_rows(np.asarray(features[start : start + ROWS_PER_BLOCK], dtype=np.float32))
        probabilities[start : start + len(block)] = softmax(head.logits(Inputs(block)) / temperature)
    return probabilities


def accuracy_of(
    correct: NDArray[np.bool_],
    features: NDArray[np.float32],
    all_features: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[float, float, float] | None:
    """The accuracy on all rows with its 95 % interval, from out-of-fold predictions of the labeled ones."""
    if len(correct) < MIN_ROWS_FOR_ACCURACY:
        return None
    drawn = np.sort(rng.permutation(len(all_features))[:MAX_REFERENCES])
    references = normalize_rows(np.asarray(all_features[drawn], dtype=np.float32))
    shares = nearest_row_shares(features, references)
    effective = min(1 / float((shares**2).sum()), float(len(correct)))
    estimate = wilson_of(float(shares @ correct), effective, confidence=0.95)
    return estimate.value, estimate.low, estimate.high


def nearest_row_shares(features: NDArray[np.float32], references: NDArray[np.float32]) -> Floats:
    """(m,), sums to 1: the share of the reference rows whose nearest labeled row it is; each row counts itself, too.

    features: (m, d) of labeled rows and references: (r, d), both of length 1.
    """
    counts = np.ones(len(features))
    for start in range(0, len(references), 1_024):
        nearest = (references[start : start + 1_024] @ features.T).argmax(axis=1)
        counts += np.bincount(nearest, minlength=len(features))
    shares: Floats = counts / counts.sum()
    return shares
