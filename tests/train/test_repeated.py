"""Repeated cross-validation, and errors of the test labels: by hand, by simulation, and against known results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seedling.config.params import WorkspaceConfig
from seedling.dataset.generation import source_of
from seedling.dataset.training_rows import TrainingRows
from seedling.features.classical import Inputs
from seedling.label_quality.errors_in_test_labels import label_errors
from seedling.models.training import FitContext
from seedling.train.choice import EvaluationRows
from seedling.train.repeated import corrected_interval, repeated_cross_validation
from seedling.train.training_data import TrainingData
from seedling.train.unknown import unknown_classes
from seedling.train.unseen_sources import unseen_sources

CONFIG = WorkspaceConfig(modality="text", effort="normal")


def two_clouds(rows: int, distance: float, folds: int = 5) -> tuple[TrainingData, EvaluationRows]:
    """Rows of two clouds at this distance in turn, without a pool."""
    rng = np.random.default_rng(1)
    truth = np.arange(rows) % 2
    features = (rng.normal(size=(rows, 4)) + distance * truth[:, None] * np.array([1, 0, 0, 0])).astype(np.float32)
    ids = np.array([f"{number:04d}" for number in range(rows)])
    zeros = np.zeros((rows, folds + 1), dtype=np.int64)
    table = TrainingRows(
        ids=ids,
        ingredient=np.full(rows, "collected"),
        fold=np.arange(rows) // 2 % folds,
        targets=np.eye(2)[truth],
        weights=np.ones(rows),
        parents=np.stack([np.arange(rows), np.full(rows, -1)], axis=1),
        group=ids,
        half=np.zeros(rows, dtype=np.int64),
        pseudo_label_by_fold=zeros - 1,
        pseudo_weight_by_fold=zeros.astype(np.float64),
    )
    evaluation_rows = EvaluationRows(truth, np.arange(rows), ids, np.ones(rows))
    return TrainingData(table, Inputs(features), Inputs(features[:0]), FitContext(2)), evaluation_rows


def test_the_corrected_interval_by_hand() -> None:
    """Mean .65, variance .016667 × (1/4 + 1/1), t = 3.18245 (3 degrees of freedom): .65 ± .45936, clipped at 1."""
    estimate = corrected_interval(np.array([0.5, 0.7, 0.6, 0.8]), 2, (0.0, 1.0))
    assert estimate.value == pytest.approx(0.65)
    assert estimate.low == pytest.approx(0.19064, abs=1e-4)
    assert estimate.high == 1.0


def test_repeated_splits_show_the_variation_between_splits() -> None:
    """Five splits of sixty rows with a Bayes accuracy of .84: the splits differ, and their mean is near it."""
    variation = repeated_cross_validation(*two_clouds(60, 2.0), CONFIG)
    assert variation is not None
    assert (variation.repeats, variation.folds, variation.rows) == (5, 5, 60)
    minimum, _, median, _, maximum = variation.splits.accuracy
    assert minimum < median < maximum
    assert variation.learners[0].accuracy.value == pytest.approx(0.84, abs=0.08)
    assert variation.difference.low <= 0 <= variation.difference.high
    assert 0.2 <= variation.agreement <= 1


@pytest.mark.slow
def test_the_same_rows_are_split_the_same_way_each_time() -> None:
    """The results are equal; and rows that are separable in every split do not vary."""
    assert repeated_cross_validation(*two_clouds(40, 2.0), CONFIG) == repeated_cross_validation(
        *two_clouds(40, 2.0), CONFIG
    )
    separable = repeated_cross_validation(*two_clouds(40, 40.0), CONFIG)
    assert separable is not None
    assert separable.splits.accuracy == (1.0,) * 5
    assert separable.learners[0].accuracy.low == pytest.approx(0.9124, abs=1e-3), "Wilson, 40 of 40"


def test_a_class_that_is_left_out_is_detected_between_the_others() -> None:
    """Four clouds, three at the corners of a triangle and one in the middle.

    Models are least confident between classes and most confident within a class. Two classes are too few to leave one
    out.
    """
    data, evaluation_rows = two_clouds(120, 0.0)
    rng = np.random.default_rng(4)
    truth = np.arange(120) % 4
    corners = np.array([[6, 0, 0, 0], [0, 6, 0, 0], [0, 0, 6, 0], [2, 2, 2, 0]])
    features = (corners[truth] + rng.normal(scale=0.5, size=(120, 4))).astype(np.float32)
    rows = replace(data.rows, targets=np.eye(4)[truth], fold=np.arange(120) // 4 % 5)
    four = replace(data, rows=rows, inputs=Inputs(features), context=FitContext(4))
    detection = unknown_classes(
        four, replace(evaluation_rows, truth=truth), ["north", "south", "east", "middle"], CONFIG
    )
    assert detection is not None
    assert detection.classes == 4
    assert detection.auroc.low <= detection.auroc.value <= detection.auroc.high
    assert detection.hardest.name != "middle"
    two_classes = unknown_classes(
        four,
        replace(evaluation_rows, truth=truth, labeled_index=np.flatnonzero(truth < 2)),
        ["a", "b", "c", "d"],
        CONFIG,
    )
    assert two_classes is None


def test_an_unseen_source_is_harder_if_it_differs_from_the_others() -> None:
    """Two sites with the same informative feature, and a third on which its sign is flipped.

    Unseen, the third is almost always wrong; the other two do not change. A single source gives no result.
    """
    data, evaluation_rows = two_clouds(150, 0.0)
    rng = np.random.default_rng(6)
    truth, site = np.arange(150) % 2, np.arange(150) // 2 % 3
    sign = np.where(site == 2, -1, 1)
    features = rng.normal(scale=0.3, size=(150, 4)).astype(np.float32)
    features[:, 0] += (2 * truth - 1) * sign * 2
    features[:, 1] += 3 * (site == 2)
    features[:, 2] += 3 * (site == 2) * (2 * truth - 1)  # separates the third site once it was seen
    rows = replace(data.rows, targets=np.eye(2)[truth], fold=np.arange(150) // 6 % 5)
    three = replace(data, rows=rows, inputs=Inputs(features))
    origins = [f"https://{'abc'[number]}.example/{row}.png" for row, number in enumerate(site)]
    result = unseen_sources(three, replace(evaluation_rows, truth=truth), origins, CONFIG)
    assert result is not None
    assert (result.sources, result.rows) == (3, 150)
    assert result.hardest.source == "c.example"
    assert result.hardest.accuracy.value < 0.1
    assert result.accuracy.value == pytest.approx(2 / 3, abs=0.05)
    assert result.difference.value == pytest.approx(-1 / 3, abs=0.05)
    assert unseen_sources(three, evaluation_rows, ["labeled/a.png"] * 150, CONFIG) is None


def test_copies_of_an_unseen_sources_rows_are_left_out_of_training() -> None:
    """Noise, with copies of one site's rows on the other: with the copies all rows are correct, without them half."""
    data, evaluation_rows = two_clouds(120, 0.0)
    noise = np.random.default_rng(8).normal(size=(90, 4)).astype(np.float32)
    which = np.concatenate([np.arange(60), np.arange(30, 90)])  # of the second site's rows the first thirty are copies
    truth, group = which % 2, which.astype(str)
    rows = replace(data.rows, targets=np.eye(2)[truth], fold=which // 2 % 5, group=group)
    both = replace(
        data, rows=rows, inputs=Inputs(np.concatenate([noise[which], np.eye(90)[which].astype(np.float32)], axis=1))
    )
    origins = [f"https://{site}.example/1" for site in "ab" for _ in range(60)]
    result = unseen_sources(both, replace(evaluation_rows, truth=truth, groups=group), origins, CONFIG)
    assert result is not None
    assert result.accuracy.value < 0.65
    assert result.difference.low <= 0 <= result.difference.high


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ("https://a.example:8000/x/1.png", "a.example"),
        ("rows.csv#7", "rows.csv"),
        ("tables/rows.csv#7", "tables/rows.csv"),
        ("http://[x/1.png", ""),
        ("labeled/rose/1.png", "labeled"),
        (None, ""),
    ],
)
def test_the_source_of_a_row(origin: str | None, source: str) -> None:
    """The site, the table, the first folder."""
    assert source_of(origin) == source


