"""How uncertain each row of the review queue is, and the input of the orders (orders.py).

All scores are computed in blocks of rows, so that a million rows need little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seedling.label_quality.prior import MEAN_NOISE_RATE
from seedling.stats.statistics import SMALLEST

NO_LABEL = -1
ROWS_PER_BLOCK = 16_384  # whose probabilities are copied at once

Scores = NDArray[np.float32]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class RankingInput:
    """The rows that can be asked: n rows, d features, k classes, and m rows with a label or an answer of a person.

    features: (n, d), rows of length 1. probabilities: (n, k), rows sum to 1, NaN in rows that no model has predicted,
    out of fold for labeled rows. labels: (n,), the class number of the present label, -1 without one. p_label_error:
    (n,), NaN if unknown. groups: (n,), equal for near-duplicates. newest_first: (n,), rank by arrival, 0 is the newest.
    reviewed_features: (m, d). reviewed_labels: (m,). committee: (members, n, k), the probabilities of several models.
    seconds_per_row: (n,), the time of an answer as measured for the reviewers, NaN if unknown.
    """

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    p_label_error: NDArray[np.float32]
    groups: NDArray[np.int64]
    newest_first: NDArray[np.int64]
    reviewed_features: NDArray[np.float32]
    reviewed_labels: NDArray[np.int64]
    committee: NDArray[np.float32] | None = None
    seconds_per_row: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def has_prediction(self) -> bool:
        """Whether a model has predicted any row."""
        return self.probabilities.shape[1] > 0 and bool((~np.isnan(self.probabilities[:, 0])).any())


def descending(scores: Scores, rng: np.random.Generator) -> Positions:
    """Positions by descending score; NaN comes last, equal scores in random order."""
    ties = rng.permutation(len(scores))
    return ties[np.argsort(-scores[ties], kind="stable")]


def first_of_groups(ordered: Positions, groups: NDArray[np.int64], count: int) -> Positions:
    """The first `count` positions without those of whose group an earlier one exists."""
    first = np.unique(groups[ordered], return_index=True)[1]
    return ordered[np.sort(first)][:count]


def row_blocks(n_rows: int, rows_per_block: int = ROWS_PER_BLOCK) -> Iterator[slice]:
    """Parts of the rows whose copies fit into little memory."""
    return (slice(start, start + rows_per_block) for start in range(0, n_rows, rows_per_block))


def margin_uncertainty(rows: RankingInput) -> Scores:
    """(n,), 0 to 2: 1 - (p_y - highest other probability) for the label y, or the likeliest class; 1 if unknown.

    For pool rows, it is at most 1. For a labeled row it exceeds 1 if another class is likelier than the label, as in
    cleanlab's normalized margin.
    """
    scores = np.ones(len(rows), dtype=np.float32)
    if rows.probabilities.shape[1] < 2:
        return scores
    for block in row_blocks(len(rows)):
        probabilities = np.array(rows.probabilities[block], dtype=np.float32)
        labels = np.asarray(rows.labels[block])
        index = np.arange(len(probabilities))
        answer = np.where(labels == NO_LABEL, probabilities.argmax(axis=1), labels)
        p_answer = probabilities[index, answer]
        probabilities[index, answer] = -1
        scores[block] = 1 - (p_answer - probabilities.max(axis=1))
    return np.where(np.isnan(scores), np.float32(1), scores)


def entropy_uncertainty(rows: RankingInput) -> Scores:
    """(n,): -Σ p log p in nats, that of equal probabilities if unknown."""
    scores = np.zeros(len(rows), dtype=np.float32)
    for block in row_blocks(len(rows)):
        scores[block] = entropy(np.asarray(rows.probabilities[block], dtype=np.float32))
    return np.where(np.isnan(scores), np.float32(np.log(max(rows.probabilities.shape[1], 1))), scores)


def committee_disagreement(rows: RankingInput) -> Scores:
    """(n,): entropy of the members' mean minus the mean of their entropies; the margin's uncertainty without members.

    Rows that the committee has not predicted get the highest value there is.
    """
    committee = rows.committee
    if committee is None or len(committee) == 0:
        return margin_uncertainty(rows)
    scores = np.zeros(len(rows), dtype=np.float32)
    for block in row_blocks(len(rows)):
        members = np.asarray(committee[:, block], dtype=np.float32)
        scores[block] = entropy(members.mean(axis=0)) - np.mean([entropy(member) for member in members], axis=0)
    return np.where(np.isnan(scores), np.float32(np.inf), scores)


def entropy(probabilities: NDArray[np.float32]) -> Scores:
    """(n,): -Σ p log p of each row. probabilities: (n, k)."""
    result: Scores = -(probabilities * np.log(np.maximum(probabilities, SMALLEST))).sum(axis=1)
    return result


def label_errors(rows: RankingInput) -> Scores:
    """(n,): the probability that the label is wrong; 0 for rows without a label.

    If p_label_error is unknown, it is 1 - p(label) of the predictions, and the prior MEAN_NOISE_RATE without one.
    """
    chances = np.asarray(rows.p_label_error, dtype=np.float32).copy()
    chances[rows.labels == NO_LABEL] = 0.0
    unknown = np.flatnonzero(np.isnan(chances))
    if rows.probabilities.shape[1] > 0:
        chances[unknown] = 1 - rows.probabilities[unknown, rows.labels[unknown]]
    chances[np.isnan(chances)] = MEAN_NOISE_RATE
    return chances


SCORES_OF_PREDICTIONS: dict[str, Callable[[RankingInput], Scores]] = {
    "margin": margin_uncertainty,
    "entropy": entropy_uncertainty,
    "disagreement": committee_disagreement,
}
