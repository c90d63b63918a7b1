"""Orders of the review queue: which rows a person is asked about first.

The default order, `expected_value`, ranks pool rows and doubtful labels in one queue by

    value = chance that the answer changes something × class need × rows that the row represents / seconds per answer

(coverage.py states it as a formula). Few labels say little about where a model errs, so typical rows come first, as in
TypiClust (Hacohen et al. 2022) and ProbCover (Yehuda et al. 2022). With more labels, the kernel narrows and uncertain
rows come first: the objective is the uncertainty coverage of Bae, Oliveira and Sutherland (2025).
`benchmarks/review.py` measures each order.

Every order returns at most one row of a group of near-duplicates, and depends only on its input and the seed.
"""

from __future__ import annotations

import numpy as np

from seedling.review.coverage import by_expected_value
from seedling.review.spread import by_cluster, by_distance
from seedling.review.uncertainty import (
    NO_LABEL,
    SCORES_OF_PREDICTIONS,
    Positions,
    RankingInput,
    descending,
    first_of_groups,
    label_errors,
)
from seedling.stats.randomness import generator

__all__ = ["ORDERS", "RankingInput", "rank"]

ORDERS = (
    "expected_value",
    "label_issues",
    "margin",
    "entropy",
    "disagreement",
    "coreset",
    "newest",
    "random",
    "clusters",
)


def rank(order: str, rows: RankingInput, count: int, seed: int) -> Positions:
    """At most `count` positions of rows, the first to ask first, at most one of each group of near-duplicates.

    - expected_value: see the module. It compares a drawn part of the rows (coverage.py).
    - label_issues: labeled rows only, the label that is most likely wrong first.
    - margin: 1 - (p_y - highest other probability), for the label y or, in the pool, the likeliest class.
    - entropy: of the predicted probabilities.
    - disagreement: mutual information between the class and the member of the committee (Houlsby et al. 2011).
    - coreset: the row farthest from all reviewed and earlier ones (Sener and Savarese 2018), from a drawn part.
    - newest: the latest arrivals.
    - random.
    - clusters: similar rows in succession, those of the cluster that has the fewest reviewed rows for its size first.

    Without any prediction, expected_value, margin, entropy and disagreement ask typical rows that cover the others.
    A million rows take seconds: all rows are scored, and at most some thousands are compared with one another.

    Raises:
        ValueError: the order is unknown, or the arrays are not of the same rows.
    """
    if order not in ORDERS:
        raise ValueError(f"Unknown order '{order}'. The orders are {', '.join(ORDERS)}.")
    _check_lengths(rows)
    if len(rows) == 0 or count <= 0:
        return np.zeros(0, dtype=np.intp)
    count = min(count, len(rows))
    rng = generator(seed, "review order", order)
    if order == "expected_value" or (order in SCORES_OF_PREDICTIONS and not rows.has_prediction()):
        return by_expected_value(rows, count, rng)
    if order == "coreset":
        return by_distance(rows, count, rng)
    if order == "clusters":
        return by_cluster(rows, count, rng)
    if order == "random":
        return first_of_groups(rng.permutation(len(rows)), rows.groups, count)
    if order == "newest":
        return first_of_groups(np.argsort(rows.newest_first, kind="stable"), rows.groups, count)
    if order == "label_issues":
        positions = np.flatnonzero(rows.labels != NO_LABEL)
        return first_of_groups(positions[descending(label_errors(rows)[positions], rng)], rows.groups, count)
    return first_of_groups(descending(SCORES_OF_PREDICTIONS[order](rows), rng), rows.groups, count)


def _check_lengths(rows: RankingInput) -> None:
    lengths = {
        name: len(getattr(rows, name))
        for name in ("features", "probabilities", "labels", "p_label_error", "groups", "newest_first")
    }
    lengths |= {} if rows.committee is None else {"committee": rows.committee.shape[1]}
    lengths |= {} if rows.seconds_per_row is None else {"seconds_per_row": len(rows.seconds_per_row)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The arrays are not of the same rows, their lengths are {lengths}.")
    if len(rows.reviewed_features) != len(rows.reviewed_labels):
        raise ValueError(
            f"{len(rows.reviewed_features)} reviewed features and {len(rows.reviewed_labels)} reviewed labels are not "
            "of the same rows."
        )
