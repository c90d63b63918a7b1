"""Sensor noise: normal for the electronics, Poisson for the photons at low light."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from seedling.media.images import Pixels, is_gray

MIN_PHOTONS_FOR_NORMAL = 16.0  # from here on a normal number replaces the Poisson number: the skew is below 1/4
QUANTILES = 4096


def gaussian_noise(pixels: Pixels, std: float, random_bytes: NDArray[np.uint8]) -> Pixels:
    """Add normal noise of mean 0 to each value, round, and saturate.

    std: as a share of full white; random_bytes: one per value.
    A byte selects one of 256 equally likely quantiles, scaled to the variance of the normal, so that the noise is at
    most 2.9 standard deviations: a table is two to three times as fast as exact draws.
    """
    random_bytes = random_bytes.reshape(pixels.shape)
    if is_gray(pixels):  # independent noise per channel would average to weaker noise
        random_bytes = cv2.merge([random_bytes[..., 0]] * 3)
    noise = cv2.LUT(random_bytes, np.rint(255 * std * _BYTE_QUANTILES).astype(np.int16))
    noisy: Pixels = cv2.add(pixels, noise, dtype=cv2.CV_8U)
    return noisy


def photon_noise(pixels: Pixels, photons: float, rng: np.random.Generator) -> Pixels:
    """Replace each value v by 255 / photons * Poisson(photons * v / 255). photons: expected at full white.

    Exact if fewer than MIN_PHOTONS_FOR_NORMAL photons are expected. Otherwise a normal number of the same mean and
    variance, one of 4,096 equally likely quantiles, so that the noise is at most 3.7 standard deviations.
    """
    noisy: Pixels = _noisy_values(photons).take(_table_indices(pixels, rng))
    if photons * pixels.min() / 255 < MIN_PHOTONS_FOR_NORMAL:
        is_dark = pixels < math.ceil(MIN_PHOTONS_FOR_NORMAL * 255 / photons)
        counts = rng.poisson(pixels[is_dark] * (photons / 255))
        noisy[is_dark] = np.minimum(np.rint(counts * (255 / photons)), 255).astype(np.uint8)
    return noisy


def _table_indices(pixels: Pixels, rng: np.random.Generator) -> NDArray[np.int32]:
    """Return for each value its index in the table of noisy values, at a random quantile."""
    quantile = np.frombuffer(rng.bytes(2 * pixels.size), dtype=np.uint16).reshape(pixels.shape) >> 4
    return pixels.astype(np.int32) * QUANTILES + quantile


def _normal_quantiles(n_quantiles: int) -> NDArray[np.float64]:
    """Return (n_quantiles,), equally likely quantiles of the standard normal."""
    quantiles: NDArray[np.float64] = ndtri((np.arange(n_quantiles) + 0.5) / n_quantiles)
    return quantiles


_BYTE_QUANTILES = _normal_quantiles(256) / _normal_quantiles(256).std()


@cache
def _noisy_values(photons: float) -> NDArray[np.uint8]:
    """Return (256 * QUANTILES,): the noisy value of each value at each quantile."""
    values = np.arange(256)[:, None]
    std = np.sqrt(values * 255 / photons)
    quantiles = _normal_quantiles(QUANTILES)[None, :]
    table: NDArray[np.uint8] = np.clip(np.rint(values + std * quantiles), 0, 255).astype(np.uint8).ravel()
    return table
