"""Checks of boxes: reasons to reject them, and boxes that are unlike those of their class."""

from __future__ import annotations

import numpy as np
import pytest

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject, AnnotationSet, ImageFrame
from seedling.boxes.checks import CheckedAnnotations, check, reject_reasons, robust_scores
from seedling.boxes.geometry import as_boxes

FRAME = ImageFrame(100, 80)


def checked(image: AnnotatedImage, frame: ImageFrame = FRAME) -> CheckedAnnotations:
    """The checked annotations of one image."""
    annotations = AnnotationSet("voc")
    annotations.add(image)
    return check(annotations, lambda _: frame)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10, 10, 20, 20), None),
        ((-1, 10, 20, 20), None),
        ((-1.5, 10, 20, 20), "out_of_frame"),
        ((90, 10, 20, 20), "out_of_frame"),
        ((200, 200, 20, 20), "out_of_frame"),
        ((10, 10, 0, 20), "no_area"),
        ((10, 10, 20, -5), "no_area"),
        ((10, 10, 0.5, 20), "too_small"),
        ((99.5, 10, 1.2, 20), "too_small"),
    ],
)
def test_the_reason_to_reject_a_box(box: tuple[float, ...], reason: str | None) -> None:
    """In a frame of 100 × 80 pixels; a box that exceeds it by up to a pixel is clipped."""
    reasons, clipped = reject_reasons(as_boxes([box]), ["cat"], 100, 80)
    assert reasons == [reason]
    if reason is None:
        assert clipped[0, 0] >= 0


def test_the_second_of_two_equal_boxes_is_rejected() -> None:
    """By an overlap of 0.9 or more; of another category it is another object."""
    boxes = as_boxes([(10, 10, 40, 40), (10, 10, 40, 38), (10, 10, 40, 40), (10, 10, 40, 30)])
    reasons, _ = reject_reasons(boxes, ["cat", "cat", "dog", "cat"], 100, 80)
    assert reasons == [None, "duplicate_box", None, None]


def test_two_thousand_boxes_in_an_image_are_checked() -> None:
    """A grid of boxes of two pixels, none of which overlaps another, and the first one once more at the end."""
    boxes = as_boxes([(2 * (number % 50), 2 * (number // 50), 2, 2) for number in range(2_000)] + [(0, 0, 2, 2)])
    reasons, _ = reject_reasons(boxes, ["cell"] * 2_001, 100, 80)
    assert set(reasons[:-1]) == {None}
    assert reasons[-1] == "duplicate_box"


def test_boxes_of_the_stored_pixels_are_turned() -> None:
    """The annotation states the size before the EXIF orientation: a box at the top is then at the right."""
    image = AnnotatedImage("a.jpg", (AnnotatedObject("cat", (0, 0, 30, 10)),), width=80, height=100)
    result = checked(image, ImageFrame(100, 80, orientation=6))
    (annotated,) = result.annotations.images["a.jpg"].objects
    assert annotated.box == (90, 0, 10, 30)
    assert result.annotations.problem_counts() == {"boxes_turned": 1}


def test_another_size_in_the_annotation_is_reported() -> None:
    """The boxes stay where they are, and one outside the frame is rejected."""
    objects = (AnnotatedObject("cat", (0, 0, 30, 10)), AnnotatedObject("cat", (150, 100, 30, 10)))
    result = checked(AnnotatedImage("a.jpg", objects, width=200, height=160))
    assert [each.box for each in result.annotations.images["a.jpg"].objects] == [(0, 0, 30, 10)]
    assert [each.reason for each in result.rejected] == ["out_of_frame"]
    (problem,) = result.annotations.problems
    assert (problem.kind, problem.detail) == ("wrong_size", "a.jpg has 100 × 80 pixels, and the annotation 200 × 160")


def test_an_image_that_cannot_be_read_is_left_out() -> None:
    """It is reported."""
    annotations = AnnotationSet("voc")
    annotations.add(AnnotatedImage("a.jpg", annotation="a.xml"))
    result = check(annotations, lambda _: None)
    assert result.annotations.images == {}
    assert result.annotations.problem_counts() == {"image_not_readable": 1}


def test_a_box_of_unusual_size_is_flagged() -> None:
    """Twenty boxes of about 20 pixels and two large ones. One of these may be cut by the frame: the other is flagged."""
    generator = np.random.default_rng(0)
    sides = generator.uniform(18, 22, 20)
    objects = [
        AnnotatedObject("cat", (1 + float(n % 5) * 5, 1 + float(n), float(side), float(side)))
        for n, side in enumerate(sides)
    ]
    objects.append(AnnotatedObject("cat", (2, 2, 75, 75)))
    objects.append(AnnotatedObject("cat", (0, 20, 60, 60)))
    result = checked(AnnotatedImage("a.jpg", tuple(objects)))
    assert [(each.flag, each.annotated.box) for each in result.flagged] == [("size_outlier", (2, 2, 75, 75))]
    assert result.rejected == []


def test_few_boxes_have_no_outliers() -> None:
    """With fewer than twenty, the spread is not known."""
    objects = tuple(AnnotatedObject("cat", (float(n), 0, 5, 5)) for n in range(18))
    assert checked(AnnotatedImage("a.jpg", (*objects, AnnotatedObject("cat", (0, 0, 90, 70))))).flagged == []


def test_robust_scores_by_hand() -> None:
    """Median 3, median absolute deviation 1; the scores of equal values are 0."""
    assert robust_scores(np.array([1.0, 2, 3, 4, 5])) * 1.4826 == pytest.approx([2, 1, 0, 1, 2])
    assert robust_scores(np.array([2.0, 2, 2, 9])).tolist() == [0, 0, 0, 0]
