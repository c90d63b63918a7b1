"""Glare and shadow: Gaussian spots on the luminosity, with Poisson noise as grain.

A spot is a two-dimensional Gaussian with any mean and covariance; its grain is Poisson noise minus its mean. It is
added to, or subtracted from, the luma of YCbCr (BT.601), that is, the same amount of red, green and blue: the chroma
does not change until a channel saturates. Pixels beyond three standard deviations do not change.
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

MAX_DISTANCE = 3.0  # standard deviations; beyond, a spot of full strength would add less than three levels
GRAIN_RATE = 8.0  # Poisson rate of the grain: low enough for a visible skew
TILE_PIXELS = 512  # side of the tile; the grain of a spot is a window into this one tile


@dataclass(frozen=True, slots=True)
class Spot:
    """A spot of light, in pixels of the image.

    x, y: the center; long, short: standard deviations along the axes; degrees: of the long axis to the x axis, with y
    pointing down; strength: share of the luminosity range at the center, negative for a shadow; grain: standard
    deviation of the grain, 0 for a smooth spot; window: top and left of the grain in the tile.
    """

    x: float
    y: float
    long: float
    short: float
    degrees: float
    strength: float
    grain: float = 0.0
    window: tuple[int, int] = (0, 0)


def add_spots(pixels: Pixels, spots: Sequence[Spot]) -> tuple[Pixels, NDArray[np.float32]]:
    """Return the image with the spots, and a mask, (height, width): the added share of the luminosity range.

    The mask is before saturation. pixels: 8-bit RGB, (height, width, 3), not changed.
    """
    changed, mask = pixels.copy(), np.zeros(pixels.shape[:2], dtype=np.float32)
    for spot in spots:
        rows, columns = _support(spot, *pixels.shape[:2])
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        profile, covered = _profile(spot, rows, columns), changed[rows, columns]
        mask[rows, columns] += np.float32(spot.strength) * profile
        light = cv2.convertScaleAbs(profile, alpha=255 * abs(spot.strength))
        change = cv2.add if spot.strength > 0 else cv2.subtract
        changed[rows, columns] = change(covered, cv2.merge([light, light, light]))
    return changed, mask


def _support(spot: Spot, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of the bounding box of the spot's ellipse of three standard deviations."""
    angle = math.radians(spot.degrees)
    wide = MAX_DISTANCE * math.hypot(spot.long * math.cos(angle), spot.short * math.sin(angle))
    high = MAX_DISTANCE * math.hypot(spot.long * math.sin(angle), spot.short * math.cos(angle))
    rows = slice(max(0, math.ceil(spot.y - high)), min(height, math.floor(spot.y + high) + 1))
    columns = slice(max(0, math.ceil(spot.x - wide)), min(width, math.floor(spot.x + wide) + 1))
    return rows, columns


def _profile(spot: Spot, rows: slice, columns: slice) -> NDArray[np.float32]:
    """Return (rows, columns): exp(-d² / 2) * (1 + grain * noise), where d is the distance in standard deviations.

    0 beyond the ellipse of three standard deviations.
    """
    angle = math.radians(spot.degrees)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(spot.y)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(spot.x)
    cosine, sine = math.cos(angle), math.sin(angle)
    xx = (cosine / spot.long) ** 2 + (sine / spot.short) ** 2
    yy = (sine / spot.long) ** 2 + (cosine / spot.short) ** 2
    xy = 2 * cosine * sine * (1 / spot.long**2 - 1 / spot.short**2)
    exponent = np.float32(-xy / 2) * y * x  # -d² / 2
    exponent += np.float32(-xx / 2) * x * x + np.float32(-yy / 2) * y * y
    shape = cv2.exp(exponent)
    if spot.grain:
        high, wide = shape.shape
        tile = _grain(high, wide, spot.window)
        shape = cv2.multiply(shape, cv2.max(cv2.multiply(tile, float(spot.grain)) + np.float32(1), 0.0))
    shape[exponent < np.float32(-(MAX_DISTANCE**2) / 2)] = 0
    result: NDArray[np.float32] = shape
    return result


def _grain(high: int, wide: int, window: tuple[int, int]) -> NDArray[np.float32]:
    """Return (high, wide): a window of the tile, wrapped around at its edges."""
    tile, (top, left) = _tile(), window
    if top % TILE_PIXELS + high <= TILE_PIXELS and left % TILE_PIXELS + wide <= TILE_PIXELS:
        return tile[top % TILE_PIXELS : top % TILE_PIXELS + high, left % TILE_PIXELS : left % TILE_PIXELS + wide]
    return tile[np.ix_((top + np.arange(high)) % TILE_PIXELS, (left + np.arange(wide)) % TILE_PIXELS)]


@cache
def _tile() -> NDArray[np.float32]:
    """Return (TILE_PIXELS, TILE_PIXELS): Poisson noise, standardized to mean 0 and variance 1."""
    noise = np.random.default_rng(2024).poisson(GRAIN_RATE, (TILE_PIXELS, TILE_PIXELS)) - GRAIN_RATE
    return (noise / math.sqrt(GRAIN_RATE)).astype(np.float32)
