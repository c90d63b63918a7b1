"""Colors and luminosity: channel orders, turns of the a/b plane in CIE LAB, and morphology of the luminosity alone.

All take and give 8-bit RGB, (height, width, 3), and leave their input alone.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import Literal, get_args

import cv2
import numpy as np

from seedling.media.images import Pixels

ORDERS = tuple(permutations(range(3)))  # all six; the first leaves an image as it is
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
    """The channels in another order: `order[0]` says which channel becomes red, and so on."""
    changed = np.empty_like(pixels)
    cv2.mixChannels([pixels], [changed], [part for place, one in enumerate(order) for part in (one, place)])
    return changed


def rotate_colors(pixels: Pixels, degrees: float) -> Pixels:
    """Turns every color by this angle about the gray axis of CIE LAB: luminosity and chroma stay, the hue moves on.

    What leaves the RGB cube is cut off at its faces. 8 bits of LAB round by up to two levels in RGB.
    """
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    about_gray = 128.0  # where OpenCV's 8 bits have a = b = 0
    turn = np.array(
        [
            [1, 0, 0, 0],
            [0, cosine, -sine, about_gray * (1 - cosine + sine)],
            [0, sine, cosine, about_gray * (1 - sine - cosine)],
        ]
    )
    turned: Pixels = cv2.cvtColor(cv2.transform(lab, turn), cv2.COLOR_LAB2RGB)
    return turned


def change_luminosity(pixels: Pixels, operation: Morphology, size: int) -> Pixels:
    """Gray-scale morphology (Serra 1982) of the luminosity with an ellipse of `size` pixels; the colors stay where they are.

    gradient, top_hat and black_hat are what remains after a subtraction, and become the luminosity themselves.
    """
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    luminosity = cv2.morphologyEx(cv2.extractChannel(lab, 0), OPENCV[operation], element)
    cv2.insertChannel(luminosity, lab, 0)
    changed: Pixels = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return changed
