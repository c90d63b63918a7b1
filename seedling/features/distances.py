"""Distances between rows by their features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.features.normalization import normalize_rows
from seedling.features.sparsity import is_sparse
from seedling.parallel.executor import in_threads
from seedling.stats.statistics import Floats, Ints

NEIGHBORS = 10
MAX_DISTANCES_PER_BLOCK = 4_000_000  # per thread


def cosine_distances(rows: Any, others: Any) -> NDArray[np.float32]:
    """(n_rows, n_others): 1 − cosine similarity. Both inputs have rows of length 1."""
    cosines = rows @ others.T
    dense = np.asarray(cosines.toarray() if is_sparse(cosines) else cosines, dtype=np.float32)
    return np.subtract(1, dense, out=dense)


def blocks(rows: int) -> list[slice]:
    """Split rows into blocks whose distances to all rows fit into memory; depends only on the number of rows."""
    step = int(np.clip(MAX_DISTANCES_PER_BLOCK // max(1, rows), 16, 1_024))
    return [slice(first, first + step) for first in range(0, rows, step)]


def distances(features: Any, groups: Ints, labeled: int) -> tuple[Floats, Floats]:
    """Return, per row, the mean cosine distance to its nearest neighbors, and the distance to the nearest labeled row.

    Cosine distance is 1 − cosine similarity; NaN if there are no other rows. features: (n_rows, d), of which the first
    `labeled` have labels; groups: (n_rows,), near-duplicate groups, whose members are ignored as neighbors.
    """
    unit = normalize_rows(features)
    nearest = min(NEIGHBORS, len(groups) - int(np.bincount(groups).max()))

    def of_block(block: slice) -> tuple[Floats, Floats]:
        block_distances = cosine_distances(unit[block], unit)
        block_distances[groups[block, None] == groups[None]] = np.inf
        to_label = block_distances[:, :labeled].min(axis=1)
        closest = (
            np.partition(block_distances, nearest - 1, axis=1)[:, :nearest]
            if nearest
            else np.full((len(block_distances), 1), np.nan)
        )
        return closest.mean(axis=1), np.where(np.isfinite(to_label), to_label, np.nan)

    parts = in_threads(of_block, blocks(len(groups)))
    to_neighbors, to_labeled = (np.concatenate(block_values) for block_values in zip(*parts, strict=True))
    return np.maximum(to_neighbors, 0.0), np.maximum(to_labeled, 0.0)
