"""Latent semantic analysis: the singular vectors of terms, the same each time, also of rows that repeat each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from seedling.features.latent_semantics import topic_directions


def terms(rows: int, columns: int, repeats: int = 1) -> sparse.csr_matrix:
    """Sparse weights; each row stands there so many times."""
    different = sparse.random(rows, columns, 0.2, random_state=0, format="csr")
    return sparse.csr_matrix(sparse.vstack([different] * repeats))


@pytest.mark.parametrize(("rows", "columns"), [(30, 80), (80, 30), (240, 220)])
def test_directions_are_numpys_right_singular_vectors(rows: int, columns: int) -> None:
    """But for their sign, with fewer rows than terms, more, and too many of both for the Gram matrix."""
    max_gram_rows = 200
    weights = terms(rows, columns)
    expected = np.linalg.svd(weights.toarray())[2][:5].T
    directions = topic_directions(weights, 5, max_gram_rows)
    assert np.abs((directions * expected).sum(axis=0)) == pytest.approx(np.ones(5), abs=1e-6)
    assert (directions[np.abs(directions).argmax(axis=0), range(5)] > 0).all()


def test_rows_that_repeat_each_other_have_the_same_directions_each_time() -> None:
    """20 different rows have 20 directions; the others are zero, and memory that lies elsewhere changes no bit."""
    kept, results = [], set()
    for number in range(8):
        kept.append(np.empty(1_000 + 8 * number))
        directions = topic_directions(terms(20, 90, repeats=3), 40)
        results.add(directions.tobytes())
    assert len(results) == 1
    assert (np.linalg.norm(directions, axis=0) > 0.5).sum() == 20
    assert not directions[:, 20:].any()


def test_arpack_and_the_gram_matrix_agree() -> None:
    """On rows of full rank, sign included."""
    weights = terms(60, 90)
    assert topic_directions(weights, 10, max_gram_rows=1) == pytest.approx(topic_directions(weights, 10), abs=1e-8)


def test_rows_without_terms_have_no_directions() -> None:
    """Texts of stop words alone, say."""
    assert not topic_directions(sparse.csr_matrix((5, 4)), 3).any()
