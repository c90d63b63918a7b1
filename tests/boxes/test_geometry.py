"""Arithmetic of boxes, against hand calculations and COCO's own implementation."""

from __future__ import annotations

import numpy as np
import pytest
from faster_coco_eval import mask as coco_mask
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from seedling.boxes.geometry import as_boxes, clip, intersection_over_union, oriented, outside_by

SIDE = st.floats(0.5, 80)
BOXES = st.lists(st.tuples(st.floats(-20, 60), st.floats(-20, 60), SIDE, SIDE), min_size=1, max_size=6)


def test_intersection_over_union_by_hand() -> None:
    """Two squares of side 2 that share a square of side 1: 1 / (4 + 4 - 1); boxes that touch share nothing."""
    overlaps = intersection_over_union(as_boxes([(0, 0, 2, 2)]), as_boxes([(1, 1, 2, 2), (2, 0, 2, 2), (0, 0, 2, 2)]))
    assert overlaps.tolist() == [[1 / 7, 0.0, 1.0]]


def test_a_box_without_area_overlaps_nothing() -> None:
    """Neither itself, so that no division by zero occurs, nor a box around it."""
    empty = as_boxes([(1, 1, 0, 0)])
    assert intersection_over_union(empty, empty).tolist() == [[0.0]]
    assert intersection_over_union(empty, as_boxes([(0, 0, 4, 4)])).tolist() == [[0.0]]
    assert intersection_over_union(as_boxes([]), empty).shape == (0, 1)


@given(first=BOXES, second=BOXES, crowd=st.booleans())
def test_intersection_over_union_is_that_of_coco(
    first: list[tuple[float, ...]], second: list[tuple[float, ...]], crowd: bool
) -> None:
    """Of any boxes, also if the second ones surround crowds."""
    is_crowd = np.full(len(second), crowd)
    expected = coco_mask.iou(as_boxes(first), as_boxes(second), is_crowd.astype(np.uint8).tolist())
    overlaps = intersection_over_union(as_boxes(first), as_boxes(second), is_crowd=is_crowd)
    np.testing.assert_allclose(overlaps, np.asarray(expected), atol=1e-9)


def test_a_box_is_clipped_to_the_frame() -> None:
    """Left and right of a frame of 10 × 8 pixels; a box outside keeps no area."""
    boxes = as_boxes([(-2, 1, 5, 3), (8, 6, 4, 4), (20, 20, 3, 3)])
    assert clip(boxes, 10, 8).tolist() == [[0, 1, 3, 3], [8, 6, 2, 2], [10, 8, 0, 0]]
    assert outside_by(boxes, 10, 8).tolist() == [2, 2, 15]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_image(orientation: int) -> None:
    """The pixels of a box, turned as Pillow turns the image, are those of the turned box."""
    pixels = np.zeros((6, 9), np.uint8)
    pixels[1:3, 2:7] = 255
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    turned = np.asarray(ImageOps.exif_transpose(image))
    rows, columns = np.nonzero(turned)
    left, top = columns.min(), rows.min()
    expected = [left, top, columns.max() - left + 1, rows.max() - top + 1]
    assert oriented(as_boxes([(2, 1, 5, 2)]), 9, 6, orientation).tolist() == [expected]
