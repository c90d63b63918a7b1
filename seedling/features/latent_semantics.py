"""Latent semantic analysis of terms (Deerwester et al. 1990), deterministic even for repeated rows.

X = U S V' is the singular value decomposition of the TF-IDF weights X (n_rows, n_terms). The topics of the rows are X
V_k, where V_k contains the right singular vectors of the k largest singular values.

ARPACK computes V_k quickly for many rows. If X has fewer than k linearly independent rows, it continues from a random
vector that no seed controls (SciPy 1.17). Small matrices are therefore solved by the eigenvectors of the smaller Gram
matrix, X X' = U S² U' and V = X' U / S, or X' X = V S² V'. Directions with a singular value of almost 0 are set to 0 in
both cases.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

MAX_GRAM_ROWS = 1_000
MIN_SINGULAR_VALUE_SHARE = 1e-4  # of the largest one; smaller values are rounding errors


def topic_directions(terms: sparse.csr_matrix, topics: int, max_gram_rows: int = MAX_GRAM_ROWS) -> NDArray[np.float64]:
    """Return V_k, (n_terms, topics), by descending singular values; zeros for directions beyond the rank of `terms`.

    terms: (n_rows, n_terms), with topics < min(n_rows, n_terms); max_gram_rows: the size of the Gram matrix above which
    ARPACK is used.
    """
    weights = sparse.csr_matrix(terms, dtype=np.float64)
    by_gram = min(weights.shape) <= max_gram_rows
    values, directions = _by_gram_matrix(weights, topics) if by_gram else _by_arpack(weights, topics)
    directions[:, values <= MIN_SINGULAR_VALUE_SHARE * values.max(initial=0.0)] = 0.0
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
    return directions * np.where(largest < 0, -1.0, 1.0)  # both signs are valid; this makes the result unique


def _by_gram_matrix(weights: sparse.csr_matrix, topics: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from threadpoolctl import threadpool_limits

    rows_are_fewer = weights.shape[0] <= weights.shape[1]
    gram = (weights @ weights.T if rows_are_fewer else weights.T @ weights).toarray()
    with threadpool_limits(1):  # the order of sums depends on the number of threads
        squares, vectors = np.linalg.eigh(gram)
    values = np.sqrt(np.maximum(squares[::-1][:topics], 0.0))
    vectors = vectors[:, ::-1][:, :topics]
    if not rows_are_fewer:
        return values, vectors
    return values, (weights.T @ vectors) / np.where(values > 0, values, 1.0)


def _by_arpack(weights: sparse.csr_matrix, topics: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from sklearn.decomposition import TruncatedSVD

    reducer: Any = TruncatedSVD(topics, algorithm="arpack", random_state=0).fit(weights)
    return np.asarray(reducer.singular_values_), np.array(reducer.components_.T)
