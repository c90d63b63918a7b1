"""Encode, resize and compare images. Decoding is in seedling/media/decoding.py."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from seedling.media.decoding import SUFFIXES as SUFFIXES
from seedling.media.decoding import Undecodable as Undecodable
from seedling.media.decoding import decode as decode
from seedling.media.decoding import may_be_transparent
from seedling.media.decoding import megapixels as megapixels
from seedling.media.decoding import shorter_side as shorter_side
from seedling.media.image_modes import Color

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB
View = Literal["whole", "center", "padded"]
CENTER_SHARE = 0.875  # of the shorter side: with a view of 224 pixels, of 256, as most encoders were trained
MAX_BLANK_CONTRAST = 2.0  # gray levels; an image with less contrast is blank
MAX_SMALL_IMAGE_SIDE = 48  # pixels of the shorter side, up to which features are computed at `SMALL_SIDE`
SMALL_SIDE, LARGE_SIDE = 32, 64
MIN_CLEAR_RANGE = 32  # levels of a channel; a subsample with a larger range proves that the image is not blank


FAST_PNG = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),  # in photographs, only neighboring bytes repeat
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]


def encode(pixels: Pixels) -> bytes:
    """Encode as PNG with the fastest settings that compress. Gray images are stored with one channel."""
    source = pixels[..., 0] if is_gray(pixels) else pixels[..., ::-1]
    is_encoded, buffer = cv2.imencode(".png", source, FAST_PNG)
    if not is_encoded:
        raise Undecodable("unencodable")
    return bytes(buffer.tobytes())


def on_background(encoded: bytes, max_megapixels: float, background: Color | None) -> bytes:
    """Encode a file with transparency again on this color. Returns other files as they are.

    background: None: the file is returned as it is.
    """
    if background is None or not may_be_transparent(encoded):
        return encoded
    try:
        return encode(decode(encoded, max_megapixels, background))
    except Undecodable:  # reported when the image is decoded
        return encoded


def is_gray(pixels: Pixels) -> bool:
    """Whether all channels are equal. Checks the center and a subsample first, which suffices for most color images."""
    red, green, blue = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist()
    if not red == green == blue:
        return False
    for sample in (pixels[::16, ::16], pixels):
        if (sample[..., 0] != sample[..., 1]).any() or (sample[..., 0] != sample[..., 2]).any():
            return False
    return True


def compressed(pixels: Pixels, quality: int = 80) -> bytes:
    """Encode as JPEG."""
    is_encoded, buffer = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_encoded:
        raise Undecodable("unencodable")
    return bytes(buffer.tobytes())


def content(pixels: Pixels) -> bytes:
    """The bytes that a row's id is computed from: shape and pixels, so that the file format does not matter."""
    return f"{pixels.shape[0]}x{pixels.shape[1]}".encode() + pixels.tobytes()


def contrast(pixels: Pixels) -> float:
    """The largest range of a channel between its 1st and 99th percentiles, 0 to 255. A blank image is near 0."""
    low, high = np.percentile(pixels.reshape(-1, 3), [1, 99], axis=0)
    return float((high - low).max())


def is_blank(pixels: Pixels) -> bool:
    """Whether the contrast is below `MAX_BLANK_CONTRAST`. Checks a subsample first, which is enough for most images."""
    sample = pixels[::8, ::8].reshape(-1, 3)
    sample_range = int((sample.max(axis=0) - sample.min(axis=0)).max())
    return sample_range < MIN_CLEAR_RANGE and contrast(pixels) < MAX_BLANK_CONTRAST


def thumbnail(pixels: Pixels, side: int = 16) -> NDArray[np.float32]:
    """(side, side, 3): the image resized by area averaging, 0 to 255."""
    small: NDArray[np.float32] = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """(height, width, 3): the image resized without keeping its aspect ratio.

    Area averaging is used to reduce the size, cubic interpolation to enlarge it.
    """
    is_smaller = max(pixels.shape[:2]) >= height
    interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC
    result: Pixels = cv2.resize(pixels, (width, height), interpolation=interpolation)
    return result


def view_of(pixels: Pixels, view: View, width: int, height: int) -> Pixels:
    """(height, width, 3): the image as an encoder sees it.

    whole: resized without keeping its aspect ratio; padded: all of it with its aspect ratio, the border pixels repeated
    on two sides; center: its center with its aspect ratio, 7/8 of the shorter side, as most encoders were trained.
    """
    if view == "whole":
        return resized(pixels, width, height)
    rows, columns = pixels.shape[:2]
    if view == "padded":
        scale = min(height / rows, width / columns)
        inner_width, inner_height = (max(1, round(side * scale)) for side in (columns, rows))
        inner = resized(pixels, min(width, inner_width), min(height, inner_height))
        top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
        below, right = height - inner.shape[0] - top, width - inner.shape[1] - left
        result: Pixels = cv2.copyMakeBorder(inner, top, below, left, right, cv2.BORDER_REPLICATE)
        return result
    shrink = CENTER_SHARE * min(rows / height, columns / width)  # pixels of the image per pixel of the view
    center_rows, center_columns = (max(1, round(side * shrink)) for side in (height, width))
    top, left = (rows - center_rows) // 2, (columns - center_columns) // 2
    return resized(pixels[top : top + center_rows, left : left + center_columns], width, height)


def feature_side(shorter_side: float) -> int:
    """The side of the square copies that classical features are computed from. shorter_side: of the images."""
    return SMALL_SIDE if shorter_side <= MAX_SMALL_IMAGE_SIDE else LARGE_SIDE


def shrunk(pixels: Pixels, longest: int) -> Pixels:
    """The image reduced so that its longer side has at most `longest` pixels. The aspect ratio is kept."""
    scale = min(1.0, longest / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    smaller: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return smaller


def perceptual_hash(pixels: Pixels) -> int:
    """64 bits: the signs of the lowest 8×8 cosine coefficients of the gray 32×32 image (pHash, Zauner 2010)."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    low[0] = np.median(low[1:])  # the mean brightness does not describe the content
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
