"""Latent semantic analysis of terms (Deerwester et al. 1990), with the same result each time.

With X = U S V', X (n_rows, n_terms) of TF-IDF weights, a row's topics are X V_k, V_k the right singular vectors of the k largest singular
values. ARPACK finds them fast for many rows. Where X has fewer than k independent rows it goes on from a random vector that no seed
fixes, so few rows are solved by the eigenvectors of the smaller Gram matrix: X X' = U S² U', V = X' U / S.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

MAX_GRAM_ROWS = 1_000  # an eigenproblem of half a second
SMALLEST_SHARE = 1e-4  # of the largest singular value: below, a direction is rounding


def topic_directions(terms: sparse.csr_matrix, topics: int, max_gram_rows: int = MAX_GRAM_ROWS) -> NDArray[np.float64]:
    """(n_terms, topics): V_k, in descending order of singular values; zeros for directions that the rows do not have.

    terms: (n_rows, n_terms), where topics < min(n_rows, n_terms); max_gram_rows: the most rows of the Gram matrix, beyond which ARPACK is used.
    """
    weights = sparse.csr_matrix(terms, dtype=np.float64)
    by_gram = min(weights.shape) <= max_gram_rows
    values, directions = _by_gram_matrix(weights, topics) if by_gram else _by_arpack(weights, topics)
    directions[:, values <= SMALLEST_SHARE * values.max(initial=0.0)] = 0.0
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
    return directions * np.where(largest < 0, -1.0, 1.0)  # either sign is right


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
