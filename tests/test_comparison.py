"""Two runs side by side: params, rows and predictions, by hand."""

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
    found = [
        {"id": name, "label": label, "split": split, "reason": reason, "origin": name}
        for name, (label, split, reason) in of.items()
    ]
    return pd.DataFrame(found).set_index("id")


def test_what_became_of_each_row_is_told_with_its_reason() -> None:
    """One of each: added, removed, relabeled, moved, rejected, kept again; and one that stayed."""
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
    found = {one.what: one.examples for one in changed_rows(old, new)}
    assert found == {
        "added, pool": ["comes"],
        "removed, pool": ["goes"],
        "relabeled from a to b": ["turns"],
        "moved from train to test": ["moves"],
        "rejected: label issue": ["falls"],
        "kept again, was too small": ["returns"],
        "rejected: undecodable": ["broken"],
    }
    assert changed_rows(old, old) == []


def test_params_that_differ_are_named_with_dots() -> None:
    """A changed value, a new section, one that is gone; what is equal is not told, be it written otherwise."""
    old = {"seed": 0.0, "unsaid": None, "train": {"loss": "plain", "steps": 10}, "gone": True}
    new = {"seed": 0, "train": {"loss": "label_weighted", "steps": 10}, "augment": {"copies": 2}}
    assert changed_params(old, new) == [
        ("train.loss", "plain", "label_weighted"),
        ("gone", "True", "not set"),
        ("augment.copies", "not set", "2"),
    ]


def side(name: str, right: list[bool], classes: tuple[str, ...] = ("a", "b"), loss: float = 0.5) -> Side:
    """Rows of class a, right or not."""
    chances = [[0.9, 0.1] if one else [0.2, 0.8] for one in right]
    ids = [f"r{place}" for place in range(len(right))]
    frame = pd.DataFrame({"id": ids, "origin": ids, "label": "a", "group": ids, "probabilities": chances})
    results = EvaluationSummary(
        test=MetricsSummary(accuracy=estimate(float(np.mean(right))), log_loss=estimate(loss)),
        per_class=tuple(ClassNameRecord(name=one) for one in classes),
        rows={"scrape": StageRowsSummary(kept=len(right))},
    )
    return Side(
        name,
        results,
        frame,
        {"seed": 0 if name == "old" else 1},
        rows(r0=("a", "train", None)) if name == "old" else None,
    )


def test_paired_differences_and_turned_rows_by_hand() -> None:
    """Of ten rows three turn right and one wrong: +.2; Brier's score falls by 2 of 10 times (1.28 - .02)."""
    found = compare_sides(side("old", [True] * 4 + [False] * 6), side("new", [False] + [True] * 6 + [False] * 3))
    assert found.differences["accuracy"].value == pytest.approx(0.2)
    assert found.differences["brier"].value == pytest.approx(-0.2 * (1.28 - 0.02))
    assert (found.fixed, found.broken) == (["r4", "r5", "r6"], ["r0"])
    assert [one[0] for one in metric_rows(found)] == ["accuracy", "log loss"]
    assert "3 of 10 rows became right, 1 became wrong (r0" in sentences(found)[1]
    page = as_html(found)
    for part in ("old → new", "no longer in the cache", "r5", "seed"):
        assert part in page


def test_probabilities_that_fit_better_are_said_where_accuracy_is_the_same() -> None:
    """Two thousand rows, right in both; the new one is surer of each: the log-loss falls from .105 to .01, which one wrong row would not undo."""
    old, new = side("old", [True] * 2_000), side("new", [True] * 2_000)
    new.predictions["probabilities"] = [[0.99, 0.01]] * 2_000
    said = sentences(compare_sides(old, new))[0]
    assert said.startswith("No significant difference in accuracy")
    assert said.endswith("Its probabilities fit better (log-loss).")


def test_runs_that_cannot_be_compared_are_explained() -> None:
    """Other classes, which are named; no row in common."""
    with pytest.raises(InputError, match="has b; only"):
        compare_sides(side("old", [True]), side("new", [True], classes=("a", "c")))
    other = side("new", [True])
    other.predictions["id"] = ["elsewhere"]
    with pytest.raises(InputError, match="no evaluation row in common"):
        compare_sides(side("old", [True]), other)
