"""Label propagation on a nearest-neighbor graph (Zhou et al. 2004, "local and global consistency").

The seeds are labels and a teacher's predictions. The result is scaled to the class shares that the teacher expects
(class mass normalization, Zhu et al. 2003).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.parallel.pool import in_pieces
from seedling.stats.statistics import SMALLEST, Floats

PROPAGATION_STEPS = 60
ROWS_PER_PIECE = 2_048  # a multiple of 256, the rows whose distances scikit-learn computes together


def neighbor_graph(features: NDArray[np.float32], neighbors: int) -> Any:
    """Return the symmetric normalized affinity matrix (n, n), sparse: D^(-1/2) W D^(-1/2).

    W has a Gaussian kernel exp(−(distance / median distance)²) for the k nearest neighbors.
    """
    n_neighbors = min(neighbors, len(features) - 1)
    block_starts = range(0, len(features), ROWS_PER_PIECE)
    parts = list(in_pieces(NearestRows(features, n_neighbors), block_starts))
    distances, neighbors_of_rows = (np.concatenate(arrays).ravel() for arrays in zip(*parts, strict=True))
    rows_end = np.arange(0, len(neighbors_of_rows) + 1, n_neighbors)
    graph = sparse.csr_matrix((distances, neighbors_of_rows, rows_end), shape=(len(features), len(features)))
    kernel_width = float(np.median(graph.data)) or 1.0
    graph.data = np.exp(-((graph.data / kernel_width) ** 2))
    graph = graph.maximum(graph.T)
    scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), SMALLEST)))
    return sparse.csr_matrix(scale @ graph @ scale)


class NearestRows:
    """Finds the nearest other rows of a block of rows; any process can run it. features: (n, d)."""

    def __init__(self, features: NDArray[np.float32], neighbors: int) -> None:
        self.features, self.neighbors = features, neighbors
        self._index: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the index, which another process builds from the features."""
        return {**vars(self), "_index": None}

    def __call__(self, first: int) -> tuple[Floats, NDArray[np.intp]]:
        """Return distances and row numbers, (n, neighbors), for `ROWS_PER_PIECE` rows starting at `first`.

        The row itself is left out, as in scikit-learn's `kneighbors_graph`.
        """
        from sklearn.neighbors import NearestNeighbors

        if self._index is None:
            self._index = NearestNeighbors(n_neighbors=self.neighbors).fit(self.features)
        block = self.features[first : first + ROWS_PER_PIECE]
        distances, neighbor_rows = self._index.kneighbors(block, self.neighbors + 1)
        is_other = neighbor_rows != np.arange(first, first + len(block))[:, None]
        # A row with many copies may not be among its own neighbors; the first neighbor is dropped instead.
        is_other[is_other.all(axis=1), 0] = False
        shape = (len(block), self.neighbors)
        return distances[is_other].reshape(shape), neighbor_rows[is_other].reshape(shape)


def propagate_labels(graph: Any, seeds: NDArray[np.float32], *, strength: float) -> NDArray[np.float32]:
    """(n, n_classes): propagated labels, by iterating F ← strength · S F + (1 − strength) · seeds.

    Linear in the seeds; in single precision. seeds: (n, n_classes), label distributions times their weights; strength:
    0 (returns the seeds) to 1.
    """
    transition = (strength * graph).astype(np.float32)
    kept_seeds = seeds * np.float32(1 - strength)
    labels = seeds
    for _ in range(PROPAGATION_STEPS):
        labels = transition @ labels
        labels += kept_seeds
    return labels


def scale_to_class_shares(shares: Floats, labels: Floats) -> Floats:
    """(n, n_classes), rows sum to 1: propagated labels with each class scaled to its expected share.

    shares: (n_classes,), over all rows; labels: (n, n_classes), as `propagate_labels` returns them. A row without
    labels gets the shares.
    """
    scaled = labels / np.maximum(labels.sum(axis=0), SMALLEST) * shares
    row_sums = scaled.sum(axis=1, keepdims=True)
    result: Floats = np.where(row_sums > SMALLEST, scaled / np.maximum(row_sums, SMALLEST), shares / shares.sum())
    return result
