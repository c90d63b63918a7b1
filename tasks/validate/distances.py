"""How far rows are from each other, by their features."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from tasks.parallel import in_threads
from tasks.statistics import Floats, Ints

NEIGHBOURS = 10
ROWS_AT_ONCE = 512


def of_length_one(features: Any) -> Any:
    """Each row of length 1, dense or sparse; zeros as they are."""
    if sparse.issparse(features):
        lengths = np.sqrt(np.asarray(features.multiply(features).sum(axis=1)).ravel())
        return sparse.csr_matrix(sparse.diags(1 / np.maximum(lengths, 1e-9)) @ features)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)


def alike(rows: Any, others: Any) -> Floats:
    """(n_rows, n_others): the cosines. Both of length 1."""
    found = rows @ others.T
    return np.asarray(found.toarray() if sparse.issparse(found) else found, dtype=np.float64)


def distances(features: Any, groups: Ints, labelled: int) -> tuple[Floats, Floats]:
    """Of each row the mean distance (1 - cosine) to its nearest others, and that to the nearest labelled one; NaN where there is none.

    features: (n_rows, d), the first `labelled` of which have labels; groups: (n_rows,), of near-duplicates, which are not counted.
    """
    unit = of_length_one(features)
    nearest = min(NEIGHBOURS, len(groups) - int(np.bincount(groups).max()))

    def of_block(first: int) -> tuple[Floats, Floats]:
        mine = slice(first, first + ROWS_AT_ONCE)
        away = 1 - alike(unit[mine], unit)
        away[groups[mine, None] == groups[None]] = np.inf
        to_label = away[:, :labelled].min(axis=1)
        closest = np.partition(away, nearest - 1, axis=1)[:, :nearest] if nearest else np.full((len(away), 1), np.nan)
        return closest.mean(axis=1), np.where(np.isfinite(to_label), to_label, np.nan)

    parts = in_threads(of_block, range(0, len(groups), ROWS_AT_ONCE))
    own, label = (np.concatenate(one) for one in zip(*parts, strict=True))
    return np.maximum(own, 0.0), np.maximum(label, 0.0)
