"""Class indices and rows of length 1."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from seedling.dataset.class_indices import class_indices, index_by_class
from seedling.features.normalization import normalize_rows


def test_a_label_is_the_position_of_its_class() -> None:
    """In any order of the labels; a label that is not a class is an error instead of a wrong number."""
    assert index_by_class(["ant", "bee", "cat"]) == {"ant": 0, "bee": 1, "cat": 2}
    assert class_indices(["cat", "ant", "cat"], ["ant", "bee", "cat"]).tolist() == [2, 0, 2]
    assert class_indices([], ["ant"]).shape == (0,)
    with pytest.raises(KeyError, match="dog"):
        class_indices(["dog"], ["ant", "bee"])


def test_rows_get_length_1_and_rows_of_zeros_stay_zeros() -> None:
    """(3, 4) becomes (0.6, 0.8); sparse rows become the same numbers."""
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]])
    expected = [[0.6, 0.8], [0.0, 0.0], [0.0, -1.0]]
    assert np.allclose(normalize_rows(rows), expected)
    assert np.allclose(normalize_rows(sparse.csr_matrix(rows)).toarray(), expected)
