"""Rows that are on one screen together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from seedling.review.rows import ArrowStrings, ReviewRows, RowIds
from seedling.review.screens import near_duplicates, predicted_alike

IDS = [f"{number:032x}" for number in range(6)]


def rows(probabilities: list[list[float]], groups: list[int]) -> ReviewRows:
    """Six pool rows of two classes."""
    nothing = ArrowStrings(pa.nulls(6, pa.string()))
    return ReviewRows(
        ids=RowIds(pa.array(IDS)),
        splits=ArrowStrings(pa.array(["pool"] * 6)),
        labels=nothing,
        label_sources=nothing,
        classes=("cat", "dog"),
        probabilities=np.array(probabilities, dtype=np.float32),
        p_label_error=np.full(6, np.nan, dtype=np.float32),
        groups=np.array(groups),
        origins=nothing,
        licenses=nothing,
        attributions=nothing,
        modality="image",
    )


def test_a_grid_has_the_most_frequent_prediction_with_the_most_confident_rows_first() -> None:
    """Three rows are dogs; one row has no prediction, and one of the dogs is not asked."""
    unknown = [np.nan, np.nan]
    review_rows = rows([[0.1, 0.9], [0.8, 0.2], unknown, [0.3, 0.7], [0.0, 1.0], [0.4, 0.6]], [0, 1, 2, 3, 4, 5])
    selected = predicted_alike(review_rows, np.array([0, 1, 2, 3, 4]))
    assert selected is not None
    assert (selected[0].tolist(), selected[1]) == ([4, 0, 3], "dog")
    assert predicted_alike(review_rows, np.array([2])) is None


def test_near_duplicates_are_a_group_of_which_no_row_was_compared() -> None:
    """Group 7 has a compared row; group 9 is the next one with two rows that can be asked."""
    review_rows = rows([[0.5, 0.5]] * 6, [7, 8, 7, 9, 9, 9])
    assert near_duplicates(review_rows, np.arange(6), []).tolist() == [0, 2]
    assert near_duplicates(review_rows, np.array([0, 1, 2, 3, 5]), [IDS[2]]).tolist() == [3, 5]
    assert near_duplicates(review_rows, np.array([0, 1, 3]), []).tolist() == []
