"""What albumentations lacks or is slow at, as its transforms: they compose and serialize with the others, and keep boxes, masks and keypoints right.

Each wraps a pure function of this folder, or of OpenCV, and draws from albumentations' own generators.
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
from seedling.augment.light import TILE, Spot, lit
from seedling.augment.noise import gaussian_noise, photon_noise
from seedling.media.images import Pixels

Range = tuple[float, float]


class Affine(A.Affine):  # type: ignore[misc]
    """albumentations' own to the bit; a small image waited longer for its six matrices of three by three than for its warping."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The same draws in the same order, and their product written out."""
        if self.fit_output:
            found: dict[str, Any] = super().get_params_dependent_on_data(params, data)
            return found
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
        """One call of OpenCV for a plain image."""
        if img.ndim != 3 or img.shape[2] != 3 or self.border_mode == cv2.BORDER_CONSTANT:
            other: Pixels = super().apply(img, matrix, output_shape, **params)
            return other
        size = (round(output_shape[1]), round(output_shape[0]))
        warped: Pixels = cv2.warpAffine(img, matrix[:2], size, flags=self.interpolation, borderMode=self.border_mode)
        return warped


def _linear(rotate: float, shear: dict[str, float], scale: dict[str, float]) -> tuple[float, float, float, float]:
    """Scaled, then turned, then sheared: the four numbers of that matrix, row by row."""
    turn = math.radians(rotate % 360)
    cosine, sine = math.cos(turn), math.sin(turn)
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
    """(3, 3): the linear part about the point (x, y), and then the translation."""
    a, b, c, d = linear
    return np.array(
        [
            [a, b, x + translate["x"] - a * x - b * y],
            [c, d, y + translate["y"] - c * x - d * y],
            [0.0, 0.0, 1.0],
        ]
    )


