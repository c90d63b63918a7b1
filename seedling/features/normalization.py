"""Scale rows to Euclidean length 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from seedling.features.sparsity import is_sparse

MIN_LENGTH = 1e-9  # shorter rows are divided by this, so that rows of zeros stay zeros


def normalize_rows(features: Any) -> Any:
    """Scale each row to length 1, dense or sparse; rows of zeros stay zeros."""
    if is_sparse(features):
        lengths = np.sqrt(np.asarray(features.multiply(features).sum(axis=1)).ravel())
        return sparse.csr_matrix(sparse.diags(1 / np.maximum(lengths, MIN_LENGTH)) @ features)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), MIN_LENGTH)
