"""Colors and luminosity: channel orders, rotations of the a/b plane in CIE LAB, and morphology of the luminosity.

All functions take and return 8-bit RGB, (height, width, 3), and do not change their input.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import Literal, get_args

import cv2
import numpy as np

from seedling.media.images import Pixels

ORDERS = tuple(permutations(range(3)))  # all six; the first is the identity
Morphology = Literal["erosion", "dilation", "opening", "closing", "gradient", "top_hat", "black_hat"]
MORPHOLOGIES: tuple[Morphology, ...] = get_args(Morphology)
OPENCV: dict[Morphology, int] = {
    "erosion": cv2.MORPH_ERODE,
    "dilation": cv2.MORPH_DILATE,
    "opening": cv2.MORPH_OPEN,
    "closing": cv2.MORPH_CLOSE,
    "gradient": cv2.MORPH_GRADIENT,
    "top_hat": cv2.MORPH_TOPHAT,
    "black_hat": cv2.MORPH_BLACKHAT,
}


def reorder_channels(pixels: Pixels, order: tuple[int, int, int]) -> Pixels:
    """Reorder the channels: `order[0]` is the channel that becomes red, and so on."""
    changed = np.empty_like(pixels)
    cv2.mixChannels([pixels], [changed], [index for pair in zip(order, range(3), strict=True) for index in pair])
    return changed


def rotate_colors(pixels: Pixels, degrees: float) -> Pixels:
    """Rotate each color about the gray axis of CIE LAB: the hue changes, luminosity and chroma do not.

    Colors outside the RGB cube are clipped to its faces. 8-bit LAB rounds by up to two levels in RGB.
    """
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    gray = 128.0  # a = b = 0 in OpenCV's 8-bit LAB
    rotation = np.array(
        [
            [1, 0, 0, 0],
            [0, cosine, -sine, gray * (1 - cosine + sine)],
            [0, sine, cosine, gray * (1 - sine - cosine)],
        ]
    )
    rotated: Pixels = cv2.cvtColor(cv2.transform(lab, rotation), cv2.COLOR_LAB2RGB)
    return rotated


def change_luminosity(pixels: Pixels, operation: Morphology, size: int) -> Pixels:
    """Apply gray-scale morphology (Serra 1982) to the luminosity, with an ellipse of `size` pixels.

    The colors do not change. For gradient, top_hat and black_hat the result of the subtraction is the new luminosity.
    """
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    luminosity = cv2.morphologyEx(cv2.extractChannel(lab, 0), OPENCV[operation], element)
    cv2.insertChannel(luminosity, lab, 0)
    changed: Pixels = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return changed