def test_too_few_rows_are_not_split_again() -> None:
    """One fold; and twenty copies of one row, which must stay in one fold."""
    assert repeated_cross_validation(*two_clouds(20, 2.0, folds=1), CONFIG) is None
    data, evaluation_rows = two_clouds(20, 2.0)
    copies = replace(data, rows=replace(data.rows, group=np.full(20, "one")))
    assert repeated_cross_validation(copies, evaluation_rows, CONFIG) is None


def drawn(rate: float, rows: int = 2_000) -> tuple[np.ndarray, np.ndarray, float]:
    """Probabilities of three classes, labels drawn from them with a share changed, and the accuracy before that."""
    rng = np.random.default_rng(5)
    shares = rng.dirichlet([0.15] * 3, rows)
    truth = np.array([rng.choice(3, p=probabilities) for probabilities in shares])
    accuracy = float((shares.argmax(axis=1) == truth).mean())
    changed = rng.random(rows) < rate
    labels = np.where(changed, (truth + rng.integers(1, 3, rows)) % 3, truth)
    return shares, labels, accuracy


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25])
def test_the_rate_of_wrong_labels_is_estimated_with_calibrated_probabilities(rate: float) -> None:
    """Simulated labels: the true rate and accuracy are in their intervals, which are narrower than .15."""
    shares, labels, accuracy = drawn(rate)
    errors = label_errors(shares, labels, len(labels))
    assert errors is not None
    assert errors.rate.low - 0.02 <= rate <= errors.rate.high
    assert errors.accuracy.low <= accuracy <= errors.accuracy.high
    assert errors.rate.high - errors.rate.low < 0.15


def test_few_rows_give_no_rate_of_wrong_labels() -> None:
    """Twenty rows give None; and with fewer effective rows the interval is wider."""
    shares, labels, _ = drawn(0.1)
    assert label_errors(shares[:20], labels[:20], 20) is None
    results = [label_errors(shares[:400], labels[:400], n_rows) for n_rows in (100, 400)]
    assert results[0] is not None
    assert results[1] is not None
    wide, narrow = (errors.rate for errors in results if errors is not None)
    assert wide.high - wide.low > narrow.high - narrow.low
