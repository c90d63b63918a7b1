"""Masks of objects as run-length encodings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from seedling.boxes.masks import box_of_mask, compressed_mask, decode_mask, encode_mask, mask_pixels


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_a_mask_comes_back_equal(pixels: np.ndarray) -> None:
    """Of any shape, also without a pixel."""
    text = encode_mask(pixels)
    np.testing.assert_array_equal(decode_mask(text), pixels)
    assert mask_pixels(text) == pixels.sum()


def test_the_counts_of_a_mask_go_down_the_columns() -> None:
    """COCO's order, by hand: 2 × 3 pixels of which the middle column is the object."""
    text = compressed_mask({"size": [2, 3], "counts": [2, 2, 2]}, (None, None))
    assert decode_mask(text).tolist() == [[False, True, False], [False, True, False]]
    assert box_of_mask(text) == (1.0, 0.0, 1.0, 2.0)
    assert compressed_mask(json.loads(text), (None, None)) == text


def test_a_rectangle_as_a_polygon_covers_its_pixels() -> None:
    """From (1, 1) to (4, 3) in an image of 6 × 5 pixels: three columns and two rows."""
    text = compressed_mask([[1, 1, 4, 1, 4, 3, 1, 3]], (6, 5))
    assert box_of_mask(text) == (1.0, 1.0, 3.0, 2.0)
    assert mask_pixels(text) == 6


@pytest.mark.parametrize(
    ("segmentation", "size", "message"),
    [
        ([[1, 1, 4, 1]], (6, 5), "three points"),
        ([[1, 1, 4, 1, float("nan"), 3]], (6, 5), "three points"),
        ([[1, 1, 4, 1, 4, 3]], (None, None), "width and height"),
        ({"counts": [1, 2]}, (6, 5), "needs `size`"),
        ({"size": [2, 2], "counts": [1, 2]}, (6, 5), "do not add up"),
        ({"size": [2, 2]}, (6, 5), "needs `counts`"),
    ],
)
def test_a_mask_that_cannot_be_read_is_explained(segmentation: object, size: tuple[int, int], message: str) -> None:
    """Before any pixel is written."""
    with pytest.raises(ValueError, match=message):
        compressed_mask(segmentation, size)


def test_a_mask_without_pixels_has_no_box() -> None:
    """Its box would have no area."""
    assert box_of_mask(encode_mask(np.zeros((3, 4), bool))) is None
