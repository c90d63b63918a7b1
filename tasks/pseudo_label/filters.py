"""Which of the pool's labels are kept; each filter is a pure function of probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.statistics import Floats


def class_wise_threshold(probabilities: Floats, threshold: float) -> NDArray[np.bool_]:
    """(n_rows,): confident enough for its class.

    The limit of a class is `threshold` × the mean confidence of all rows × the class's mean confidence over the surest
    class's (after FreeMatch, Wang et al. 2023): neither a hard class nor a model that is unsure of everything, as one
    that has seen few labels must be, is left without rows. probabilities: (n_rows, n_classes), rows sum to 1.
    """
    if len(probabilities) == 0:
        return np.zeros(0, dtype=bool)
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = np.bincount(said, minlength=probabilities.shape[1])
    mean = np.bincount(said, weights=confidence, minlength=probabilities.shape[1]) / np.maximum(rows, 1)
    limits = threshold * confidence.mean() * mean / mean.max()
    result: NDArray[np.bool_] = confidence >= limits[said]
    return result
