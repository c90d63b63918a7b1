"""Label errors of boxes: each score by hand."""

from __future__ import annotations

import numpy as np
import pytest

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject
from seedling.boxes.label_errors import BoxIssue, detail_of, find_box_issues, largest_other
from seedling.boxes.metrics import Detections

CATEGORIES = ["cat", "dog"]
BOX = (10.0, 10.0, 20.0, 20.0)


def issues_of(objects: list[AnnotatedObject], detections: Detections, kind: str) -> list[BoxIssue]:
    """The issues of a kind in one image."""
    image = AnnotatedImage("a.png", tuple(objects))
    return [
        issue for issue in find_box_issues({"a.png": image}, {"a.png": detections}, CATEGORIES) if issue.kind == kind
    ]


def test_a_detection_without_a_box_is_overlooked() -> None:
    """With its score; one that overlaps a box by a quarter counts half, and one on a box not at all."""
    detections = Detections.of([(60, 60, 10, 10), (10, 22, 20, 20), BOX], [0, 1, 0], [0.8, 0.6, 0.9])
    issues = issues_of([AnnotatedObject("cat", BOX)], detections, "overlooked")
    assert [issue.score for issue in issues] == pytest.approx([0.8, 0.6 * (1 - 0.25 / 0.5)])
    assert issues[0].suggested == AnnotatedObject("cat", (60, 60, 10, 10), "model", 0.8)
    assert issues[0].annotated is None


def test_an_object_is_overlooked_once() -> None:
    """Two detections of it, of different classes: the one of the higher score."""
    detections = Detections.of([BOX, BOX], [0, 1], [0.4, 0.7])
    (issue,) = issues_of([], detections, "overlooked")
    assert issue.suggested is not None
    assert (issue.suggested.category, issue.score) == ("dog", 0.7)


def test_a_box_of_another_class_is_swapped() -> None:
    """0.9 for the other class and 0.1 for its own: 0.81 / (0.9 + 0.1). Without another class, there is no issue."""
    detections = Detections.of([BOX, BOX], [0, 1], [0.1, 0.9])
    (issue,) = issues_of([AnnotatedObject("cat", BOX)], detections, "swapped")
    assert issue.score == pytest.approx(0.81)
    assert issue.suggested is not None
    assert issue.suggested.category == "dog"
    assert detail_of(issue) == "score 0.81, more likely dog"
    assert issues_of([AnnotatedObject("cat", BOX)], Detections.of([BOX], [0], [0.9]), "swapped") == []


def test_a_box_beside_its_object_is_badly_located() -> None:
    """Moved by half of its width: an overlap of a third, so fit is 1/3 and move is 2/3."""
    detections = Detections.of([(20, 10, 20, 20)], [0], [0.9])
    (issue,) = issues_of([AnnotatedObject("cat", BOX)], detections, "badly_located")
    assert issue.score == pytest.approx(2 / 3 * (0.2 + 0.8 * 2 / 3))
    assert detail_of(issue) == "score 0.49, more likely at 20, 10, 20, 20"


def test_the_detection_of_a_neighbor_makes_no_box_badly_located() -> None:
    """It overlaps the neighbor more."""
    detections = Detections.of([(20, 10, 20, 20)], [0], [0.9])
    objects = [AnnotatedObject("cat", BOX), AnnotatedObject("cat", (20, 10, 20, 20))]
    issues = issues_of(objects, detections, "badly_located")
    assert [(issue.annotated, issue.score) for issue in issues if issue.annotated == objects[0]] == []


def test_a_box_without_a_detection_is_superfluous() -> None:
    """1 without any, and 1 minus the score of one that overlaps, of whatever class."""
    objects = [AnnotatedObject("cat", BOX), AnnotatedObject("cat", (60, 60, 10, 10))]
    issues = issues_of(objects, Detections.of([BOX], [1], [0.75]), "superfluous")
    assert [(issue.annotated, issue.score) for issue in issues] == [(objects[1], 1.0), (objects[0], 0.25)]


def test_a_crowd_has_no_issue() -> None:
    """And a detection inside it is not overlooked."""
    crowd = AnnotatedObject("cat", (0, 0, 100, 100), is_crowd=True)
    detections = Detections.of([BOX], [0], [0.9])
    for kind in ("overlooked", "swapped", "badly_located", "superfluous"):
        assert issues_of([crowd], detections, kind) == []


def test_the_largest_other_overlap_by_hand() -> None:
    """Of three objects: the second largest for the largest one, the largest for the others; of one object, 0."""
    overlaps = np.array([[0.2, 0.7, 0.5], [0.4, 0.4, 0.1]])
    assert largest_other(overlaps).tolist() == [[0.7, 0.5, 0.7], [0.4, 0.4, 0.4]]
    assert largest_other(np.array([[0.3]])).tolist() == [[0.0]]
