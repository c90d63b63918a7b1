"""The orders of the review queue: hand-calculated scores, one queue for pool and labels, and no near-duplicates."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from seedling.review.coverage import MAX_CANDIDATES, SIGMA_PER_DISTANCE, class_need, draw_in_proportion
from seedling.review.orders import ORDERS, RankingInput, rank
from seedling.review.spread import MAX_COMPARED, ROWS_PER_CLUSTER
from seedling.review.uncertainty import committee_disagreement, entropy_uncertainty, label_errors, margin_uncertainty

NAN = float("nan")


def rows_of(n_rows: int, n_classes: int = 2, **fields: Any) -> RankingInput:
    """Pool rows without predictions whose features are orthogonal, each its own group; `fields` replace theirs."""
    features = np.asarray(fields["features"] if "features" in fields else np.eye(n_rows), dtype=np.float32)
    ready: dict[str, Any] = {
        "features": features,
        "probabilities": np.full((n_rows, n_classes), NAN, dtype=np.float32),
        "labels": np.full(n_rows, -1),
        "p_label_error": np.full(n_rows, NAN, dtype=np.float32),
        "groups": np.arange(n_rows),
        "newest_first": np.arange(n_rows),
        "reviewed_features": np.zeros((0, features.shape[1]), dtype=np.float32),
        "reviewed_labels": np.zeros(0, dtype=np.int64),
    }
    return RankingInput(**ready | {name: np.asarray(value) for name, value in fields.items()} | {"features": features})


def at_degrees(*angles: float) -> NDArray[np.float32]:
    """Features on a circle."""
    radians = np.deg2rad(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def random_rows(n_rows: int, n_features: int, seed: int, n_classes: int = 3) -> RankingInput:
    """Rows of random directions: a fifth has labels, every third shares its group with the next one."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_rows + 7, n_features)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.where(rng.random(n_rows) < 0.2, rng.integers(n_classes, size=n_rows), -1)
    return rows_of(
        n_rows,
        features=features[:n_rows],
        probabilities=rng.dirichlet(np.ones(n_classes), size=n_rows).astype(np.float32),
        labels=labels,
        p_label_error=np.where(labels < 0, NAN, rng.random(n_rows)).astype(np.float32),
        groups=np.arange(n_rows) - (np.arange(n_rows) % 3 == 1),
        reviewed_features=features[n_rows:],
        reviewed_labels=rng.integers(n_classes, size=7),
        committee=rng.dirichlet(np.ones(n_classes), size=(2, n_rows)).astype(np.float32),
    )


def test_margin_by_hand() -> None:
    """1 - (p_label - highest other): 0.7 in the pool, 1.3 for a label that is less likely than another, 1 if unknown."""
    predicted = [0.6, 0.3, 0.1]
    rows = rows_of(3, 3, probabilities=np.array([predicted, predicted, [NAN] * 3], np.float32), labels=[-1, 1, -1])
    assert margin_uncertainty(rows) == pytest.approx([0.7, 1.3, 1.0])
    assert rank("margin", rows, 3, 0).tolist() == [1, 2, 0]


def test_entropy_by_hand() -> None:
    """Entropy is log 2 for even odds, 0 for certainty, and that of even odds if there is no prediction."""
    rows = rows_of(3, probabilities=np.array([[1, 0], [0.5, 0.5], [NAN, NAN]], np.float32))
    assert entropy_uncertainty(rows) == pytest.approx([0, np.log(2), np.log(2)])
    assert rank("entropy", rows, 3, 0).tolist()[-1] == 0


def test_disagreement_by_hand() -> None:
    """Two certain members that differ have log 2; two that are both unsure in the same way have 0."""
    committee = np.array([[[1, 0], [0.5, 0.5]], [[0, 1], [0.5, 0.5]]], dtype=np.float32)
    rows = rows_of(2, probabilities=np.full((2, 2), 0.5, np.float32), committee=committee)
    assert committee_disagreement(rows) == pytest.approx([np.log(2), 0], abs=1e-6)
    assert rank("disagreement", rows, 2, 0).tolist() == [0, 1]


