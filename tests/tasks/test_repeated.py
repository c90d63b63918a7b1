"""Cross-validation dealt again, and the test labels' own errors: by hand, by simulation, against what is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seedling.config.params import WorkspaceConfig
from seedling.dataset.generation import source_of
from seedling.dataset.training_rows import TrainingRows
from seedling.features.classical import Inputs
from seedling.label_quality.test_label_errors import label_errors
from seedling.models.training import FitContext
from seedling.train.choice import Judged
from seedling.train.cross_validation import TrainingData
from seedling.train.repeated import corrected, repeated
from seedling.train.unknown import unknown_classes
from seedling.train.unseen_sources import unseen_sources

CONFIG = WorkspaceConfig(modality="text", effort="normal")


def bench(rows: int, apart: float, folds: int = 5) -> tuple[TrainingData, Judged]:
    """Two clouds so far apart, dealt in turn, no pool."""
    rng = np.random.default_rng(1)
    truth = np.arange(rows) % 2
    features = (rng.normal(size=(rows, 4)) + apart * truth[:, None] * np.array([1, 0, 0, 0])).astype(np.float32)
    ids = np.array([f"{one:04d}" for one in range(rows)])
    nothing = np.zeros((rows, folds + 1), dtype=np.int64)
    known = TrainingRows(
        ids=ids,
        ingredient=np.full(rows, "collected"),
        fold=np.arange(rows) // 2 % folds,
        targets=np.eye(2)[truth],
        weights=np.ones(rows),
        parents=np.stack([np.arange(rows), np.full(rows, -1)], axis=1),
        group=ids,
        half=np.zeros(rows, dtype=np.int64),
        pseudo_label_by_fold=nothing - 1,
        pseudo_weight_by_fold=nothing.astype(np.float64),
    )
    judged = Judged(truth, np.arange(rows), ids, np.ones(rows))
    return TrainingData(known, Inputs(features), Inputs(features[:0]), FitContext(2)), judged


def test_the_corrected_interval_by_hand() -> None:
    """Mean .65, variance .016667 × (1/4 + 1/1), Student's 3.18245 for three degrees of freedom: .65 ± .45936, cut at 1."""
    found = corrected(np.array([0.5, 0.7, 0.6, 0.8]), 2, (0.0, 1.0))
    assert (found.value, found.low, found.high) == (pytest.approx(0.65), pytest.approx(0.19064, abs=1e-4), 1.0)


def test_rows_dealt_again_tell_how_lucky_a_split_can_be() -> None:
    """Five dealings of sixty rows of which a sixth cannot be told: the splits differ, and their mean is near what the clouds allow (.84)."""
    found = repeated(*bench(60, 2.0), CONFIG)
    assert found is not None
    assert (found["repeats"], found["folds"], found["rows"]) == (5, 5, 60)
    least, _, middle, _, best = found["splits"]["accuracy"]
    assert least < middle < best
    assert found["learners"][0]["accuracy"]["value"] == pytest.approx(0.84, abs=0.08)
    assert found["difference"]["low"] <= 0 <= found["difference"]["high"]
    assert 0.2 <= found["agree"] <= 1


def test_the_same_rows_are_dealt_the_same_way_each_time() -> None:
    """To the digit; and rows that are told apart for certain leave no luck."""
    assert repeated(*bench(40, 2.0), CONFIG) == repeated(*bench(40, 2.0), CONFIG)
    sure = repeated(*bench(40, 40.0), CONFIG)
    assert sure is not None
    assert sure["splits"]["accuracy"] == [1.0] * 5
    assert sure["learners"][0]["accuracy"]["low"] == pytest.approx(0.9124, abs=1e-3), "Wilson's of forty right rows"