class GaussianNoise(A.ImageOnlyTransform):  # type: ignore[misc]
    """A normal number added to every value, its standard deviation within `std_range` as a share of full white; rounded and saturated."""

    def __init__(self, std_range: Range = (0.01, 0.05), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.std_range = _range("std_range", std_range, 0, 1)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The standard deviation, and a byte for each value."""
        _eight_bits(data["image"])
        drawn = np.frombuffer(self.random_generator.bytes(math.prod(params["shape"])), np.uint8)
        return {"std": self.py_random.uniform(*self.std_range), "drawn": drawn}

    def apply(self, img: Pixels, std: float, drawn: NDArray[np.uint8], **_: Any) -> Pixels:
        """See `gaussian_noise`."""
        return gaussian_noise(img, std, drawn)


class ChannelOrder(A.ImageOnlyTransform):  # type: ignore[misc]
    """One of the other five orders of red, green and blue, or one of those given."""

    def __init__(self, orders: Sequence[Sequence[int]] = ORDERS[1:], p: float = 0.5) -> None:
        super().__init__(p=p)
        self.orders = tuple((int(r), int(g), int(b)) for r, g, b in orders)
        if not self.orders or any(sorted(one) != [0, 1, 2] for one in self.orders):
            raise ValueError("orders: each holds 0, 1 and 2 once, as in [2, 1, 0]")

    def get_params(self) -> dict[str, Any]:
        """The order."""
        return {"order": self.orders[self.py_random.randrange(len(self.orders))]}

    def apply(self, img: Pixels, order: tuple[int, int, int], **_: Any) -> Pixels:
        """See `reorder_channels`."""
        return reorder_channels(img, order)


class ColorRotation(A.ImageOnlyTransform):  # type: ignore[misc]
    """Every color turned about the gray axis by an angle within `degrees`."""

    def __init__(self, degrees: Range = (-180.0, 180.0), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.degrees = _range("degrees", degrees, -360, 360)

    def get_params(self) -> dict[str, Any]:
        """The angle."""
        return {"angle": self.py_random.uniform(*self.degrees)}

    def apply(self, img: Pixels, angle: float, **_: Any) -> Pixels:
        """See `rotate_colors`."""
        return rotate_colors(img, angle)


class LuminosityMorphology(A.ImageOnlyTransform):  # type: ignore[misc]
    """Morphology of the luminosity alone, one of `operations`, with an ellipse of a size within `size` (odd sizes, pixels)."""

    def __init__(
        self, operations: Sequence[Morphology] = MORPHOLOGIES[:4], size: tuple[int, int] = (3, 5), p: float = 0.5
    ) -> None:
        super().__init__(p=p)
        self.operations, self.size = tuple(operations), (int(size[0]), int(size[1]))
        if not operations or not {*operations} <= {*MORPHOLOGIES}:
            raise ValueError(f"operations: each is one of {', '.join(MORPHOLOGIES)}")
        _range("size", size, 1, 1001)

    def get_params(self) -> dict[str, Any]:
        """The operation and its ellipse."""
        operation = self.operations[self.py_random.randrange(len(self.operations))]
        return {"operation": operation, "across": self.py_random.randint(*self.size) // 2 * 2 + 1}

    def apply(self, img: Pixels, operation: Morphology, across: int, **_: Any) -> Pixels:
        """See `change_luminosity`."""
        return change_luminosity(img, operation, across)


class _Spots(A.ImageOnlyTransform):  # type: ignore[misc]
    """Gaussian spots of light or shadow; the result also holds `glare_mask`, (height, width), what was added before saturation."""

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
        """The spots: centers anywhere, standard deviations as shares of the longer side (the short one 0.3 to 1 of the long one), any angle."""
        (height, width), draw = params["shape"][:2], self.py_random
        found = []
        for _ in range(draw.randint(*self.spots)):
            long = draw.uniform(*self.size) * max(height, width)
            spot = Spot(
                x=draw.uniform(0, width - 1),
                y=draw.uniform(0, height - 1),
                long=long,
                short=long * draw.uniform(0.3, 1.0),
                degrees=draw.uniform(0.0, 180.0),
                strength=self.sign * draw.uniform(*self.strength),
                grain=draw.uniform(*self.grain),
                window=(draw.randrange(TILE), draw.randrange(TILE)),
            )
            found.append(spot)
        return {"found": found}

    def apply(self, img: Pixels, found: Sequence[Spot], **_: Any) -> Pixels:
        """See `lit`."""
        return lit(img, found)[0]

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As albumentations does, and the mask, for those who train a model to take glare away."""
        done: dict[str, Any] = super().apply_with_params(params, *args, **kwargs)
        if self.mask:
            done["glare_mask"] = lit(np.zeros((*params["shape"][:2], 3), np.uint8), params["found"])[1]
        return done


class Glare(_Spots):
    """Spots of light on the luminosity."""


class SoftShadow(_Spots):
    """Spots of shadow on the luminosity."""

    sign = -1.0


class PhotonNoise(A.ImageOnlyTransform):  # type: ignore[misc]
    """Poisson noise of a sensor that counts a number of photons within `photons` at full white, one of 16 steps between them."""

    def __init__(self, photons: Range = (50.0, 400.0), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.photons = _range("photons", photons, 1, 1e6)

    def get_params(self) -> dict[str, Any]:
        """The photons, in equal ratios, and the seed of their noise."""
        low, high = (math.log(one) for one in self.photons)
        step = self.py_random.randrange(16) / 15
        return {"count": math.exp(low + (high - low) * step), "seed": self.py_random.getrandbits(63)}

    def apply(self, img: Pixels, count: float, seed: int, **_: Any) -> Pixels:
        """See `photon_noise`."""
        _eight_bits(img)
        return photon_noise(img, count, np.random.default_rng(seed))


OURS: dict[str, type[A.BasicTransform]] = {
    one.__name__: one
    for one in (
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


def _eight_bits(img: Pixels) -> None:
    if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
        raise ValueError(f"8-bit images of (height, width, 3) are needed, not {img.dtype} of {img.shape}")


def _range(name: str, given: Sequence[float], low: float, high: float) -> Range:
    try:
        first, last = (float(one) for one in given)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: two numbers, as in [{low:g}, {high:g}]") from None
    if not low <= first <= last <= high:
        raise ValueError(f"{name}: two rising numbers within {low:g} and {high:g}, not [{first:g}, {last:g}]")
    return first, last
