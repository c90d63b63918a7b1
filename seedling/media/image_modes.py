"""Convert all modes of decoded images to 8-bit RGB, with a fixed scale for each mode.

The scale never depends on an image's maximum. Otherwise two exposures of one scene would become the same image, and one
hot pixel would make all other pixels black. Of 16 bits, the upper eight are kept, as Pillow does for 16-bit RGB. Images
that were widened from 8 to 16 bits, by shifting or by repeating the bits, are restored exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB
Color = tuple[int, int, int]  # red, green, blue
DEEP_GRAY_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
MAX_16_BITS = 65_535
FLOAT_TOLERANCE = 0.01  # allowed outside of 0 to 1, because resampling overshoots
OUT_OF_RANGE = "values_out_of_range"
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
MIN_VISIBLE_LEVELS = 16  # contrast of a transparent image with white, below which its background is black


class ValuesOutOfRange(ValueError):
    """32-bit integers or floating-point values outside of the fixed scale."""


def color_of(background: str) -> Color | None:
    """The color of a color name or of #rrggbb; None for `auto`."""
    if background == "auto":
        return None
    red, green, blue = ImageColor.getrgb(background)[:3]
    return red, green, blue


def is_transparent(image: Image.Image) -> bool:
    """Whether the image may have transparent pixels."""
    return image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info


def to_rgb(image: Image.Image, background: Color | None = None) -> Pixels:
    """Convert a loaded image to 8-bit RGB.

    16-bit values are reduced to their upper eight bits, 32-bit integers are treated as 16-bit ones, and floating-point
    values are scaled from 0 to 1. background: the color behind transparent pixels; None: see `on_background`.

    Raises ValuesOutOfRange if 32-bit integers are not within 0 to 65535, or floating-point values not within 0 to 1.
    """
    if image.mode in DEEP_GRAY_MODES | {"I", "F"}:
        return _from_deep_gray(image, background)
    if is_transparent(image):
        return on_background(_with_alpha(image), background)
    if image.mode == "LAB":
        return _from_lab(image)
    return np.array(image.convert("RGB"))


def on_background(rgba: Image.Image, background: Color | None = None) -> Pixels:
    """Put the image on this color; None: on white, or on black if nothing is visible on white."""
    if background is not None:
        return _composite(rgba, background)
    on_white = _composite(rgba, WHITE)
    if int(on_white.min(initial=255)) > 255 - MIN_VISIBLE_LEVELS and np.asarray(rgba)[..., 3].any():
        return _composite(rgba, BLACK)
    return on_white


def _composite(rgba: Image.Image, background: Color) -> Pixels:
    canvas = Image.new("RGBA", rgba.size, (*background, 255))
    return np.array(Image.alpha_composite(canvas, rgba).convert("RGB"))


def _with_alpha(image: Image.Image) -> Image.Image:
    transparent = image.info.get("transparency")
    if (
        isinstance(transparent, tuple) and max(transparent) > 255
    ):  # has 16 bits, but the pixels are already reduced to eight
        image.info["transparency"] = tuple(level >> 8 for level in transparent)
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)  # premultiplied colors are divided by their alpha
    return (image if straight is None else image.convert(straight)).convert("RGBA")


def _from_deep_gray(image: Image.Image, background: Color | None) -> Pixels:
    values = np.asarray(image)
    if image.mode == "F":
        gray = _from_float(values)
    else:
        if image.mode == "I" and values.size and (values.min() < 0 or values.max() > MAX_16_BITS):
            raise ValuesOutOfRange(f"32-bit values from {values.min()} to {values.max()}")
        bits = 12 if _is_12_bits(image) else 16
        gray = (values.astype(np.uint32) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if _white_is_zero(image):
        gray = 255 - gray
    rgb = np.repeat(gray[..., None], 3, axis=2)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
        return on_background(Image.fromarray(np.dstack([rgb, alpha])), background)
    return np.ascontiguousarray(rgb)


def _from_float(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scale floating-point values from 0 to 1. NaN becomes black."""
    with np.errstate(invalid="ignore"):  # signaling NaN
        numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    low, high = (numbers.min(), numbers.max()) if numbers.size else (0.0, 0.0)
    if low < -FLOAT_TOLERANCE or high > 1 + FLOAT_TOLERANCE:
        raise ValuesOutOfRange(f"floating-point values from {low:g} to {high:g}")
    scaled: NDArray[np.uint8] = (numbers.clip(0, 1) * 255).round().astype(np.uint8)
    return scaled


def _is_12_bits(image: Image.Image) -> bool:
    return tuple(getattr(image, "tag_v2", {}).get(258, ())) == (12,)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF. Pillow itself inverts such values if they have 8 bits."""
    return getattr(image, "tag_v2", {}).get(262) == 0


def _from_lab(image: Image.Image) -> Pixels:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    return np.array(converted if converted is not None else image.convert("RGB"))
