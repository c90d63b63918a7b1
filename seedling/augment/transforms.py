"""Transforms that albumentations lacks, or has in a slower form.

They compose and serialize with those of albumentations, and support boxes, masks and keypoints. Each wraps a pure
function of this package or of OpenCV, and draws from albumentations' generators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from seedling.augment.color import (
    MORPHOLOGIES,
    ORDERS,
    Morphology,
    change_luminosity,
    reorder_channels,
    rotate_colors,
)
from seedling.augment.light import TILE_PIXELS, Spot, add_spots
from seedling.augment.noise import gaussian_noise, photon_noise
from seedling.media.images import Pixels

Range = tuple[float, float]


class Affine(A.Affine):  # type: ignore[misc]
    """albumentations' Affine, bit for bit, without matrix products that take longer than to warp a small image."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw in the order of albumentations, and compute the product of the matrices in closed form."""
        if self.fit_output:
            drawn: dict[str, Any] = super().get_params_dependent_on_data(params, data)
            return drawn
        height, width = shape = params["shape"][:2]
        translate, shear = self._get_translate_params(shape), self._get_shear_params()
        scale = self._get_scale(self.scale, self.keep_ratio, self.balanced_scale, self.py_random)
        rotate = self.py_random.uniform(*self.rotate)
        linear = _linear(rotate, shear, scale)
        return {
            "rotate": rotate,
            "scale": scale,
            "matrix": _about(linear, translate, (width - 1) / 2, (height - 1) / 2),
            "bbox_matrix": _about(linear, translate, width / 2, height / 2),
            "output_shape": shape,
        }

    def apply(self, img: Pixels, matrix: NDArray[np.float64], output_shape: tuple[int, int], **params: Any) -> Pixels:
        """Warp an RGB image by one call of OpenCV."""
        if img.ndim != 3 or img.shape[2] != 3 or self.border_mode == cv2.BORDER_CONSTANT:
            warped_by_base: Pixels = super().apply(img, matrix, output_shape, **params)
            return warped_by_base
        size = (round(output_shape[1]), round(output_shape[0]))
        warped: Pixels = cv2.warpAffine(img, matrix[:2], size, flags=self.interpolation, borderMode=self.border_mode)
        return warped


def _linear(rotate: float, shear: dict[str, float], scale: dict[str, float]) -> tuple[float, float, float, float]:
    """Return the matrix that scales, then rotates, then shears: four numbers, row by row."""
    angle = math.radians(rotate % 360)
    cosine, sine = math.cos(angle), math.sin(angle)
    along_x, along_y = math.tan(math.radians(shear["x"])), math.tan(math.radians(shear["y"]))
    return (
        (cosine - along_x * sine) * scale["x"],
        (sine + along_x * cosine) * scale["y"],
        (along_y * cosine - sine) * scale["x"],
        (along_y * sine + cosine) * scale["y"],
    )


def _about(
    linear: tuple[float, float, float, float], translate: dict[str, int], x: float, y: float
) -> NDArray[np.float64]:
    """Return (3, 3): the linear map about the point (x, y), then the translation."""
    a, b, c, d = linear
    return np.array(
        [
            [a, b, x + translate["x"] - a * x - b * y],
            [c, d, y + translate["y"] - c * x - d * y],
            [0.0, 0.0, 1.0],
        ]
    )


