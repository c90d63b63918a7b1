"""How far rows are from each other, by their features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.parallel.executor import in_threads
from seedling.stats.statistics import Floats, Ints

NEIGHBORS = 10
NUMBERS_AT_ONCE = 4_000_000  # distances that one thread holds


def of_length_one(features: Any) -> Any:
    """Each row of length 1, dense or sparse; zeros as they are."""
    if sparse.issparse(features):
        lengths = np.sqrt(np.asarray(features.multiply(features).sum(axis=1)).ravel())
        return sparse.csr_matrix(sparse.diags(1 / np.maximum(lengths, 1e-9)) @ features)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)


def away_from(rows: Any, others: Any) -> NDArray[np.float32]:
    """(n_rows, n_others): 1 - cosine. Both of length 1."""
    found = rows @ others.T
    dense = np.asarray(found.toarray() if sparse.issparse(found) else found, dtype=np.float32)
    return np.subtract(1, dense, out=dense)


def blocks(rows: int) -> list[slice]:
    """Rows in blocks whose distances to all rows a thread can hold; their size depends on how many rows there are alone."""
    step = int(np.clip(NUMBERS_AT_ONCE // max(1, rows), 16, 1_024))
    return [slice(first, first + step) for first in range(0, rows, step)]


def distances(features: Any, groups: Ints, labeled: int) -> tuple[Floats, Floats]:
    """Of each row the mean distance (1 - cosine) to its nearest others, and that to the nearest labeled one; NaN where there is none.

    features: (n_rows, d), the first `labeled` of which have labels; groups: (n_rows,), of near-duplicates, which are not counted.
    """
    unit = of_length_one(features)
    nearest = min(NEIGHBORS, len(groups) - int(np.bincount(groups).max()))

    def of_block(mine: slice) -> tuple[Floats, Floats]:
        away = away_from(unit[mine], unit)
        away[groups[mine, None] == groups[None]] = np.inf
        to_label = away[:, :labeled].min(axis=1)
        closest = np.partition(away, nearest - 1, axis=1)[:, :nearest] if nearest else np.full((len(away), 1), np.nan)
        return closest.mean(axis=1), np.where(np.isfinite(to_label), to_label, np.nan)

    parts = in_threads(of_block, blocks(len(groups)))
    own, label = (np.concatenate(one) for one in zip(*parts, strict=True))
    return np.maximum(own, 0.0), np.maximum(label, 0.0)
