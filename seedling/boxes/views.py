"""Views of an image for a detector: resized to one size and, for training, flipped, scaled, moved and recolored."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from seedling.boxes.feature_maps import Pixels
from seedling.boxes.geometry import Boxes, as_boxes, from_corners, to_corners

PADDING_GRAY = 114
SCALES = (0.75, 1.4)
CONTRASTS, BRIGHTNESSES = (0.8, 1.2), (-20.0, 20.0)
MIN_VISIBLE_SHARE = 0.4  # of a box's area; an object of which less is visible is left out
SIZE_MULTIPLE = 32


@dataclass(frozen=True, slots=True)
class ViewGeometry:
    """A flip of x in an image of this width, if `is_flipped`, and then x' = scale · x + left, y' = scale · y + top."""

    scale: float
    left: float
    top: float
    is_flipped: bool
    width: int

    def to_view(self, boxes: Boxes) -> Boxes:
        """(n, 4): boxes of the image in the view."""
        moved = boxes.copy()
        if self.is_flipped:
            moved[:, 0] = self.width - boxes[:, 0] - boxes[:, 2]
        moved *= self.scale
        moved[:, 0] += self.left
        moved[:, 1] += self.top
        return moved

    def to_image(self, boxes: Boxes) -> Boxes:
        """(n, 4): boxes of the view in the image."""
        moved = boxes.copy()
        moved[:, 0] -= self.left
        moved[:, 1] -= self.top
        moved /= self.scale
        if self.is_flipped:
            moved[:, 0] = self.width - moved[:, 0] - moved[:, 2]
        return moved


def view_size(widths: np.ndarray, heights: np.ndarray, side: int) -> tuple[int, int]:
    """Height and width of all views: the longer is `side`, in the median aspect ratio, as multiples of 32 pixels."""
    aspect = float(np.median(widths / heights))
    width, height = (side, side / aspect) if aspect >= 1 else (side * aspect, side)
    multiples = [max(1, round(value / SIZE_MULTIPLE + 0.15)) * SIZE_MULTIPLE for value in (height, width)]
    return multiples[0], multiples[1]


def whole_view(width: int, height: int, size: tuple[int, int]) -> ViewGeometry:
    """The whole image in the top left corner of the view, as large as possible."""
    scale = min(size[0] / height, size[1] / width)
    return ViewGeometry(scale, 0.0, 0.0, False, width)


def random_view(width: int, height: int, size: tuple[int, int], generator: np.random.Generator) -> ViewGeometry:
    """The image in a random scale around that of `whole_view`, at a random position, flipped half of the time."""
    whole = min(size[0] / height, size[1] / width)
    scale = whole * float(np.exp(generator.uniform(*np.log(SCALES))))
    rooms = (size[1] - width * scale, size[0] - height * scale)  # negative where the view shows a part of the image
    left, top = (float(generator.uniform(min(0.0, room), max(0.0, room))) for room in rooms)
    return ViewGeometry(scale, left, top, bool(generator.integers(2)), width)


def render(pixels: Pixels, geometry: ViewGeometry, size: tuple[int, int]) -> Pixels:
    """(height, width, 3): the pixels of a view; gray outside the image."""
    source = pixels[:, ::-1] if geometry.is_flipped else pixels
    matrix = np.array([[geometry.scale, 0, geometry.left], [0, geometry.scale, geometry.top]])
    # The center of pixel n is n + 0.5: without the shift, an image that is halved would move by a quarter of a pixel.
    matrix[:, 2] += 0.5 * geometry.scale - 0.5
    if geometry.scale < 0.75:  # otherwise, pixels between those that are read would not count
        small = cv2.resize(source, None, fx=geometry.scale, fy=geometry.scale, interpolation=cv2.INTER_AREA)
        exact = (small.shape[1] / source.shape[1], small.shape[0] / source.shape[0])
        matrix = np.array([[geometry.scale / exact[0], 0, geometry.left], [0, geometry.scale / exact[1], geometry.top]])
        source = small
    return np.asarray(
        cv2.warpAffine(
            np.ascontiguousarray(source),
            matrix,
            (size[1], size[0]),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(PADDING_GRAY,) * 3,
        ),
        dtype=np.uint8,
    )


def recolored(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """The pixels with another contrast and brightness."""
    contrast, brightness = generator.uniform(*CONTRASTS), generator.uniform(*BRIGHTNESSES)
    changed: Pixels = np.clip(pixels.astype(np.float32) * contrast + brightness, 0, 255).astype(np.uint8)
    return changed


def visible_boxes(boxes: Boxes, size: tuple[int, int]) -> tuple[Boxes, np.ndarray]:
    """The parts of boxes that a view shows, and the positions of those of which enough is visible."""
    corners = to_corners(boxes)
    clipped = np.clip(corners, 0, [size[1], size[0], size[1], size[0]])
    areas = np.prod(np.maximum(boxes[:, 2:], 0), axis=1)
    visible = np.prod(np.maximum(clipped[:, 2:] - clipped[:, :2], 0), axis=1)
    is_visible = (visible >= MIN_VISIBLE_SHARE * areas) & (clipped[:, 2:] - clipped[:, :2] >= 2).all(axis=1)
    return as_boxes(from_corners(clipped)[is_visible]), np.flatnonzero(is_visible)
