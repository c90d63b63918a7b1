"""Noise of a sensor: the electronics' is normal, and the photons', where little light falls on it, is Poisson's."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from seedling.media.images import Pixels, is_gray

NORMAL_FROM = (
    16.0  # photons: from here on a Poisson number is taken for a normal one, whose skew it would have is below 1/4
)
QUANTILES = 4096


def gaussian_noise(pixels: Pixels, std: float, drawn: NDArray[np.uint8]) -> Pixels:
    """A normal number of mean 0 added to every value, rounded, and cut at black and white. std: a share of full white; drawn: random bytes, as many.

    A byte stands for one of 256 equally likely quantiles, scaled to the normal's variance, so that nothing lies farther out than 2.9 standard
    deviations: a table is two to three times as quick as exact draws.
    """
    drawn = drawn.reshape(pixels.shape)
    if is_gray(pixels):  # what a gray image's channels have in common would be less of it
        drawn = cv2.merge([drawn[..., 0]] * 3)
    noise = cv2.LUT(drawn, np.rint(255 * std * _BYTES).astype(np.int16))
    noisy: Pixels = cv2.add(pixels, noise, dtype=cv2.CV_8U)
    return noisy


def photon_noise(pixels: Pixels, photons: float, rng: np.random.Generator) -> Pixels:
    """Each value becomes a Poisson number of photons with it as the mean, `photons` of them at full white, and is scaled back.

    Exact where fewer than NORMAL_FROM photons are expected. Elsewhere a normal number of the same mean and variance, drawn from 4,096 equally likely
    quantiles, so that nothing lies farther out than 3.7 standard deviations.
    """
    noisy: Pixels = _of_normal(photons).take(_cells(pixels, rng))
    if photons * pixels.min() / 255 < NORMAL_FROM:
        dark = pixels < math.ceil(NORMAL_FROM * 255 / photons)
        counted = rng.poisson(pixels[dark] * (photons / 255))
        noisy[dark] = np.minimum(np.rint(counted * (255 / photons)), 255).astype(np.uint8)
    return noisy


def _cells(pixels: Pixels, rng: np.random.Generator) -> NDArray[np.int32]:
    """Where in the table a value meets its quantile."""
    drawn = np.frombuffer(rng.bytes(2 * pixels.size), dtype=np.uint16).reshape(pixels.shape) >> 4
    return pixels.astype(np.int32) * QUANTILES + drawn


def _quantiles(many: int) -> NDArray[np.float64]:
    """(many,): equally likely quantiles of the standard normal."""
    quantiles: NDArray[np.float64] = ndtri((np.arange(many) + 0.5) / many)
    return quantiles


_BYTES = _quantiles(256) / _quantiles(256).std()


@cache
def _of_normal(photons: float) -> NDArray[np.uint8]:
    """(256 * QUANTILES,): the noisy value of each value at each quantile."""
    values = np.arange(256)[:, None]
    spread = np.sqrt(values * 255 / photons)
    quantiles = _quantiles(QUANTILES)[None, :]
    table: NDArray[np.uint8] = np.clip(np.rint(values + spread * quantiles), 0, 255).astype(np.uint8).ravel()
    return table
