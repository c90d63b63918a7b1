"""Glare and shadow: Gaussian spots on the luminosity, with the grain of Poisson noise.

A spot is a two-dimensional Gaussian of any mean and covariance, and its grain is mean-subtracted Poisson noise. It is added to, or taken from, the
luma of YCbCr (BT.601) alone, which is the same amount of red, green and blue: the chroma under a spot stays what it was until a channel saturates.
What lies beyond three standard deviations stays as it is, bit by bit, and costs no time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from seedling.media.images import Pixels

REACH = 3.0  # standard deviations; beyond them a spot of full strength would add less than three levels
GRAIN_RATE = 8.0  # Poisson rate of the grain: low enough that its skew is seen
TILE = 512  # pixels: the grain of a spot is a window into one tile, made once


@dataclass(frozen=True, slots=True)
class Spot:
    """A spot of light, in pixels of the image that it falls on.

    x, y: its center; long, short: standard deviations along its axes; degrees: of the long axis to the x axis, y pointing down;
    strength: the share of the whole luminosity range at its center, negative for a shadow; grain: how much the grain changes it, 0: smooth;
    window: where in the tile the grain is taken from.
    """

    x: float
    y: float
    long: float
    short: float
    degrees: float
    strength: float
    grain: float = 0.0
    window: tuple[int, int] = (0, 0)


def lit(pixels: Pixels, spots: Sequence[Spot]) -> tuple[Pixels, NDArray[np.float32]]:
    """The image under these spots, and the mask: (height, width), the share of the luminosity range that was asked to be added, before saturation.

    pixels: 8-bit RGB, (height, width, 3), left alone.
    """
    changed, mask = pixels.copy(), np.zeros(pixels.shape[:2], dtype=np.float32)
    for spot in spots:
        rows, columns = _support(spot, *pixels.shape[:2])
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        profile, under = _profile(spot, rows, columns), changed[rows, columns]
        mask[rows, columns] += np.float32(spot.strength) * profile
        light = cv2.convertScaleAbs(profile, alpha=255 * abs(spot.strength))
        change = cv2.add if spot.strength > 0 else cv2.subtract
        changed[rows, columns] = change(under, cv2.merge([light, light, light]))
    return changed, mask


def _support(spot: Spot, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns that the spot's ellipse of three standard deviations touches."""
    angle = math.radians(spot.degrees)
    wide = REACH * math.hypot(spot.long * math.cos(angle), spot.short * math.sin(angle))
    high = REACH * math.hypot(spot.long * math.sin(angle), spot.short * math.cos(angle))
    rows = slice(max(0, math.ceil(spot.y - high)), min(height, math.floor(spot.y + high) + 1))
    columns = slice(max(0, math.ceil(spot.x - wide)), min(width, math.floor(spot.x + wide) + 1))
    return rows, columns


def _profile(spot: Spot, rows: slice, columns: slice) -> NDArray[np.float32]:
    """(rows, columns): the spot with its grain, 1 at the center of one without; nothing beyond its ellipse."""
    angle = math.radians(spot.degrees)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(spot.y)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(spot.x)
    cosine, sine = math.cos(angle), math.sin(angle)
    xx = (cosine / spot.long) ** 2 + (sine / spot.short) ** 2
    yy = (sine / spot.long) ** 2 + (cosine / spot.short) ** 2
    xy = 2 * cosine * sine * (1 / spot.long**2 - 1 / spot.short**2)
    exponent = np.float32(-xy / 2) * y * x  # the squared distance in standard deviations, halved and negative
    exponent += np.float32(-xx / 2) * x * x + np.float32(-yy / 2) * y * y
    shape = cv2.exp(exponent)
    if spot.grain:
        high, wide = shape.shape
        tile = _grain(high, wide, spot.window)
        shape = cv2.multiply(shape, cv2.max(cv2.multiply(tile, float(spot.grain)) + np.float32(1), 0.0))
    shape[exponent < np.float32(-(REACH**2) / 2)] = 0
    result: NDArray[np.float32] = shape
    return result


def _grain(high: int, wide: int, window: tuple[int, int]) -> NDArray[np.float32]:
    """(high, wide): a window of the tile, which goes on at its other side."""
    tile, (top, left) = _tile(), window
    if top % TILE + high <= TILE and left % TILE + wide <= TILE:
        return tile[top % TILE : top % TILE + high, left % TILE : left % TILE + wide]
    return tile[np.ix_((top + np.arange(high)) % TILE, (left + np.arange(wide)) % TILE)]


@cache
def _tile() -> NDArray[np.float32]:
    """(TILE, TILE): Poisson noise less its mean, in its standard deviations."""
    noise = np.random.default_rng(2024).poisson(GRAIN_RATE, (TILE, TILE)) - GRAIN_RATE
    return (noise / math.sqrt(GRAIN_RATE)).astype(np.float32)
