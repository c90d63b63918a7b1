"""Views of images for a detector: boxes move with their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedling.boxes.geometry import as_boxes
from seedling.boxes.views import ViewGeometry, random_view, recolored, render, view_size, visible_boxes, whole_view

SIZE = (96, 128)


@given(seed=st.integers(0, 1_000), width=st.integers(20, 900), height=st.integers(20, 900))
def test_a_box_goes_to_a_view_and_back(seed: int, width: int, height: int) -> None:
    """Whatever the scale, the position and the flip."""
    geometry = random_view(width, height, SIZE, np.random.default_rng(seed))
    boxes = as_boxes([(3, 4, 10, 12), (0, 0, width, height)])
    np.testing.assert_allclose(geometry.to_image(geometry.to_view(boxes)), boxes, atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_a_box_surrounds_its_pixels_in_every_view(seed: int) -> None:
    """A white rectangle of 40 × 24 pixels: in the view, the box surrounds the white pixels, to a pixel at each side."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[48:72, 60:100] = 255
    geometry = random_view(160, 120, SIZE, np.random.default_rng(seed))
    (box,), _ = visible_boxes(geometry.to_view(as_boxes([(60, 48, 40, 24)])), SIZE)
    rows, columns = np.nonzero(render(pixels, geometry, SIZE)[..., 0] > 127)
    inside_image = (rows < SIZE[0]) & (columns < SIZE[1])
    is_image = (
        render(np.full_like(pixels, 255), geometry, SIZE)[rows, columns, 0] == 255
    )  # not the gray around the image
    rows, columns = rows[inside_image & is_image], columns[inside_image & is_image]
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    np.testing.assert_allclose(edges, expected, atol=1.01)


def test_the_whole_view_fits_the_image() -> None:
    """An image of 200 × 100 pixels in a view of 128 × 96: scaled by 0.64, at the top left."""
    assert whole_view(200, 100, SIZE) == ViewGeometry(0.64, 0.0, 0.0, False, 200)


@pytest.mark.parametrize(
    ("widths", "heights", "expected"),
    [([640, 640], [480, 480], (256, 320)), ([300], [300], (320, 320)), ([100, 100, 900], [400, 400, 100], (320, 96))],
)
def test_the_size_of_views_has_the_median_aspect_ratio(
    widths: list[int], heights: list[int], expected: tuple[int, int]
) -> None:
    """In multiples of 32 pixels, the longer side 320."""
    assert view_size(np.array(widths), np.array(heights), 320) == expected


def test_a_box_of_which_little_is_visible_is_left_out() -> None:
    """A quarter of the first box is in the view, half of the second one."""
    boxes, positions = visible_boxes(as_boxes([(-30, 0, 40, 10), (-20, 0, 40, 10), (5, 5, 10, 10)]), SIZE)
    assert positions.tolist() == [1, 2]
    assert boxes.tolist() == [[0, 0, 20, 10], [5, 5, 10, 10]]


def test_other_colors_stay_in_range() -> None:
    """Black stays dark and white bright; nothing wraps around."""
    pixels = np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)])
    changed = recolored(pixels, np.random.default_rng(0))
    assert changed[0].max() <= 20
    assert changed[1].min() >= 180
