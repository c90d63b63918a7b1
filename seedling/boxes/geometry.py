"""Arithmetic of boxes.

A box is (x, y, width, height) in pixels, with (x, y) its top left corner, as in COCO. The intersection over union of
two boxes A and B is |A ∩ B| / |A ∪ B| = |A ∩ B| / (|A| + |B| − |A ∩ B|).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
"""(n_boxes, 4): x, y, width and height in pixels."""


def as_boxes(values: object) -> Boxes:
    """(n_boxes, 4) float64 of any sequence of boxes, also of an empty one."""
    return np.asarray(values, dtype=np.float64).reshape(-1, 4)


def to_corners(boxes: Boxes) -> Boxes:
    """(n_boxes, 4): left, top, right and bottom."""
    corners: Boxes = boxes.copy()
    corners[:, 2:] += corners[:, :2]
    return corners


def from_corners(corners: Boxes) -> Boxes:
    """(n_boxes, 4): the inverse of `to_corners`."""
    boxes: Boxes = corners.copy()
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def areas(boxes: Boxes) -> NDArray[np.float64]:
    """(n_boxes,) in square pixels; 0 for a box of negative width or height."""
    products: NDArray[np.float64] = np.prod(np.maximum(boxes[:, 2:], 0.0), axis=1)
    return products


def intersections(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """(n_first, n_second): the area that each pair of boxes shares, in square pixels."""
    corners, others = to_corners(first)[:, None], to_corners(second)[None]
    sides = np.minimum(corners[..., 2:], others[..., 2:]) - np.maximum(corners[..., :2], others[..., :2])
    products: NDArray[np.float64] = np.prod(np.maximum(sides, 0.0), axis=-1)
    return products


def intersection_over_union(
    first: Boxes, second: Boxes, *, is_crowd: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """(n_first, n_second): intersection over union; 0 for pairs of boxes without area.

    is_crowd: (n_second,) whether the second box surrounds a crowd. The union is then the area of the first box, as in
    COCO's evaluation: a box of one object of the crowd counts as a match.
    """
    shared = intersections(first, second)
    unions = areas(first)[:, None] + areas(second)[None] - shared
    if is_crowd is not None:
        unions = np.where(is_crowd[None], areas(first)[:, None], unions)
    ratios: NDArray[np.float64] = np.divide(shared, unions, out=np.zeros_like(shared), where=unions > 0)
    return ratios


def clip(boxes: Boxes, width: float, height: float) -> Boxes:
    """(n_boxes, 4): the parts of the boxes within the frame of an image; without area for boxes outside it."""
    limits = np.array([width, height, width, height], dtype=np.float64)
    return from_corners(np.clip(to_corners(boxes), 0.0, limits))


def outside_by(boxes: Boxes, width: float, height: float) -> NDArray[np.float64]:
    """(n_boxes,): by how many pixels each box exceeds the frame at its worst side; 0 within the frame."""
    corners = to_corners(boxes)
    excess: NDArray[np.float64] = np.concatenate([-corners[:, :2], corners[:, 2:] - np.array([width, height])], axis=1)
    worst: NDArray[np.float64] = excess.max(axis=1, initial=0.0)
    return worst


def oriented(boxes: Boxes, width: float, height: float, orientation: int) -> Boxes:
    """(n_boxes, 4): boxes of the stored pixels, in the image as its EXIF orientation (1 to 8) displays it.

    width, height: of the stored pixels.
    """
    left, top, right, bottom = to_corners(boxes).T
    corners = {
        1: (left, top, right, bottom),
        2: (width - right, top, width - left, bottom),
        3: (width - right, height - bottom, width - left, height - top),
        4: (left, height - bottom, right, height - top),
        5: (top, left, bottom, right),
        6: (height - bottom, left, height - top, right),
        7: (height - bottom, width - right, height - top, width - left),
        8: (top, width - right, bottom, width - left),
    }[orientation]
    return from_corners(np.stack(corners, axis=1))