def test_label_issues_are_labeled_rows_only_the_most_likely_error_first() -> None:
    """An unknown p_label_error is 1 - p(label) by the predictions, and the prior of 0.1 without any."""
    rows = rows_of(
        5,
        probabilities=np.array([[0.5, 0.5], [0.5, 0.5], [0.7, 0.3], [NAN, NAN], [0.5, 0.5]], np.float32),
        labels=[-1, 0, 0, 1, 1],
        p_label_error=np.array([0.9, 0.2, NAN, NAN, 0.8], np.float32),
    )
    assert label_errors(rows) == pytest.approx([0, 0.2, 0.3, 0.1, 0.8])
    assert rank("label_issues", rows, 5, 0).tolist() == [4, 2, 1, 3]


def test_newest_first() -> None:
    """The row that arrived last is asked first."""
    assert rank("newest", rows_of(3, newest_first=[2, 0, 1]), 2, 0).tolist() == [1, 2]


def test_random_order_depends_on_the_seed_only() -> None:
    """The same seed gives the same order, another seed another one; all rows come."""
    rows = rows_of(50)
    first, again, other = (rank("random", rows, 50, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == list(range(50))


def test_coreset_by_hand() -> None:
    """From a reviewed row at 0°, the farthest is at 180°, then that at 90°, 90° from both; the row at 0° comes last."""
    rows = rows_of(
        4, features=at_degrees(10, 90, 180, 0), reviewed_features=at_degrees(0), reviewed_labels=np.zeros(1, np.int64)
    )
    assert rank("coreset", rows, 4, 0).tolist() == [2, 1, 0, 3]


def test_coreset_without_reviewed_rows_starts_in_the_center() -> None:
    """The mean of 0°, 20°, 30° and 100° is nearest to 30°; 100° is the farthest from it."""
    assert rank("coreset", rows_of(4, features=at_degrees(0, 20, 30, 100)), 2, 0).tolist() == [2, 3]


def test_clusters_come_one_after_another() -> None:
    """The large cluster without reviewed rows is first, 20 rows in succession; the one with a reviewed row is last."""
    rng = np.random.default_rng(0)
    cluster = np.repeat([0, 1, 2], [50, 40, 30])
    features = np.eye(3)[cluster] + rng.normal(scale=0.02, size=(120, 3))
    rows = rows_of(120, features=features, reviewed_features=np.eye(3)[:1], reviewed_labels=np.zeros(1, np.int64))
    ordered = cluster[rank("clusters", rows, 120, 0)]
    assert ordered[: 3 * ROWS_PER_CLUSTER].tolist() == [1] * 20 + [2] * 20 + [0] * 20
    assert np.bincount(ordered).tolist() == [50, 40, 30]


def test_class_need_by_hand() -> None:
    """Of 3 and 1 labels, the mean is 2: sqrt(3 / 4) and sqrt(3 / 2). Without labels, all classes count alike."""
    assert class_need(np.array([0, 0, 0, 1]), 2) == pytest.approx([np.sqrt(3 / 4), np.sqrt(3 / 2)])
    assert class_need(np.zeros(0, dtype=np.int64), 2) == pytest.approx([1, 1])


def value_by_loops(rows: RankingInput, row: int, sigma: float, picked: list[int]) -> float:
    """The formula of coverage.py for one row, in loops over rows, where all rows are reference rows."""
    n_rows, n_classes = rows.probabilities.shape
    is_labeled = rows.labels >= 0
    counts = [int((rows.reviewed_labels == label).sum()) for label in range(n_classes)]
    m = len(rows.reviewed_labels)
    need = [float(p @ [np.sqrt((m / n_classes + 1) / (count + 1)) for count in counts]) for p in rows.probabilities]
    ignorance = n_classes / (n_classes + m)

    def kernel(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        return float(np.exp(-(((a - b) ** 2).sum()) / sigma**2))

    with_labels = [*rows.reviewed_features, *rows.features[is_labeled]]
    total = 0.0
    for x in range(n_rows):
        near = kernel(rows.features[x], rows.features[row])
        if is_labeled[row]:
            total += near / max(sum(kernel(rows.features[x], other) for other in with_labels), 1)
            continue
        p = rows.probabilities[x]
        answer = int(rows.labels[x]) if is_labeled[x] else int(p.argmax())
        margin = min(1 - (p[answer] - np.delete(p, answer).max()), 1)
        covering = [*with_labels, *(rows.features[other] for other in picked if not is_labeled[other])]
        covered = max(kernel(rows.features[x], other) for other in covering)
        total += (ignorance + (1 - ignorance) * margin) * need[x] * max(near - covered, 0)
    return total * (2 * float(rows.p_label_error[row]) * need[row] if is_labeled[row] else 1)


def sigma_by_loops(rows: RankingInput) -> float:
    """0.75 x the median distance to the nearest other row with a label."""
    with_labels = [*rows.reviewed_features, *rows.features[rows.labels >= 0]]
    nearest = [
        min(d for other in with_labels if (d := float(np.linalg.norm(row - other))) > 1e-3) for row in rows.features
    ]
    return SIGMA_PER_DISTANCE * float(np.median(nearest))


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_expected_value_is_the_formula_in_plain_loops(seed: int) -> None:
    """The greedy order of 24 pool and labeled rows is that of the formula, recomputed in loops before each pick."""
    rows = replace(random_rows(24, 5, seed), groups=np.arange(24))
    sigma = sigma_by_loops(rows)
    expected: list[int] = []
    for _ in range(8):
        values = [-1.0 if row in expected else value_by_loops(rows, row, sigma, expected) for row in range(24)]
        expected.append(int(np.argmax(values)))
    assert rank("expected_value", rows, 8, seed).tolist() == expected
    assert {bool(rows.labels[row] >= 0) for row in expected} == {True, False}


def test_labels_that_are_also_reviewed_rows_count_once() -> None:
    """The order is the same, whether the reviewed rows contain the labeled ones or not."""
    rows = random_rows(60, 6, seed=1)
    labeled = rows.labels >= 0
    repeated = replace(
        rows,
        reviewed_features=np.concatenate([rows.reviewed_features, rows.features[labeled]]),
    )
    repeated = replace(repeated, reviewed_labels=np.resize(rows.reviewed_labels, len(repeated.reviewed_features)))
    same_need = replace(rows, probabilities=np.full((60, 3), 1 / 3, np.float32), reviewed_labels=np.arange(7) % 3)
    again = replace(repeated, probabilities=same_need.probabilities)
    again = replace(again, reviewed_labels=np.arange(len(again.reviewed_labels)) % 3)
    first_of_labels = [row for row in rank("expected_value", same_need, 60, 0) if labeled[row]]
    assert [row for row in rank("expected_value", again, 60, 0) if labeled[row]] == first_of_labels


@pytest.mark.parametrize("order", ["expected_value", "margin", "entropy", "disagreement"])
def test_without_any_label_typical_rows_of_each_group_come_first(order: str) -> None:
    """Of three dense regions and two outliers, each region is asked about once, the largest first, then the outliers."""
    rng = np.random.default_rng(3)
    region = np.repeat([0, 1, 2, 3, 4], [30, 20, 10, 1, 1])
    features = np.eye(5)[region] + rng.normal(scale=0.05, size=(62, 5))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    asked_regions = region[rank(order, rows_of(62, features=features), 3, 0)]
    assert asked_regions.tolist() == [0, 1, 2]


def test_with_many_labels_uncertain_rows_come_first() -> None:
    """Rows that are far from one another say nothing about others, and are asked by descending uncertainty."""
    p = np.array([0.9, 0.5, 0.7, 0.99, 0.6])
    rows = rows_of(
        5,
        features=np.eye(60)[:5],
        probabilities=np.stack([p, 1 - p], axis=1).astype(np.float32),
        reviewed_features=np.eye(60)[5:],
        reviewed_labels=np.arange(55) % 2,
    )
    assert rank("expected_value", rows, 5, 0).tolist() == [1, 4, 2, 0, 3]


def test_rows_of_rare_classes_come_first() -> None:
    """Of equally uncertain rows, the one of the class with few labels is asked."""
    rows = rows_of(
        2,
        3,
        features=np.eye(12)[:2],
        probabilities=np.array([[0.6, 0.2, 0.2], [0.2, 0.2, 0.6]], np.float32),
        reviewed_features=np.eye(12)[2:],
        reviewed_labels=np.array([0] * 8 + [1, 2]),
    )
    assert rank("expected_value", rows, 1, 0).tolist() == [1]


def test_rows_that_take_less_time_come_first() -> None:
    """Of rows with equal worth, those with the shorter time per answer; an unknown time counts as the mean."""
    even = np.full((3, 2), 0.5, np.float32)
    rows = rows_of(3, probabilities=even, seconds_per_row=np.array([2.0, 0.5, NAN], np.float32))
    assert rank("expected_value", rows, 3, 0).tolist() == [1, 2, 0]


def test_doubtful_labels_and_the_pool_are_in_one_queue() -> None:
    """A label that is surely wrong comes before a certain pool row, and an uncertain pool row before a right label."""
    features = np.eye(40)
    rows = rows_of(
        4,
        features=features[:4],
        probabilities=np.array([[1, 0], [1, 0], [1, 0], [0.5, 0.5]], np.float32),
        labels=[1, 0, -1, -1],
        p_label_error=np.array([0.95, 0.001, NAN, NAN], np.float32),
        reviewed_features=features[4:],
        reviewed_labels=np.arange(36) % 2,
    )
    ordered = rank("expected_value", rows, 4, 0).tolist()
    assert ordered.index(0) < ordered.index(2)
    assert ordered.index(3) < ordered.index(1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("count", [10, 300])
def test_no_near_duplicates_in_a_batch(order: str, count: int) -> None:
    """Each order returns at most `count` different rows, at most one per group, the same with the same seed."""
    rows = random_rows(300, 8, seed=2)
    ordered = rank(order, rows, count, 5)
    available = np.unique(rows.groups[rows.labels >= 0]) if order == "label_issues" else np.unique(rows.groups)
    assert len(ordered) == min(count, len(available))
    assert len(set(rows.groups[ordered].tolist())) == len(ordered)
    assert rank(order, rows, count, 5).tolist() == ordered.tolist()


def test_rows_are_drawn_in_proportion_to_their_value() -> None:
    """Of values 3 and 1, the first is drawn in three of four draws (binomial, four standard errors)."""
    value = np.array([3, 1], dtype=np.float32)
    rng = np.random.default_rng(0)
    drawn = [draw_in_proportion(np.arange(2), value, 1, rng)[0] for _ in range(2_000)]
    assert np.mean(np.array(drawn) == 0) == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 2_000))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_a_large_queue_needs_little_memory(order: str) -> None:
    """Ranking 300,000 rows allocates less than 200 MB besides its input: no copy per pair of rows."""
    rows = random_rows(300_000, 16, seed=0)
    tracemalloc.start()
    ordered = rank(order, rows, 200, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ordered) == 200 and len(set(rows.groups[ordered].tolist())) == 200
    assert peak < 200e6


@pytest.mark.parametrize("order", ["expected_value", "coreset", "clusters"])
def test_rows_beyond_the_compared_ones_follow(order: str) -> None:
    """A queue of more rows than are compared is ranked as a whole: each row comes once."""
    n_rows = max(MAX_CANDIDATES, MAX_COMPARED) + 1_000
    features = np.random.default_rng(0).normal(size=(n_rows, 2))
    assert sorted(rank(order, rows_of(n_rows, features=features), n_rows, 0).tolist()) == list(range(n_rows))


@pytest.mark.parametrize("order", ORDERS)
def test_an_empty_queue_is_empty(order: str) -> None:
    """No rows, or a count of 0, give no positions."""
    empty = rows_of(0, features=np.zeros((0, 4)))
    assert rank(order, empty, 10, 0).tolist() == []
    assert rank(order, rows_of(3), 0, 0).tolist() == []


@pytest.mark.parametrize("order", ORDERS)
def test_a_single_row(order: str) -> None:
    """One labeled row without anything known is a queue of one, also with features of zeros."""
    rows = rows_of(1, features=np.zeros((1, 4)), labels=[0])
    assert rank(order, rows, 10, 0).tolist() == [0]


def test_wrong_input_is_refused() -> None:
    """An unknown order and arrays of different rows are errors that name them."""
    with pytest.raises(ValueError, match=r"Unknown order 'best'. The orders are expected_value, label_issues"):
        rank("best", rows_of(3), 1, 0)
    with pytest.raises(ValueError, match="'labels': 2"):
        rank("random", replace(rows_of(3), labels=np.array([0, 1])), 1, 0)
    with pytest.raises(ValueError, match="0 reviewed features and 1 reviewed labels"):
        rank("random", replace(rows_of(3), reviewed_labels=np.array([0])), 1, 0)
