"""Cut and paste (Dwibedi et al. 2017): an object is cut out of its image and put before another background; and backgrounds without their object.

The object is found by GrabCut (Rother et al. 2004) within the middle of the image, or by a function of the user's: a segmenter such as SAM, or a look-up
of masks or boxes that people drew.
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
Finder = Callable[
    [Pixels, dict[str, Any]], Any
]  # (image, {"id", "origin", "label"}) → a mask, a box (left, top, right, bottom), or None
WORKING_SIDE = 160  # pixels at which GrabCut looks: its time grows with the area, and an outline needs no more
MARGIN = 0.08  # of each side, taken for background unless a box is given
ROUNDS = 4  # of GrabCut
LEAST, MOST = 0.03, 0.75  # share of the image that an object takes; else it is taken for none
ON_EDGE = 0.5  # share of the image's edge that an object may touch
CUT_OFF = 0.15  # share of a side of the box that it may touch: beyond, the object goes on outside
AROUND = 0.02  # of the longer side, by which a hole is wider than its object, so that no rim of it is left


class NoObject(ValueError):
    """Nothing that stands out was found in the image."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How an object is put down: scale and degrees about its middle, then its middle at (x, y), shares of the background's width and height."""

    scale: float
    degrees: float
    x: float
    y: float


def draw_placement(rng: np.random.Generator) -> Placement:
    """Somewhat smaller or larger, tilted by up to 15 degrees, around the middle."""
    return Placement(
        float(rng.uniform(0.7, 1.1)),
        float(rng.uniform(-15, 15)),
        float(rng.uniform(0.35, 0.65)),
        float(rng.uniform(0.35, 0.65)),
    )


def object_mask(pixels: Pixels, found: Any = None) -> Mask:
    """(height, width): where the object is. found: what a user's function said, a mask or a box; None: GrabCut looks for it.

    Raises NoObject where it takes too little or too much of the image, or most of its edge.
    """
    height, width = pixels.shape[:2]
    if found is not None and np.ndim(found) == 2:
        mask = np.asarray(found).astype(bool)
        if mask.shape != (height, width):
            raise TypeError(f"a mask of {mask.shape}, where the image is {(height, width)}")
    else:
        mask = _grabbed(pixels, found)
    share = float(mask.mean())
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if not LEAST <= share <= MOST or float(edge.mean()) > ON_EDGE:
        raise NoObject(f"it would take {share:.0%} of the image")
    return mask


def _grabbed(pixels: Pixels, given: Any) -> Mask:
    """By GrabCut within the box (left, top, right, bottom); None: within all but a margin."""
    height, width = pixels.shape[:2]
    inner = (MARGIN * width, MARGIN * height, (1 - MARGIN) * width, (1 - MARGIN) * height)
    box = inner if given is None else tuple(float(one) for one in given)
    scale = min(1.0, WORKING_SIDE / max(height, width))
    small = cv2.resize(
        pixels, (max(3, round(width * scale)), max(3, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    left, top, right, bottom = (round(one * scale) for one in box)
    left, top = max(0, left), max(0, top)
    right, bottom = min(small.shape[1], max(right, left + 1)), min(small.shape[0], max(bottom, top + 1))
    if (right - left) * (bottom - top) >= small.shape[0] * small.shape[1]:
        raise NoObject("the box leaves no background")
    labels = np.zeros(small.shape[:2], np.uint8)
    state = np.zeros((1, 65), np.float64), np.zeros((1, 65), np.float64)
    cv2.setRNGSeed(0)  # its clusters begin at random, from a generator of the thread
    try:
        cv2.grabCut(small, labels, (left, top, right - left, bottom - top), *state, ROUNDS, cv2.GC_INIT_WITH_RECT)
    except cv2.error as error:
        raise NoObject(str(error)) from error
    mask = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    within = mask[top:bottom, left:right]
    if given is None and max(one.mean() for one in (within[0], within[-1], within[:, 0], within[:, -1])) > CUT_OFF:
        raise NoObject("it runs out of the image")
    whole: Mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR) > 0
    return whole


def pasted(pixels: Pixels, mask: Mask, background: Pixels, where: Placement, blend: Blend) -> Pixels:
    """The object before the background, (height, width, 3) of the background.

    feather: the object's rim fades over a hundredth of its size; poisson: its gradients are kept and its colors meet the background's (Pérez et al. 2003).
    """
    height, width = background.shape[:2]
    rows, columns = np.nonzero(mask)
    middle = ((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2)
    fit = min(width / pixels.shape[1], height / pixels.shape[0])
    turn = cv2.getRotationMatrix2D(middle, where.degrees, where.scale * fit)
    turn[:, 2] += (where.x * width - middle[0], where.y * height - middle[1])
    moved = cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    alpha = cv2.warpAffine(mask.astype(np.float32), turn, (width, height), flags=cv2.INTER_LINEAR)
    if blend == "poisson" and (solid := _inner(alpha)) is not None:
        rows, columns = np.nonzero(solid)
        center = (int(columns.min() + columns.max() + 1) // 2, int(rows.min() + rows.max() + 1) // 2)
        with suppress(cv2.error):  # an outline that is a few pixels wide: it fades instead
            cloned: Pixels = cv2.seamlessClone(moved, background, solid, center, cv2.NORMAL_CLONE)
            return cloned
    fade = max(0.6, 0.01 * math.sqrt(float(alpha.sum())))
    alpha = cv2.GaussianBlur(cv2.erode(alpha, np.ones((3, 3))), (0, 0), fade)[..., None]
    put: Pixels = np.rint(alpha * moved + (1 - alpha) * background).astype(np.uint8)
    return put


def _inner(alpha: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """The object as Poisson blending takes it: not on the image's edge, and larger than a few pixels; None where that leaves nothing."""
    solid = (alpha > 0.5).astype(np.uint8) * 255
    solid[:2], solid[-2:], solid[:, :2], solid[:, -2:] = 0, 0, 0, 0
    return solid if int((solid > 0).sum()) > 25 else None


def without_object(pixels: Pixels, mask: Mask) -> Pixels:
    """The image with the object's place filled in from around it (Telea 2004), at the resolution at which nobody sees the seams."""
    height, width = pixels.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(3, round(width * scale)), max(3, round(height * scale)))
    reach = 2 * max(1, round(AROUND * max(size))) + 1
    hole = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    hole = cv2.dilate(hole, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    small = cv2.inpaint(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), hole, 3, cv2.INPAINT_TELEA)
    filled = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    whole = cv2.resize(hole, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    alpha = cv2.GaussianBlur(whole, (0, 0), max(0.6, 0.5 / scale))[..., None]
    alpha = np.where(whole[..., None] > 0, 1.0, alpha)
    whole_again: Pixels = np.rint(alpha * filled + (1 - alpha) * pixels).astype(np.uint8)
    return whole_again
