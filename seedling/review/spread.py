"""Orders by the features alone, without a model: coreset and clusters.

They compare MAX_COMPARED drawn rows with one another; the others follow at random.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seedling.features.normalization import normalize_rows
from seedling.review.uncertainty import Positions, RankingInput, first_of_groups, row_blocks

MAX_COMPARED = 20_000
MAX_REVIEWED = 10_000  # labeled and reviewed rows that cover others
MAX_GREEDY = 200  # rows picked one after another; a refit ranks again before they are used up
ROWS_PER_CLUSTER = 20  # that are asked in succession
MAX_CLUSTERS = 100

Matrix = NDArray[np.float32]


def by_distance(rows: RankingInput, count: int, rng: np.random.Generator) -> Positions:
    """At most `count` positions, each the farthest from all reviewed and earlier ones; the first is the most central.

    At most MAX_GREEDY are picked so; the others follow by their distance.
    """
    compared = rng.permutation(len(rows))[:MAX_COMPARED]
    features, groups = unit_rows(rows.features, compared), rows.groups[compared]
    reviewed = unit_rows(rows.reviewed_features, rng.permutation(len(rows.reviewed_features))[:MAX_REVIEWED])
    similarity = np.full(len(compared), -np.inf, dtype=np.float32)  # to the nearest reviewed or picked row
    if len(reviewed):
        similarity = np.concatenate(
            [(features[block] @ reviewed.T).max(axis=1) for block in row_blocks(len(features), 512)]
        )
    is_free, picked = np.ones(len(compared), dtype=bool), []
    for step in range(min(count, MAX_GREEDY, len(compared))):
        if not is_free.any():
            break
        is_first = step == 0 and not len(reviewed)
        distance = features @ features.mean(axis=0) if is_first else -similarity
        row = int(np.where(is_free, distance, -np.inf).argmax())
        picked.append(row)
        is_free &= groups != groups[row]
        similarity = np.maximum(similarity, features @ features[row])
    rest = np.flatnonzero(is_free)
    ordered = compared[
        np.concatenate([np.array(picked, dtype=np.intp), rest[np.argsort(similarity[rest], kind="stable")]])
    ]
    return first_of_groups(np.concatenate([ordered, other_rows(len(rows), compared, rng)]), rows.groups, count)


def by_cluster(rows: RankingInput, count: int, rng: np.random.Generator) -> Positions:
    """At most `count` positions: ROWS_PER_CLUSTER similar rows in succession, the nearest to their center first.

    The cluster with the most rows per reviewed row comes first, rows / (1 + reviewed rows). When each had its turn,
    they come again with their next rows.
    """
    from sklearn.cluster import MiniBatchKMeans  # here: most orders do not need it

    compared = rng.permutation(len(rows))[:MAX_COMPARED]
    features = unit_rows(rows.features, compared)
    n_clusters = int(np.clip(len(compared) // (2 * ROWS_PER_CLUSTER), 1, MAX_CLUSTERS))
    model = MiniBatchKMeans(n_clusters, n_init=1, batch_size=2_048, random_state=int(rng.integers(2**31)))
    cluster = model.fit_predict(features)
    sizes = np.bincount(cluster, minlength=n_clusters)
    reviewed = unit_rows(rows.reviewed_features, rng.permutation(len(rows.reviewed_features))[:MAX_REVIEWED])
    reviews = np.bincount(model.predict(reviewed), minlength=n_clusters) if len(reviewed) else np.zeros(n_clusters)
    turn_of_cluster = np.argsort(np.argsort(-sizes / (1 + reviews), kind="stable"))
    distance = np.linalg.norm(features - model.cluster_centers_[cluster], axis=1)
    by_center = np.lexsort((distance, cluster))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = np.empty(len(compared), dtype=np.intp)  # of the row in its cluster
    place[by_center] = np.arange(len(compared)) - starts[cluster[by_center]]
    ordered = compared[np.lexsort((place, turn_of_cluster[cluster], place // ROWS_PER_CLUSTER))]
    return first_of_groups(np.concatenate([ordered, other_rows(len(rows), compared, rng)]), rows.groups, count)


def other_rows(n_rows: int, compared: Positions, rng: np.random.Generator) -> Positions:
    """The rows that are not among the compared ones, in random order."""
    is_other = np.ones(n_rows, dtype=bool)
    is_other[compared] = False
    return rng.permutation(np.flatnonzero(is_other))


def unit_rows(features: NDArray[np.float32], positions: Positions) -> Matrix:
    """(len(positions), d): features of length 1 in single precision."""
    return np.asarray(normalize_rows(np.asarray(features[positions], dtype=np.float32)), dtype=np.float32)
