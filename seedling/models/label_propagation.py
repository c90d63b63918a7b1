"""Labels spread over a nearest-neighbor graph (Zhou et al. 2004, "local and global consistency"), seeded with labels
and with a teacher's opinion, and brought to the class shares that the teacher expects (Zhu et al. 2003).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.parallel.pool import in_pieces
from seedling.stats.statistics import SMALLEST, Floats

STEPS = 60
ROWS_A_PIECE = 2_048  # a multiple of 256, the rows whose distances scikit-learn computes together


def neighbor_graph(features: NDArray[np.float32], neighbors: int) -> Any:
    """The symmetric, degree-normalized affinity matrix (n, n), sparse, of a Gaussian kernel on the k nearest."""
    many = min(neighbors, len(features) - 1)
    starts = range(0, len(features), ROWS_A_PIECE)
    parts = list(in_pieces(NearestRows(features, many), starts))
    distances, places = (np.concatenate(both).ravel() for both in zip(*parts, strict=True))
    rows_end = np.arange(0, len(places) + 1, many)
    graph = sparse.csr_matrix((distances, places, rows_end), shape=(len(features), len(features)))
    width = float(np.median(graph.data)) or 1.0
    graph.data = np.exp(-((graph.data / width) ** 2))
    graph = graph.maximum(graph.T)
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), SMALLEST)))
    return sparse.csr_matrix(scale @ graph @ scale)


class NearestRows:
    """Finds the nearest other rows of some rows; a piece of work that any process may do. features: (n, d)."""

    def __init__(self, features: NDArray[np.float32], neighbors: int) -> None:
        self.features, self.neighbors = features, neighbors
        self._index: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the index, which another process builds of the features."""
        return {**vars(self), "_index": None}

    def __call__(self, first: int) -> tuple[Floats, NDArray[np.intp]]:
        """Of `ROWS_A_PIECE` rows from `first` on: distances and row numbers, (n, neighbors), the row itself left out as kneighbors_graph does."""
        from sklearn.neighbors import NearestNeighbors

        if self._index is None:
            self._index = NearestNeighbors(n_neighbors=self.neighbors).fit(self.features)
        asked = self.features[first : first + ROWS_A_PIECE]
        distances, places = self._index.kneighbors(asked, self.neighbors + 1)
        others = places != np.arange(first, first + len(asked))[:, None]
        others[others.all(axis=1), 0] = False  # so many copies of the row are nearer that it does not stand among them
        shape = (len(asked), self.neighbors)
        return distances[others].reshape(shape), places[others].reshape(shape)


def propagate_labels(graph: Any, seeds: NDArray[np.float32], *, strength: float) -> NDArray[np.float32]:
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

    shares: (n_classes,), over all rows; labels: (n, n_classes), as `dropout_std` gives them.
    """
    scaled = labels / np.maximum(labels.sum(axis=0), SMALLEST) * shares
    total = scaled.sum(axis=1, keepdims=True)
    result: Floats = np.where(total > SMALLEST, scaled / np.maximum(total, SMALLEST), shares / shares.sum())
    return result
