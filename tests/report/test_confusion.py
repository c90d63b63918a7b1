"""The confusion matrix of few and of many classes."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from seedling.report.confusion import confusion_context, confusion_map


def predictions(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """Predictions with these (true class, predicted class)."""
    return pd.DataFrame(pairs, columns=["label", "predicted"])


def test_ten_classes_are_a_table_that_fits_and_eleven_are_one_that_scrolls() -> None:
    """From 21 classes on, there is a map and a list instead."""
    for n_classes, counts, fits in ((10, True, True), (11, True, False), (20, True, False), (21, False, False)):
        classes = [f"c{number}" for number in range(n_classes)]
        context = confusion_context(predictions([("c0", "c1"), ("c1", "c1")]), classes)
        assert (context.counts is not None, context.fits) == (counts, fits)
        assert (context.map is None) == counts
        assert bool(context.by_class) != counts


def test_the_list_has_each_class_with_what_was_predicted_instead() -> None:
    """The most frequent confusion first; the numbers are those of the map."""
    classes = [f"c{number:02}" for number in range(77)]
    pairs = [("c05", "c05")] * 3 + [("c05", "c70")] + [("c05", "c02")] * 2 + [("c76", "c76")]
    context = confusion_context(predictions(pairs), classes)
    listed = {entry.name: entry for entry in context.by_class}
    assert len(listed) == 77
    assert (listed["c05"].number, listed["c05"].rows, listed["c05"].right) == (6, 6, 3)
    assert [(pair.predicted, pair.rows, pair.cell) for pair in listed["c05"].errors] == [
        ("c02", 2, "5-2"),
        ("c70", 1, "5-70"),
    ]
    assert listed["c76"].errors == []
    assert context.worst[0].predicted == "c02"


def test_the_map_has_a_square_per_pair_with_rows() -> None:
    """In the row of the true class; the title has the share, and names are escaped."""
    counts = np.zeros((30, 30), dtype=np.int64)
    counts[2, 2], counts[2, 9] = 3, 1
    svg = str(confusion_map(counts, [f"<{number}>" for number in range(30)]))
    squares = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="[\d.]+" class="(right|wrong)"', svg)
    assert [square[3] for square in squares] == ["right", "wrong"]
    (_, top, side, _), (left, other_top, _, _) = squares
    assert top == other_top
    right_left = float(squares[0][0])
    assert abs(float(left) - right_left - 7 * float(side)) < 0.5  # seven columns to the right, rounded to 0.1 pixels
    assert "&lt;2&gt;, predicted as &lt;9&gt;: 1 of 4 rows (25.0\u00a0%)" in svg
    assert [*re.findall(r'text-anchor="middle">(\d+)<', svg)] == ["1", "10", "20", "30"]