def test_a_class_that_was_left_out_is_told_where_it_lies_apart() -> None:
    """Four clouds, three of them at the corners of a triangle and one amid them: models of the others are least sure of what lies between classes, and sure of
    what lies in their own; two classes are too few to leave one out.
    """
    made, judged = bench(120, 0.0)
    rng = np.random.default_rng(4)
    truth = np.arange(120) % 4
    corners = np.array([[6, 0, 0, 0], [0, 6, 0, 0], [0, 0, 6, 0], [2, 2, 2, 0]])
    features = (corners[truth] + rng.normal(scale=0.5, size=(120, 4))).astype(np.float32)
    known = replace(made.rows, targets=np.eye(4)[truth], fold=np.arange(120) // 4 % 5)
    four = replace(made, rows=known, inputs=Inputs(features), setting=FitContext(4))
    found = unknown_classes(four, replace(judged, truth=truth), ["north", "south", "east", "amid"], CONFIG)
    assert found is not None
    assert found["classes"] == 4
    assert found["auroc"]["low"] <= found["auroc"]["value"] <= found["auroc"]["high"]
    assert found["hardest"]["class"] != "amid"
    alone = unknown_classes(
        four, replace(judged, truth=truth, place=np.flatnonzero(truth < 2)), ["a", "b", "c", "d"], CONFIG
    )
    assert alone is None


def test_a_source_that_was_left_out_is_harder_where_it_looks_otherwise() -> None:
    """Two sites whose rows are told by the same direction, and a third whose rows are told by it the other way round: unseen it is nearly always wrong; the
    others stay; who has one source alone is not asked.
    """
    made, judged = bench(150, 0.0)
    rng = np.random.default_rng(6)
    truth, site = np.arange(150) % 2, np.arange(150) // 2 % 3
    turned = np.where(site == 2, -1, 1)
    features = rng.normal(scale=0.3, size=(150, 4)).astype(np.float32)
    features[:, 0] += (2 * truth - 1) * turned * 2
    features[:, 1] += 3 * (site == 2)
    features[:, 2] += 3 * (site == 2) * (2 * truth - 1)  # by which the third can be told, once it was seen
    rows = replace(made.rows, targets=np.eye(2)[truth], fold=np.arange(150) // 6 % 5)
    three = replace(made, rows=rows, inputs=Inputs(features))
    origins = [f"https://{'abc'[one]}.example/{row}.png" for row, one in enumerate(site)]
    found = unseen_sources(three, replace(judged, truth=truth), origins, CONFIG)
    assert found is not None
    assert (found["sources"], found["rows"]) == (3, 150)
    assert found["hardest"]["source"] == "c.example"
    assert found["hardest"]["accuracy"]["value"] < 0.1
    assert found["accuracy"]["value"] == pytest.approx(2 / 3, abs=0.05)
    assert found["difference"]["value"] == pytest.approx(-1 / 3, abs=0.05)
    assert unseen_sources(three, judged, ["labeled/a.png"] * 150, CONFIG) is None


def test_copies_of_an_unseen_sources_rows_teach_nobody_about_it() -> None:
    """Noise, and each row of one site again on the other: with its copies in training every row would be right; without them half are."""
    made, judged = bench(120, 0.0)
    noise = np.random.default_rng(8).normal(size=(90, 4)).astype(np.float32)
    which = np.concatenate([np.arange(60), np.arange(30, 90)])  # of the second site's rows the first thirty are copies
    truth, group = which % 2, which.astype(str)
    rows = replace(made.rows, targets=np.eye(2)[truth], fold=which // 2 % 5, group=group)
    both = replace(
        made, rows=rows, inputs=Inputs(np.concatenate([noise[which], np.eye(90)[which].astype(np.float32)], axis=1))
    )
    origins = [f"https://{site}.example/1" for site in "ab" for _ in range(60)]
    found = unseen_sources(both, replace(judged, truth=truth, groups=group), origins, CONFIG)
    assert found is not None
    assert found["accuracy"]["value"] < 0.65
    assert found["difference"]["low"] <= 0 <= found["difference"]["high"]


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
def test_where_a_row_is_from(origin: str | None, source: str) -> None:
    """The site, the table, the first folder."""
    assert source_of(origin) == source


def test_too_few_rows_are_not_dealt_again() -> None:
    """One fold; and twenty copies of one row, which must stay together."""
    assert repeated(*bench(20, 2.0, folds=1), CONFIG) is None
    made, judged = bench(20, 2.0)
    copies = replace(made, rows=replace(made.rows, group=np.full(20, "one")))
    assert repeated(copies, judged, CONFIG) is None


def drawn(rate: float, rows: int = 2_000) -> tuple[np.ndarray, np.ndarray, float]:
    """Probabilities of three classes, labels drawn from them of which a share is then changed, and the accuracy before the change."""
    rng = np.random.default_rng(5)
    shares = rng.dirichlet([0.15] * 3, rows)
    truth = np.array([rng.choice(3, p=one) for one in shares])
    accuracy = float((shares.argmax(axis=1) == truth).mean())
    changed = rng.random(rows) < rate
    labels = np.where(changed, (truth + rng.integers(1, 3, rows)) % 3, truth)
    return shares, labels, accuracy


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25])
def test_the_share_of_wrong_labels_is_found_where_probabilities_are_right(rate: float) -> None:
    """Simulated labels: the rate and the accuracy against the truth lie in their intervals, and the intervals are no wider than .15."""
    shares, labels, accuracy = drawn(rate)
    found = label_errors(shares, labels, len(labels))
    assert found is not None
    assert found["rate"]["low"] - 0.02 <= rate <= found["rate"]["high"]
    assert found["accuracy"]["low"] <= accuracy <= found["accuracy"]["high"]
    assert found["rate"]["high"] - found["rate"]["low"] < 0.15


def test_few_rows_say_nothing_of_their_labels() -> None:
    """Twenty rows; and with fewer effective rows the interval is wider."""
    shares, labels, _ = drawn(0.1)
    assert label_errors(shares[:20], labels[:20], 20) is None
    wide, narrow = (label_errors(shares[:400], labels[:400], many)["rate"] for many in (100, 400))  # type: ignore[index]
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]
