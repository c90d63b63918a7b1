"""Tell sparse features, those of texts without an encoder, from dense ones."""

from __future__ import annotations

from typing import Any, TypeGuard

from scipy import sparse


def is_sparse(features: object) -> TypeGuard[sparse.csr_matrix[Any]]:
    """Whether the features are sparse. Then they are a CSR matrix, which the type of SciPy's `issparse` leaves open."""
    return sparse.issparse(features)
