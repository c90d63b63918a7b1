"""Classes with fewer than five training labels, as the terminal, the report and the advice name them."""

from __future__ import annotations

from pathlib import Path

import pytest
from manifests import manifest

from seedling.pipeline import find_stage
from seedling.records.few_labels import classes_with_few_labels, few_labels_phrase, training_labels
from seedling.records.manifest import LabelCount
from seedling.records.summaries import summary
from seedling.workspace import MANIFEST

COUNTS = [
    LabelCount(split=split, label=label, label_source=source, rows=rows)
    for split, label, source, rows in (
        ("train", "glass", "human", 2),
        ("train", "glass", "rule", 2),
        ("train", "metal", "human", 5),
        ("test", "trash", "human", 9),
        ("pool", None, None, 40),
    )
]


def test_only_training_labels_count_and_a_class_without_any_is_named_first() -> None:
    """Two sources of one class are added; test and pool rows do not count; five labels are enough."""
    validated = manifest("validate", counts=COUNTS).model_copy(update={"classes": ("glass", "metal", "trash")})
    labels = training_labels(validated)
    assert labels == {"glass": 4, "metal": 5, "trash": 0}
    assert list(classes_with_few_labels(labels).items()) == [("trash", 0), ("glass", 4)]


@pytest.mark.parametrize(
    ("n_classes", "phrase"),
    [
        (0, ""),
        (2, "a (1), b (1)"),
        (5, "a (1), b (1), c (1), d (1) and 1 more class"),
        (6, "a (1), b (1), c (1), d (1) and 2 more classes"),
    ],
)
def test_at_most_four_classes_are_named(n_classes: int, phrase: str) -> None:
    """The others are counted."""
    assert few_labels_phrase(dict.fromkeys("abcdef"[:n_classes], 1)) == phrase


def test_the_line_of_validate_names_them(tmp_path: Path) -> None:
    """In `seedling run` and `seedling status`."""
    validated = manifest("validate", counts=COUNTS).model_copy(update={"classes": ("glass", "metal", "trash")})
    stage = find_stage("validate")
    (tmp_path / stage.output).mkdir(parents=True)
    validated.write(tmp_path / stage.output / MANIFEST)
    assert "fewer than 5 labels: trash (0), glass (4)" in summary(stage, tmp_path).note
