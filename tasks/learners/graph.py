"""Labels spread over a nearest-neighbour graph (Zhou et al. 2004, "local and global consistency"), seeded with labels
and with a teacher's opinion, and brought to the class shares that the teacher expects (Zhu et al. 2003).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.statistics import SMALLEST, Floats

STEPS = 60


def neighbour_graph(features: NDArray[np.float32], neighbours: int) -> Any:
    """The symmetric, degree-normalised affinity matrix (n, n), sparse, of a Gaussian kernel on the k nearest."""
    from sklearn.neighbors import kneighbors_graph

    graph = kneighbors_graph(features, min(neighbours, len(features) - 1), mode="distance")
    width = float(np.median(graph.data)) or 1.0
    graph.data = np.exp(-((graph.data / width) ** 2))
    graph = graph.maximum(graph.T)
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), SMALLEST)))
    return sparse.csr_matrix(scale @ graph @ scale)


def spread(graph: Any, seeds: NDArray[np.float32], *, strength: float) -> NDArray[np.float32]:
    """(n, n_classes): what reaches each row. Linear in the seeds; in single precision.

    seeds: (n, n_classes), what is known of each row, times how much it counts; strength: 0 (seeds as they are) to 1.
    """
    passed_on = (strength * graph).astype(np.float32)
    kept = seeds * np.float32(1 - strength)
    labels = seeds
    for _ in range(STEPS):
        labels = passed_on @ labels
        labels += kept
    return labels


def brought_to(shares: Floats, labels: Floats) -> Floats:
    """(n, n_classes), rows sum to 1: what has reached the rows, each class scaled by the share that is expected of it.

    shares: (n_classes,), over all rows; labels: (n, n_classes), as `spread` gives them.
    """
    scaled = labels / np.maximum(labels.sum(axis=0), SMALLEST) * shares
    total = scaled.sum(axis=1, keepdims=True)
    result: Floats = np.where(total > SMALLEST, scaled / np.maximum(total, SMALLEST), shares / shares.sum())
    return result
