"""Chooses for what purpose a reviewer gets the next row: to decide it, or to measure labels and reviewers.

A share of the questions are random rows, three of four without a suggestion, from which statistics.py estimates error
rates without bias. The rows of this sample are the first ones of a random permutation of all labeled rows and of all
pool rows, whether they were reviewed or not: leaving out reviewed rows, most of which are doubtful, would bias the
estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from seedling.config.review_params import ReviewParams
from seedling.review.records import Purpose
from seedling.review.rows import ReviewRows
from seedling.stats.randomness import derived_seed

RESOLUTION = 2**32
SHOWN_EVERY = 4  # random rows


@dataclass(frozen=True)
class Shares:
    """The shares of questions with a purpose other than to decide a row."""

    random: float
    gold: float
    repeat: float
    overlap: float

    @classmethod
    def of(cls, params: ReviewParams) -> Shares:
        """The shares of params.yaml."""
        return cls(params.random_share, params.gold_share, params.repeat_share, params.overlap)


def purpose_of(shares: Shares, reviewer: str, number: int, seed: int) -> Purpose:
    """The purpose of the reviewer's question with this number, drawn by hash: a repeated run draws the same."""
    draw = derived_seed(seed, "purpose", reviewer, number) % RESOLUTION / RESOLUTION
    limits: list[tuple[Purpose, float]] = [
        ("random", shares.random),
        ("gold", shares.gold),
        ("repeat", shares.repeat),
        ("overlap", shares.overlap),
    ]
    for purpose, share in limits:
        if draw < share:
            return purpose
        draw -= share
    return "queue"


def shows_random_suggestion(seed: int, row_id: str) -> bool:
    """Whether a row of the random sample is shown with its suggestion: one in SHOWN_EVERY.

    The other random rows have none. The difference between both is the reviewer's automation bias: without it, the rows
    with and without a suggestion would differ in more than the suggestion.
    """
    return derived_seed(seed, "suggestion of a random row", row_id) % SHOWN_EVERY == 0


class RandomSample:
    """A random permutation of the labeled rows and one of the pool, taken in turns."""

    def __init__(self, rows: ReviewRows, seed: int) -> None:
        rng = np.random.default_rng(derived_seed(seed, "random rows") % 2**63)
        has_label = rows.labels.is_known
        is_labeled = rows.is_in("train") & has_label
        is_pool = rows.is_in("pool") | ~has_label
        self._labeled = rng.permutation(np.flatnonzero(is_labeled)).astype(np.int32)
        self._pool = rng.permutation(np.flatnonzero(is_pool)).astype(np.int32)

    def __iter__(self) -> Iterator[int]:
        """Yield all rows: a labeled one, one of the pool, and so on; the rest of the larger group at the end."""
        shorter = min(len(self._labeled), len(self._pool))
        for labeled, pooled in zip(self._labeled[:shorter], self._pool[:shorter], strict=True):
            yield int(labeled)
            yield int(pooled)
        for positions in (self._labeled[shorter:], self._pool[shorter:]):
            yield from map(int, positions)