class GaussianNoise(A.ImageOnlyTransform):  # type: ignore[misc]
    """Add normal noise to each value, round and saturate. std_range: of the standard deviation, share of full white."""

    def __init__(self, std_range: Range = (0.01, 0.05), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.std_range = _range("std_range", std_range, 0, 1)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the standard deviation and one byte per value."""
        _check_eight_bits(data["image"])
        random_bytes = np.frombuffer(self.random_generator.bytes(math.prod(params["shape"])), np.uint8)
        return {"std": self.py_random.uniform(*self.std_range), "random_bytes": random_bytes}

    def apply(self, img: Pixels, std: float, random_bytes: NDArray[np.uint8], **_: Any) -> Pixels:
        """See `gaussian_noise`."""
        return gaussian_noise(img, std, random_bytes)


class ChannelOrder(A.ImageOnlyTransform):  # type: ignore[misc]
    """Reorder red, green and blue by one of `orders`: by default, one of the five other orders."""

    def __init__(self, orders: Sequence[Sequence[int]] = ORDERS[1:], p: float = 0.5) -> None:
        super().__init__(p=p)
        self.orders = tuple((int(r), int(g), int(b)) for r, g, b in orders)
        if not self.orders or any(sorted(order) != [0, 1, 2] for order in self.orders):
            raise ValueError("orders: each must contain 0, 1 and 2 once, as in [2, 1, 0]")

    def get_params(self) -> dict[str, Any]:
        """Draw the order."""
        return {"order": self.orders[self.py_random.randrange(len(self.orders))]}

    def apply(self, img: Pixels, order: tuple[int, int, int], **_: Any) -> Pixels:
        """See `reorder_channels`."""
        return reorder_channels(img, order)


class ColorRotation(A.ImageOnlyTransform):  # type: ignore[misc]
    """Rotate each color about the gray axis by an angle within `degrees`."""

    def __init__(self, degrees: Range = (-180.0, 180.0), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.degrees = _range("degrees", degrees, -360, 360)

    def get_params(self) -> dict[str, Any]:
        """Draw the angle."""
        return {"angle": self.py_random.uniform(*self.degrees)}

    def apply(self, img: Pixels, angle: float, **_: Any) -> Pixels:
        """See `rotate_colors`."""
        return rotate_colors(img, angle)


class LuminosityMorphology(A.ImageOnlyTransform):  # type: ignore[misc]
    """Apply one of `operations` to the luminosity, with an ellipse of an odd number of pixels within `size`."""

    def __init__(
        self, operations: Sequence[Morphology] = MORPHOLOGIES[:4], size: tuple[int, int] = (3, 5), p: float = 0.5
    ) -> None:
        super().__init__(p=p)
        self.operations, self.size = tuple(operations), (int(size[0]), int(size[1]))
        if not operations or not {*operations} <= {*MORPHOLOGIES}:
            raise ValueError(f"operations: each must be one of {', '.join(MORPHOLOGIES)}")
        _range("size", size, 1, 1001)

    def get_params(self) -> dict[str, Any]:
        """Draw the operation and the size of its ellipse."""
        operation = self.operations[self.py_random.randrange(len(self.operations))]
        return {"operation": operation, "diameter": self.py_random.randint(*self.size) // 2 * 2 + 1}

    def apply(self, img: Pixels, operation: Morphology, diameter: int, **_: Any) -> Pixels:
        """See `change_luminosity`."""
        return change_luminosity(img, operation, diameter)


class _Spots(A.ImageOnlyTransform):  # type: ignore[misc]
    """Gaussian spots of light or shadow.

    With `mask`, the result has `glare_mask`, (height, width): the added share of the luminosity range, before
    saturation.
    """

    sign = 1.0

    def __init__(
        self,
        spots: tuple[int, int] = (1, 2),
        size: Range = (0.05, 0.3),
        strength: Range = (0.3, 0.9),
        grain: Range = (0.0, 0.3),
        mask: bool = False,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.spots = (int(spots[0]), int(spots[1]))
        _range("spots", spots, 0, 100)
        self.size = _range("size", size, 1e-3, 10)
        self.strength = _range("strength", strength, 0, 1)
        self.grain = _range("grain", grain, 0, 10)
        self.mask = mask

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the spots: uniform centers and angles.

        The long standard deviation is a share `size` of the longer side, the short one 0.3 to 1 of the long one.
        """
        (height, width), rng = params["shape"][:2], self.py_random
        drawn_spots = []
        for _ in range(rng.randint(*self.spots)):
            long = rng.uniform(*self.size) * max(height, width)
            spot = Spot(
                x=rng.uniform(0, width - 1),
                y=rng.uniform(0, height - 1),
                long=long,
                short=long * rng.uniform(0.3, 1.0),
                degrees=rng.uniform(0.0, 180.0),
                strength=self.sign * rng.uniform(*self.strength),
                grain=rng.uniform(*self.grain),
                window=(rng.randrange(TILE_PIXELS), rng.randrange(TILE_PIXELS)),
            )
            drawn_spots.append(spot)
        return {"drawn_spots": drawn_spots}

    def apply(self, img: Pixels, drawn_spots: Sequence[Spot], **_: Any) -> Pixels:
        """See `add_spots`."""
        return add_spots(img, drawn_spots)[0]

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Add the mask to the result, for example to train a model that removes glare."""
        result: dict[str, Any] = super().apply_with_params(params, *args, **kwargs)
        if self.mask:
            black = np.zeros((*params["shape"][:2], 3), np.uint8)
            result["glare_mask"] = add_spots(black, params["drawn_spots"])[1]
        return result


class Glare(_Spots):
    """Add spots of light to the luminosity."""


class SoftShadow(_Spots):
    """Add spots of shadow to the luminosity."""

    sign = -1.0


class PhotonNoise(A.ImageOnlyTransform):  # type: ignore[misc]
    """Add the Poisson noise of a sensor that counts `photons` photons at full white; 16 values within the range."""

    def __init__(self, photons: Range = (50.0, 400.0), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.photons = _range("photons", photons, 1, 1e6)

    def get_params(self) -> dict[str, Any]:
        """Draw the number of photons, evenly spaced in the logarithm, and the seed of the noise."""
        low, high = (math.log(count) for count in self.photons)
        step = self.py_random.randrange(16) / 15
        return {"count": math.exp(low + (high - low) * step), "seed": self.py_random.getrandbits(63)}

    def apply(self, img: Pixels, count: float, seed: int, **_: Any) -> Pixels:
        """See `photon_noise`."""
        _check_eight_bits(img)
        return photon_noise(img, count, np.random.default_rng(seed))


TRANSFORMS: dict[str, type[A.BasicTransform]] = {
    transform.__name__: transform
    for transform in (
        Affine,
        ChannelOrder,
        ColorRotation,
        LuminosityMorphology,
        Glare,
        SoftShadow,
        GaussianNoise,
        PhotonNoise,
    )
}


def _check_eight_bits(img: Pixels) -> None:
    if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
        raise ValueError(f"8-bit images of shape (height, width, 3) are required, not {img.dtype} of {img.shape}")


def _range(name: str, bounds: Sequence[float], low: float, high: float) -> Range:
    try:
        first, last = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected two numbers, as in [{low:g}, {high:g}]") from None
    if not low <= first <= last <= high:
        raise ValueError(f"{name}: expected two ascending numbers from {low:g} to {high:g}, not [{first:g}, {last:g}]")
    return first, last
