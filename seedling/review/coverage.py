"""The expected value of an answer: how many rows it covers, how uncertain they are, and what their classes need.

With features of length 1, k(x, s) = exp(-|x - s|² / σ²) says how much an answer about row s says about row x. Row x is
covered by c(x) = max_j k(x, j), over all rows j with a label or an answer. The answer about s is worth, in rows whose
prediction it may change,

    pool row:     v(s) = Σ_x w(x) max(0, k(x, s) - c(x)),          w(x) = uncertainty(x) need(x)
    labeled row:  v(s) = 2 p_label_error(s) need(s) Σ_x k(x, s) / Σ_j k(x, j)

divided by the seconds that it takes. The first is the uncertainty coverage of Bae, Oliveira and Sutherland (2025),
weighted by class need. In the second, the sum is the number of rows that the label speaks for: rows x are shared out
among the labeled rows j near them. The factor is 2, because a correction takes a wrong vote away and adds a right one.

- uncertainty = λ + (1 - λ) (1 - (p₁ - p₂)), λ = K / (K + m) for K classes and m labels, and the two highest
  probabilities p₁ and p₂: a model of few labels does not know where it errs, so that few labels count all rows alike
  (MaxHerding, Bae, Lee and Sutherland 2024).
- need of class c = sqrt((m / K + 1) / (m_c + 1)), and that of a row is its expectation over the predicted classes.
- σ = SIGMA_PER_DISTANCE x the median distance of a row to the nearest labeled one, or of two rows before the first
  label. More labels make the kernel narrower, until uncertainty alone decides.

Rows are picked greedily; each pick raises c(x), so that later ones are different. v is submodular: the greedy pick of a
batch has at least 63 % of the best batch's value (Nemhauser, Wolsey and Fisher 1978).

**Drawn rows.** Σ_x is estimated from MAX_REFERENCES rows drawn at random. MAX_CANDIDATES rows compete: pool rows drawn
with a probability in proportion to w / seconds, and the labels that are most likely wrong. Rows beyond them follow by
their chance and need alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seedling.review.spread import MAX_GREEDY, MAX_REVIEWED, Matrix, other_rows, unit_rows
from seedling.review.uncertainty import (
    NO_LABEL,
    Positions,
    RankingInput,
    Scores,
    descending,
    first_of_groups,
    label_errors,
    margin_uncertainty,
    row_blocks,
)

MAX_CANDIDATES = 3_000  # pool rows, and as many labeled rows
MAX_REFERENCES = 3_000
SIGMA_PER_DISTANCE = 0.75
MIN_SIGMA = 0.05
SAME_ROW = 1e-6  # cosine distance, below which two rows are the same
NEED_EXPONENT = 0.5
VOTES_OF_CORRECTION = 2  # a wrong vote less and a right vote more


@dataclass(frozen=True)
class Worth:
    """What is computed for each of the n rows.

    weight: (n,), uncertainty times class need. chance: (n,), that the answer changes something: p_label_error of
    labeled rows, the uncertainty of others. need: (n,). seconds: (n,), relative to the mean.
    """

    weight: Scores
    chance: Scores
    need: Scores
    seconds: Scores


def by_expected_value(rows: RankingInput, count: int, rng: np.random.Generator) -> Positions:
    """At most `count` positions by expected value, see the module."""
    worth = worth_of(rows)
    greedy = _candidates(rows, worth, rng)
    first = greedy.pick(min(count, MAX_GREEDY))
    if len(first) >= count:
        return first
    compared = np.concatenate([first, greedy.remaining()])
    others = other_rows(len(rows), compared, rng)
    others = others[descending((worth.chance * worth.need / worth.seconds)[others], rng)]
    return first_of_groups(np.concatenate([compared, others]), rows.groups, count)


def worth_of(rows: RankingInput) -> Worth:
    """The parts of the expected value that do not depend on other rows."""
    n_rows, n_classes = rows.probabilities.shape
    need_of_class = class_need(rows.reviewed_labels, n_classes)
    need = np.ones(n_rows, dtype=np.float32)
    if n_classes:
        for block in row_blocks(n_rows):
            need[block] = np.asarray(rows.probabilities[block], dtype=np.float32) @ need_of_class
        is_known = (rows.labels != NO_LABEL) & np.isnan(need)
        need[is_known] = need_of_class[rows.labels[is_known]]
    need = np.where(np.isnan(need), np.float32(1), need)
    ignorance = n_classes / max(n_classes + len(rows.reviewed_labels), 1)
    margin = np.minimum(margin_uncertainty(rows), 1)
    uncertainty = np.float32(ignorance) + np.float32(1 - ignorance) * margin
    chance = np.where(rows.labels == NO_LABEL, uncertainty, label_errors(rows))
    return Worth(uncertainty * need, chance, need, relative_seconds(rows))


def class_need(labels: NDArray[np.int64], n_classes: int) -> Scores:
    """(n_classes,): sqrt((m / k + 1) / (m_c + 1)) for m labels, m_c of the class, and k classes."""
    counts = np.bincount(labels, minlength=n_classes)[:n_classes]
    mean = len(labels) / max(n_classes, 1)
    return np.asarray(((mean + 1) / (counts + 1)) ** NEED_EXPONENT, dtype=np.float32)


def relative_seconds(rows: RankingInput) -> Scores:
    """(n,): seconds of an answer divided by their mean; 1 if unknown."""
    seconds = rows.seconds_per_row
    if seconds is None or not np.isfinite(seconds).any():
        return np.ones(len(rows), dtype=np.float32)
    usable = np.where(np.isfinite(seconds) & (seconds > 0), seconds, np.nan)
    return np.asarray(np.nan_to_num(usable / np.nanmean(usable), nan=1.0), dtype=np.float32)


def draw_in_proportion(positions: Positions, value: Scores, count: int, rng: np.random.Generator) -> Positions:
    """At most `count` of the positions, without repetition, with a probability in proportion to the value.

    With Gumbel noise g, the largest log value + g are such a draw (Kool, van Hoof and Welling 2019).
    """
    if len(positions) <= count:
        return positions
    noise = rng.gumbel(size=len(positions)).astype(np.float32)
    keys = np.log(np.maximum(value[positions], np.float32(1e-9))) + noise
    return positions[np.sort(np.argpartition(-keys, count - 1)[:count])]


def labeled_features(rows: RankingInput, rng: np.random.Generator) -> tuple[Matrix, float]:
    """(m, d): features of rows with a label or an answer, at most 2 MAX_REVIEWED, and the number of rows per drawn one.

    Labeled rows that are among the reviewed ones as well count once.
    """
    reviewed = {row.tobytes() for row in rows.reviewed_features}
    labeled = np.flatnonzero(rows.labels != NO_LABEL)
    total = len(rows.reviewed_features)
    drawn = rng.permutation(total)[:MAX_REVIEWED]
    others = [row for row in rng.permutation(labeled)[:MAX_REVIEWED] if rows.features[row].tobytes() not in reviewed]
    share_of_others = len(others) / max(min(len(labeled), MAX_REVIEWED), 1)
    features = [unit_rows(rows.reviewed_features, drawn), unit_rows(rows.features, np.array(others, dtype=np.intp))]
    n_drawn = len(drawn) + len(others)
    return np.concatenate(features), (total + share_of_others * len(labeled)) / max(n_drawn, 1)


def kernel_width(rows: Matrix, reviewed: Matrix) -> float:
    """σ: SIGMA_PER_DISTANCE x the median distance to the nearest reviewed row, or of two rows if there are none."""
    if len(reviewed):
        cosines = np.concatenate([_nearest_other(rows[block], reviewed) for block in row_blocks(len(rows), 512)])
    else:
        half = len(rows) // 2
        cosines = (rows[:half] * rows[half : 2 * half]).sum(axis=1)
    distances = np.sqrt(np.maximum(2 * (1 - cosines[np.isfinite(cosines)]), 0))
    return max(SIGMA_PER_DISTANCE * float(np.median(distances)), MIN_SIGMA) if len(distances) else 1.0


def _nearest_other(rows: Matrix, reviewed: Matrix) -> Scores:
    """(n,): the cosine to the nearest reviewed row that is not the row itself; -inf if there is none."""
    cosines = rows @ reviewed.T
    cosines[cosines > 1 - SAME_ROW] = -np.inf
    return np.asarray(cosines.max(axis=1))


def kernel_of(cosines: Matrix, sigma: float) -> Matrix:
    """exp(-|x - s|² / σ²), where |x - s|² = 2 (1 - cosine) for rows of length 1."""
    return np.asarray(np.exp(np.minimum((cosines - 1) * np.float32(2 / sigma**2), 0)), dtype=np.float32)


def coverage_by(rows: Matrix, reviewed: Matrix, sigma: float) -> Scores:
    """(n,): c(x), the kernel of each row and its nearest reviewed one; 0 if there are none."""
    if not len(reviewed):
        return np.zeros(len(rows), dtype=np.float32)
    nearest = [(rows[block] @ reviewed.T).max(axis=1) for block in row_blocks(len(rows), 512)]
    return kernel_of(np.concatenate(nearest), sigma) if nearest else np.zeros(0, dtype=np.float32)


def label_density(rows: Matrix, reviewed: Matrix, rows_per_reviewed: float, sigma: float) -> Scores:
    """(n,): Σ_j k(x, j) over all rows j with a label, at least 1."""
    sums = [kernel_of(rows[block] @ reviewed.T, sigma).sum(axis=1) for block in row_blocks(len(rows), 512)]
    density = np.concatenate(sums) if sums else np.zeros(0, dtype=np.float32)
    return np.asarray(np.maximum(density * rows_per_reviewed, 1), dtype=np.float32)


def without_same_row(kernel: Matrix, rows: Positions, references: Positions) -> Matrix:
    """Set k(x, s) to 0 where both are the same row, which is counted apart."""
    _, of_rows, of_references = np.intersect1d(rows, references, return_indices=True)
    kernel[of_rows, of_references] = 0
    return kernel


@dataclass
class _Greedy:
    """Pool and labeled candidates, and how far the answers cover the pool candidates and the reference rows.

    positions, groups, gains: (p + l,), of p pool candidates and then l labeled ones. gains: v when it was computed
    last, an upper bound; -inf for rows that are no longer available. references: (r,), positions. features: (p, d).
    kernel: (p, r), 0 where both are the same row. weights: (r,), w of the reference rows times the rows that each
    stands for. own_weights: (p,). covered: (r,). own_covered: (p,). seconds: (p,).
    """

    positions: Positions
    references: Positions
    groups: NDArray[np.int64]
    gains: Scores
    features: Matrix
    sigma: float
    kernel: Matrix
    weights: Scores
    own_weights: Scores
    covered: Scores
    own_covered: Scores
    seconds: Scores

    def compute_gains(self) -> None:
        """Compute the gains of the available pool candidates."""
        for row in np.flatnonzero(self.gains[: len(self.features)] > -np.inf):
            self.gains[row] = self.gain(int(row))

    def gain(self, row: int) -> float:
        """The v of a pool candidate per second, given what is covered: by reference rows and the row itself."""
        others = np.maximum(self.kernel[row] - self.covered, 0) @ self.weights
        itself = self.own_weights[row] * (1 - self.own_covered[row])
        return float((others + itself) / self.seconds[row])

    def pick(self, count: int) -> Positions:
        """The positions of the greedy picks. Gains only fall, so a gain above all other bounds is the highest."""
        picked: list[int] = []
        while len(picked) < min(count, len(self.gains)):
            row = int(self.gains.argmax())
            if self.gains[row] == -np.inf:
                break
            if row < len(self.features):
                self.gains[row] = self.gain(row)
                if self.gains[row] < self.gains.max():
                    continue
                self._cover(row)
            picked.append(row)
            self.gains[self.groups == self.groups[row]] = -np.inf
        return self.positions[np.array(picked, dtype=np.intp)]

    def _cover(self, row: int) -> None:
        self.covered = np.maximum(self.covered, self.kernel[row])
        self.covered[self.references == self.positions[row]] = 1
        near = kernel_of(self.features @ self.features[row], self.sigma)
        self.own_covered = np.maximum(self.own_covered, near)

    def remaining(self) -> Positions:
        """The positions of the available candidates by their gains."""
        self.compute_gains()
        available = np.flatnonzero(self.gains > -np.inf)
        return self.positions[available[np.argsort(-self.gains[available], kind="stable")]]


def _candidates(rows: RankingInput, worth: Worth, rng: np.random.Generator) -> _Greedy:
    """Draw the candidates and the reference rows, and compute the first gains."""
    value = worth.chance * worth.need / worth.seconds
    is_labeled = rows.labels != NO_LABEL
    pool = draw_in_proportion(np.flatnonzero(~is_labeled), value, MAX_CANDIDATES, rng)
    labeled = np.flatnonzero(is_labeled)
    labeled = labeled[descending(value[labeled], rng)][:MAX_CANDIDATES]
    references = rng.permutation(len(rows))[:MAX_REFERENCES]
    per_reference = np.float32(len(rows) / len(references))
    features, reference_features = unit_rows(rows.features, pool), unit_rows(rows.features, references)
    reviewed, rows_per_reviewed = labeled_features(rows, rng)
    sigma = kernel_width(reference_features, reviewed)
    kernel = without_same_row(kernel_of(features @ reference_features.T, sigma), pool, references)
    greedy = _Greedy(
        positions=np.concatenate([pool, labeled]),
        references=references,
        groups=rows.groups[np.concatenate([pool, labeled])],
        gains=np.zeros(len(pool) + len(labeled), dtype=np.float32),
        features=features,
        sigma=sigma,
        kernel=kernel,
        weights=worth.weight[references] * per_reference,
        own_weights=worth.weight[pool],
        covered=coverage_by(reference_features, reviewed, sigma),
        own_covered=coverage_by(features, reviewed, sigma),
        seconds=worth.seconds[pool],
    )
    greedy.compute_gains()
    if len(labeled):
        labels = unit_rows(rows.features, labeled)
        near = without_same_row(kernel_of(labels @ reference_features.T, sigma), labeled, references)
        shares = per_reference / label_density(reference_features, reviewed, rows_per_reviewed, sigma)
        represented = near @ shares + 1 / label_density(labels, reviewed, rows_per_reviewed, sigma)
        greedy.gains[len(pool) :] = VOTES_OF_CORRECTION * value[labeled] * represented
    return greedy
