"""Images: encoding, resizing, and what makes two of them the same or nearly so. Decoding is seedling/media/decoding.py."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from seedling.media.decoding import SUFFIXES as SUFFIXES
from seedling.media.decoding import Undecodable as Undecodable
from seedling.media.decoding import decode as decode
from seedling.media.decoding import may_be_transparent
from seedling.media.decoding import megapixels as megapixels
from seedling.media.image_metadata import UPRIGHT, read_metadata
from seedling.media.image_modes import Color

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB
BLANK = 2.0  # of the contrast: below it an image is taken for blank
CLEAR = 32  # levels of a channel between two of a few pixels, from which on nobody need ask


def rotated_by_exif(encoded: bytes) -> bool:
    """Whether the file says that its pixels are to be turned; `decode` does, other tools may not."""
    return read_metadata(encoded).orientation != UPRIGHT


QUICK_PNG = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),  # what repeats in a photograph's bytes repeats at once
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]


def encode(pixels: Pixels) -> bytes:
    """PNG, lossless, by the quickest way that compresses. Gray images are stored with one channel."""
    source = pixels[..., 0] if is_gray(pixels) else pixels[..., ::-1]
    done, buffer = cv2.imencode(".png", source, QUICK_PNG)
    if not done:
        raise Undecodable("unencodable")
    return bytes(buffer.tobytes())


def on_background(encoded: bytes, max_megapixels: float, background: Color | None) -> bytes:
    """A file that may be transparent as one that is not, on this color; all others, and where the color is None, as they are."""
    if background is None or not may_be_transparent(encoded):
        return encoded
    try:
        return encode(decode(encoded, max_megapixels, background))
    except Undecodable:  # which is said where it is decoded
        return encoded


def is_gray(pixels: Pixels) -> bool:
    """Whether all channels are the same; of a colored image one pixel, or a few, tell."""
    red, green, blue = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist()
    if not red == green == blue:
        return False
    for some in (pixels[::16, ::16], pixels):
        if (some[..., 0] != some[..., 1]).any() or (some[..., 0] != some[..., 2]).any():
            return False
    return True


def compressed(pixels: Pixels, quality: int = 80) -> bytes:
    """JPEG."""
    done, buffer = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise Undecodable("unencodable")
    return bytes(buffer.tobytes())


def content(pixels: Pixels) -> bytes:
    """What the row's id is the hash of: shape and pixels, so a PNG and a BMP of one image are one content."""
    return f"{pixels.shape[0]}x{pixels.shape[1]}".encode() + pixels.tobytes()


def contrast(pixels: Pixels) -> float:
    """The largest channel's range between its 1st and 99th percentile, 0 to 255: near 0 is a blank image."""
    low, high = np.percentile(pixels.reshape(-1, 3), [1, 99], axis=0)
    return float((high - low).max())


def is_blank(pixels: Pixels) -> bool:
    """Whether nothing is on it, as `contrast` has it; of an image on which there is something a few pixels tell."""
    some = pixels[::8, ::8].reshape(-1, 3)
    return int((some.max(axis=0) - some.min(axis=0)).max()) < CLEAR and contrast(pixels) < BLANK


def thumbnail(pixels: Pixels, side: int = 16) -> NDArray[np.float32]:
    """(side, side, 3) by area averaging, 0 to 255."""
    small: NDArray[np.float32] = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """(height, width, 3), the whole image, its shape not kept; area averaging down, cubic up."""
    down = max(pixels.shape[:2]) >= height
    changed: Pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if down else cv2.INTER_CUBIC)
    return changed


def shrunk(pixels: Pixels, longest: int) -> Pixels:
    """The image with its longer side at most so many pixels, its shape kept."""
    scale = min(1.0, longest / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    smaller: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return smaller


def perceptual_hash(pixels: Pixels) -> int:
    """64 bits: the signs of the lowest 8×8 cosine coefficients of the gray 32×32 image (pHash, Zauner 2010)."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    low[0] = np.median(low[1:])  # the mean brightness says nothing about the content
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
