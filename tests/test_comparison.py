"""Two runs side by side: params, rows and predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from evaluation_records import estimate

from seedling.comparison import (
    Side,
    as_html,
    changed_params,
    changed_rows,
    compare_sides,
    metric_rows,
    sentences,
)
from seedling.errors import InputError
from seedling.records.evaluation import ClassNameRecord, EvaluationSummary, MetricsSummary, StageRowsSummary


def rows(**of: tuple[str | None, str, str | None]) -> pd.DataFrame:
    """By id: label, split, reason; the origin is the id."""
    records = [
        {"id": name, "label": label, "split": split, "reason": reason, "origin": name}
        for name, (label, split, reason) in of.items()
    ]
    return pd.DataFrame(records).set_index("id")


def test_changes_of_rows_are_listed_with_their_reason() -> None:
    """One row each that was added, removed, relabeled, moved, rejected or kept again, and one unchanged."""
    old = rows(
        stays=("a", "train", None),
        goes=("a", "pool", None),
        turns=("a", "train", None),
        moves=("a", "train", None),
        falls=("a", "train", None),
        returns=("a", "train", "too_small"),
    )
    new = rows(
        stays=("a", "train", None),
        turns=("b", "train", None),
        moves=("a", "test", None),
        falls=("a", "train", "label_issue"),
        returns=("a", "train", None),
        comes=(None, "pool", None),
        broken=(None, "pool", "undecodable"),
    )
    examples_by_change = {change.what: change.examples for change in changed_rows(old, new)}
    assert examples_by_change == {
        "added, pool": ["comes"],
        "removed, pool": ["goes"],
        "relabeled from a to b": ["turns"],
        "moved from train to test": ["moves"],
        "rejected: label issue": ["falls"],
        "kept again, was too small": ["returns"],
        "rejected: undecodable": ["broken"],
    }
    assert changed_rows(old, old) == []


def test_differing_params_are_named_with_dots() -> None:
    """A changed value, a new section, and a removed one; equal values in another notation are not listed."""
    old = {"seed": 0.0, "unsaid": None, "train": {"loss": "plain", "steps": 10}, "gone": True}
    new = {"seed": 0, "train": {"loss": "label_weighted", "steps": 10}, "augment": {"copies": 2}}
    assert changed_params(old, new) == [
        ("train.loss", "plain", "label_weighted"),
        ("gone", "True", "not set"),
        ("augment.copies", "not set", "2"),
    ]


def side(name: str, right: list[bool], classes: tuple[str, ...] = ("a", "b"), loss: float = 0.5) -> Side:
    """Rows of class a, predicted correctly or not."""
    chances = [[0.9, 0.1] if is_right else [0.2, 0.8] for is_right in right]
    ids = [f"r{index}" for index in range(len(right))]
    frame = pd.DataFrame({"id": ids, "origin": ids, "label": "a", "group": ids, "probabilities": chances})
    results = EvaluationSummary(
        test=MetricsSummary(accuracy=estimate(float(np.mean(right))), log_loss=estimate(loss)),
        per_class=tuple(ClassNameRecord(name=class_name) for class_name in classes),
        rows={"scrape": StageRowsSummary(kept=len(right))},
    )
    return Side(
        name,
        results,
        frame,
        {"seed": 0 if name == "old" else 1},
        rows(r0=("a", "train", None)) if name == "old" else None,
    )


def test_paired_differences_and_changed_predictions_match_a_hand_calculation() -> None:
    """Of ten rows, three become correct and one wrong: +0.2; the Brier score falls by 2 of 10 times (1.28 - 0.02)."""
    comparison = compare_sides(side("old", [True] * 4 + [False] * 6), side("new", [False] + [True] * 6 + [False] * 3))
    assert comparison.differences["accuracy"].value == pytest.approx(0.2)
    assert comparison.differences["brier"].value == pytest.approx(-0.2 * (1.28 - 0.02))
    assert (comparison.fixed, comparison.broken) == (["r4", "r5", "r6"], ["r0"])
    assert [row[0] for row in metric_rows(comparison)] == ["accuracy", "log loss"]
    assert "3 of 10 rows became right, 1 became wrong (r0" in sentences(comparison)[1]
    page = as_html(comparison)
    for part in ("old → new", "no longer in the cache", "r5", "seed"):
        assert part in page


def test_better_probabilities_are_reported_if_accuracy_is_the_same() -> None:
    """Two thousand rows, correct in both, with higher confidence in the new run: the log-loss falls from 0.105 to 0.01,
    more than one wrong row would undo.
    """
    old, new = side("old", [True] * 2_000), side("new", [True] * 2_000)
    new.predictions["probabilities"] = [[0.99, 0.01]] * 2_000
    sentence = sentences(compare_sides(old, new))[0]
    assert sentence.startswith("No significant difference in accuracy")
    assert sentence.endswith("Its probabilities fit better (log-loss).")


def test_runs_that_cannot_be_compared_are_explained() -> None:
    """Different classes, which the error names; no common rows."""
    with pytest.raises(InputError, match="has b; only"):
        compare_sides(side("old", [True]), side("new", [True], classes=("a", "c")))
    other = side("new", [True])
    other.predictions["id"] = ["elsewhere"]
    with pytest.raises(InputError, match="no evaluation row in common"):
        compare_sides(side("old", [True]), other)
