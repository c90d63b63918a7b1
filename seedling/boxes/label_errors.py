"""Finds label errors of boxes with the detections of models that have not learned from the image.

Let s(d) be the score of a detection d, which estimates the IoU of its box with an object of its class, and o(d, b) the
IoU of a detection and an annotated box. For an annotated box b of class k, e(c) = max of s(d) over the detections d of
class c with o(d, b) ≥ 0.5. The four kinds of errors have these scores, each between 0 and 1:

- overlooked, of a detection: s(d) · (1 − max over b of o(d, b) / 0.5), 0 if that is negative
- swapped, of b: e(j)² / (e(j) + e(k)), where j is the other class with the largest e
- badly located, of b: (1 − fit) · (0.2 + 0.8 · move), if move > 0. With w(d) = min(1, s(d) / 0.3), and f(d, b) = 0 if
  another box b' explains d: 1 − max over b' ≠ b of o(d, b') / 0.5, fit = max of w(d) · o(d, b) and
  move = max of w(d) · f(d, b) · (1 − o(d, b)) over the detections of class k with o(d, b) ≥ 0.05
- superfluous, of b: 1 − the largest s(d) of any class with o(d, b) ≥ 0.3
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject
from seedling.boxes.geometry import Boxes, as_boxes, intersection_over_union
from seedling.boxes.metrics import Detections
from seedling.stats.statistics import Floats

IssueKind = Literal["overlooked", "swapped", "badly_located", "superfluous"]
SAME_OBJECT_OVERLAP = 0.5
NEAR_OVERLAP = 0.3
MIN_OVERLAP_IF_BADLY_LOCATED = 0.05
FULL_WEIGHT_SCORE = 0.3
SHARE_WITHOUT_MOVE = 0.2


@dataclass(frozen=True, slots=True)
class BoxIssue:
    """A possible label error. annotated: the object, None if it was overlooked; suggested: what it may be instead."""

    file: str
    kind: IssueKind
    score: float
    annotated: AnnotatedObject | None = None
    suggested: AnnotatedObject | None = None


def find_box_issues(
    images: Mapping[str, AnnotatedImage], predictions: Mapping[str, Detections], categories: Sequence[str]
) -> list[BoxIssue]:
    """The issues of all images that have predictions, the most likely errors first.

    predictions: of models that have not learned from the image.
    """
    issues = [
        issue
        for file, detections in predictions.items()
        for issue in issues_of_image(file, images[file].objects, detections, categories)
    ]
    return sorted(issues, key=lambda issue: (-issue.score, issue.file))


def issues_of_image(
    file: str, objects: Sequence[AnnotatedObject], detections: Detections, categories: Sequence[str]
) -> Iterator[BoxIssue]:
    """The issues of one image with a score above 0."""
    boxes = as_boxes([each.box for each in objects])
    is_crowd = np.array([each.is_crowd for each in objects], dtype=bool)
    overlaps = intersection_over_union(detections.boxes, boxes, is_crowd=is_crowd)
    suggestions = detections.as_objects(categories)
    scores = overlooked_scores(detections, overlaps)
    for position in _overlooked_order(detections, scores):
        yield BoxIssue(file, "overlooked", float(scores[position]), None, suggestions[position])
    explained = largest_other(overlaps) / SAME_OBJECT_OVERLAP
    for number, annotated in enumerate(objects):
        if annotated.is_crowd:
            continue
        of_box, class_index = overlaps[:, number], categories.index(annotated.category)
        swapped, position = swapped_score(detections, of_box, class_index, len(categories))
        if swapped > 0:
            yield BoxIssue(file, "swapped", swapped, annotated, suggestions[position])
        located, position = badly_located_score(detections, of_box, explained[:, number], class_index)
        if located > 0:
            yield BoxIssue(file, "badly_located", located, annotated, suggestions[position])
        yield BoxIssue(file, "superfluous", superfluous_score(detections, of_box), annotated)


def overlooked_scores(detections: Detections, overlaps: Floats) -> Floats:
    """(n_detections,). overlaps: (n_detections, n_objects)."""
    largest = overlaps.max(axis=1, initial=0.0)
    return np.asarray(detections.scores * np.maximum(0.0, 1.0 - largest / SAME_OBJECT_OVERLAP))


def _overlooked_order(detections: Detections, scores: Floats) -> Iterator[int]:
    """The detections with a score above 0, the highest first; of several of one object only the first."""
    taken: Boxes = as_boxes([])
    for position in np.argsort(-scores, kind="stable"):
        if scores[position] <= 0:
            return
        box = detections.boxes[position : position + 1]
        if intersection_over_union(box, taken).max(initial=0.0) < SAME_OBJECT_OVERLAP:
            taken = np.concatenate([taken, box])
            yield int(position)


def swapped_score(detections: Detections, of_box: Floats, class_index: int, n_classes: int) -> tuple[float, int]:
    """The score of an annotated box, and the detection of the other class. of_box: (n_detections,) overlaps."""
    is_same = of_box >= SAME_OBJECT_OVERLAP
    evidence = np.zeros(n_classes)
    np.maximum.at(evidence, detections.classes[is_same], detections.scores[is_same])
    of_label = evidence[class_index]
    others = evidence.copy()
    others[class_index] = 0.0
    other = int(others.argmax())
    if others[other] <= 0:
        return 0.0, 0
    of_other = np.where(is_same & (detections.classes == other), detections.scores, -1.0)
    return float(others[other] ** 2 / (others[other] + of_label)), int(of_other.argmax())


def largest_other(overlaps: Floats) -> Floats:
    """(n_detections, n_objects): the largest overlap of a detection with any other object; 0 if there is none."""
    if overlaps.shape[1] < 2:
        return np.zeros_like(overlaps)
    second, largest = np.sort(overlaps, axis=1)[:, -2:].T
    is_largest = np.arange(overlaps.shape[1]) == overlaps.argmax(axis=1)[:, None]
    result: Floats = np.where(is_largest, second[:, None], largest[:, None])
    return result


def badly_located_score(
    detections: Detections, of_box: Floats, explained: Floats, class_index: int
) -> tuple[float, int]:
    """The score of an annotated box, and the detection that is located better.

    of_box: (n_detections,) overlaps with the box; explained: (n_detections,) the largest overlap with another box, as a
    share of SAME_OBJECT_OVERLAP.
    """
    weight = np.where(detections.classes == class_index, np.minimum(1.0, detections.scores / FULL_WEIGHT_SCORE), 0.0)
    moves = np.where(
        of_box >= MIN_OVERLAP_IF_BADLY_LOCATED, weight * np.maximum(0.0, 1.0 - explained) * (1.0 - of_box), 0.0
    )
    best = int(moves.argmax()) if len(moves) else 0
    if not len(moves) or moves[best] <= 0:
        return 0.0, 0
    fit = float((weight * of_box).max())
    return (1.0 - fit) * (SHARE_WITHOUT_MOVE + (1.0 - SHARE_WITHOUT_MOVE) * float(moves[best])), best


def superfluous_score(detections: Detections, of_box: Floats) -> float:
    """The score of an annotated box."""
    return 1.0 - float(detections.scores[of_box >= NEAR_OVERLAP].max(initial=0.0))


def detail_of(issue: BoxIssue) -> str:
    """The score of an issue and, for a swapped class or another location, what the model suggests."""
    text = f"score {issue.score:.2f}"
    if issue.annotated is None or issue.suggested is None:
        return text
    if issue.kind == "swapped":
        return f"{text}, more likely {issue.suggested.category}"
    return f"{text}, more likely at " + ", ".join(f"{value:.4g}" for value in issue.suggested.box)
