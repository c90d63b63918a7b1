"""Cut and paste (Dwibedi et al. 2017): cut an object out of its image and paste it on another background, or remove it.

The object is found by GrabCut (Rother et al. 2004) in the center of the image, or by a plugin: a segmenter such as SAM,
or a table of annotated masks or boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from seedling.media.images import Pixels

Mask = NDArray[np.bool_]
Blend = Literal["feather", "poisson"]
# (image, {"id", "origin", "label"}) → a mask, a box (left, top, right, bottom), or None
Finder = Callable[[Pixels, dict[str, Any]], Any]
WORKING_PIXELS = 160  # longer side for GrabCut and inpainting: their time grows with the area
MARGIN_SHARE = 0.08  # of each side; background for GrabCut if there is no box
GRABCUT_ITERATIONS = 4
MIN_OBJECT_SHARE, MAX_OBJECT_SHARE = 0.03, 0.75  # of the image; otherwise it is not an object
MAX_IMAGE_EDGE_SHARE = 0.5  # of the image's edge that an object may touch
MAX_BOX_SIDE_SHARE = 0.15  # of a side of GrabCut's box that an object may touch; otherwise it continues outside
HOLE_MARGIN_SHARE = 0.02  # of the longer side; widens a hole beyond its object, so that no rim remains


class NoObject(ValueError):
    """The image has no salient object."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The position of a pasted object.

    scale, degrees: about its center; x, y: of its center, as shares of the background's width and height.
    """

    scale: float
    degrees: float
    x: float
    y: float


def draw_placement(rng: np.random.Generator) -> Placement:
    """Draw a placement near the center: scale 0.7 to 1.1, up to 15 degrees, x and y 0.35 to 0.65."""
    return Placement(
        float(rng.uniform(0.7, 1.1)),
        float(rng.uniform(-15, 15)),
        float(rng.uniform(0.35, 0.65)),
        float(rng.uniform(0.35, 0.65)),
    )


def object_mask(pixels: Pixels, location: Any = None) -> Mask:
    """Return (height, width): True where the object is. location: a plugin's mask or box; None uses GrabCut alone.

    Raises NoObject if the object covers too little or too much of the image, or most of its edge.
    """
    height, width = pixels.shape[:2]
    if location is not None and np.ndim(location) == 2:
        mask = np.asarray(location).astype(bool)
        if mask.shape != (height, width):
            raise TypeError(f"the mask has shape {mask.shape}, but the image has {(height, width)}")
    else:
        mask = _grabcut(pixels, location)
    share = float(mask.mean())
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if not MIN_OBJECT_SHARE <= share <= MAX_OBJECT_SHARE or float(edge.mean()) > MAX_IMAGE_EDGE_SHARE:
        raise NoObject(f"the object would cover {share:.0%} of the image")
    return mask


def _grabcut(pixels: Pixels, box: Any) -> Mask:
    """Find the object by GrabCut within the box (left, top, right, bottom); None means all but a margin."""
    height, width = pixels.shape[:2]
    inner = (
        MARGIN_SHARE * width,
        MARGIN_SHARE * height,
        (1 - MARGIN_SHARE) * width,
        (1 - MARGIN_SHARE) * height,
    )
    bounds = inner if box is None else tuple(float(bound) for bound in box)
    scale = min(1.0, WORKING_PIXELS / max(height, width))
    small = cv2.resize(
        pixels, (max(3, round(width * scale)), max(3, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    left, top, right, bottom = (round(bound * scale) for bound in bounds)
    left, top = max(0, left), max(0, top)
    right, bottom = min(small.shape[1], max(right, left + 1)), min(small.shape[0], max(bottom, top + 1))
    if (right - left) * (bottom - top) >= small.shape[0] * small.shape[1]:
        raise NoObject("the box leaves no background")
    labels = np.zeros(small.shape[:2], np.uint8)
    state = np.zeros((1, 65), np.float64), np.zeros((1, 65), np.float64)
    cv2.setRNGSeed(0)  # GrabCut initializes its clusters at random, from a generator of the thread
    rectangle = (left, top, right - left, bottom - top)
    try:
        cv2.grabCut(small, labels, rectangle, *state, GRABCUT_ITERATIONS, cv2.GC_INIT_WITH_RECT)
    except cv2.error as error:
        raise NoObject(str(error)) from error
    mask = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    within = mask[top:bottom, left:right]
    sides = (within[0], within[-1], within[:, 0], within[:, -1])
    if box is None and max(side.mean() for side in sides) > MAX_BOX_SIDE_SHARE:
        raise NoObject("the object extends beyond the image")
    full_size: Mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR) > 0
    return full_size


def paste(pixels: Pixels, mask: Mask, background: Pixels, placement: Placement, blend: Blend) -> Pixels:
    """Paste the object on the background, (height, width, 3) of the background.

    feather: the object's edge fades over a hundredth of its size; poisson: the gradients are preserved and the colors
    adapt to the background (Pérez et al. 2003).
    """
    height, width = background.shape[:2]
    rows, columns = np.nonzero(mask)
    middle = ((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2)
    fit = min(width / pixels.shape[1], height / pixels.shape[0])
    matrix = cv2.getRotationMatrix2D(middle, placement.degrees, placement.scale * fit)
    matrix[:, 2] += (placement.x * width - middle[0], placement.y * height - middle[1])
    size = (width, height)
    moved = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    alpha = cv2.warpAffine(mask.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR)
    if blend == "poisson" and (solid := _solid_part(alpha)) is not None:
        rows, columns = np.nonzero(solid)
        center = (int(columns.min() + columns.max() + 1) // 2, int(rows.min() + rows.max() + 1) // 2)
        with suppress(cv2.error):  # fails for an outline of a few pixels, which is feathered instead
            cloned: Pixels = cv2.seamlessClone(moved, background, solid, center, cv2.NORMAL_CLONE)
            return cloned
    fade = max(0.6, 0.01 * math.sqrt(float(alpha.sum())))
    alpha = cv2.GaussianBlur(cv2.erode(alpha, np.ones((3, 3))), (0, 0), fade)[..., None]
    feathered: Pixels = np.rint(alpha * moved + (1 - alpha) * background).astype(np.uint8)
    return feathered


def _solid_part(alpha: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """Return the object's mask for Poisson blending, without the image's edge; None if at most 25 pixels remain."""
    solid = (alpha > 0.5).astype(np.uint8) * 255
    solid[:2], solid[-2:], solid[:, :2], solid[:, -2:] = 0, 0, 0, 0
    return solid if int((solid > 0).sum()) > 25 else None


def remove_object(pixels: Pixels, mask: Mask) -> Pixels:
    """Return the image with the object inpainted (Telea 2004) at low resolution, which hides the seams."""
    height, width = pixels.shape[:2]
    scale = min(1.0, WORKING_PIXELS / max(height, width))
    size = (max(3, round(width * scale)), max(3, round(height * scale)))
    diameter = 2 * max(1, round(HOLE_MARGIN_SHARE * max(size))) + 1
    hole = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    hole = cv2.dilate(hole, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter)))
    small = cv2.inpaint(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), hole, 3, cv2.INPAINT_TELEA)
    filled = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    full_size_hole = cv2.resize(hole, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    alpha = cv2.GaussianBlur(full_size_hole, (0, 0), max(0.6, 0.5 / scale))[..., None]
    alpha = np.where(full_size_hole[..., None] > 0, 1.0, alpha)
    blended: Pixels = np.rint(alpha * filled + (1 - alpha) * pixels).astype(np.uint8)
    return blended
