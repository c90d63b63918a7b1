"""Selects the rows that are on one screen together: rows that are predicted alike, and near-duplicates."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from seedling.review.rows import ReviewRows

GRID_ROWS = 36
MAX_DUPLICATES = 12
ROWS_PER_BLOCK = 50_000


def predicted_alike(rows: ReviewRows, positions: NDArray[np.intp]) -> tuple[NDArray[np.intp], str] | None:
    """Up to GRID_ROWS of the rows with the most frequent prediction, the most confident first, and their class.

    Returns None if no row is predicted.
    """
    positions = positions[~np.isnan(rows.probabilities[positions, 0])]
    if not len(positions):
        return None
    predicted = np.empty(len(positions), dtype=np.int32)
    for start in range(0, len(positions), ROWS_PER_BLOCK):  # a copy of all probabilities takes much memory
        block = slice(start, start + ROWS_PER_BLOCK)
        predicted[block] = rows.probabilities[positions[block]].argmax(axis=1)
    label_index = int(np.bincount(predicted).argmax())
    members = positions[predicted == label_index]
    confident = np.argsort(-rows.probabilities[members, label_index], kind="stable")[:GRID_ROWS]
    return members[confident], rows.classes[label_index]


def near_duplicates(rows: ReviewRows, positions: NDArray[np.intp], excluded_ids: Collection[str]) -> NDArray[np.intp]:
    """Up to MAX_DUPLICATES rows of the first group of near-duplicates without any of the excluded rows."""
    ordered = positions[np.argsort(rows.groups[positions], kind="stable")]
    groups, starts, counts = np.unique(rows.groups[ordered], return_index=True, return_counts=True)
    excluded = rows.ids.positions(list(excluded_ids))
    excluded_groups = np.unique(rows.groups[excluded[excluded >= 0]])
    for index in np.flatnonzero((counts > 1) & ~np.isin(groups, excluded_groups)):
        return ordered[starts[index] : starts[index] + min(counts[index], MAX_DUPLICATES)]
    return np.zeros(0, dtype=np.intp)
