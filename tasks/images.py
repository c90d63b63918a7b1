"""Pictures: decoding under limits, encoding, what makes two of them the same or nearly so.

Decoding goes by content, never by a file's name. A header is read before any pixel, so that a decompression bomb
is refused for the price of a few bytes.
"""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.decoding_limits import TOO_SLOW, is_too_slow
from tasks.image_metadata import UPRIGHT, read_metadata, without_metadata
from tasks.image_modes import OUT_OF_RANGE, ValuesOutOfRange, to_rgb

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF's orientation
BLANK = 2.0  # of the contrast: below it a picture is taken for blank
CLEAR = 32  # levels of a channel between two of a few pixels, from which on nobody need ask
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class Undecodable(ValueError):
    """These bytes give no picture; the message is the reason code."""


def decode(encoded: bytes, max_megapixels: float = 64.0) -> Pixels:
    """The picture as RGB, (height, width, 3); EXIF orientation applied, the first frame or page. Deep values and transparency are brought to RGB by
    tasks/image_modes.py. What is wrong with the file's metadata costs nothing.

    Raises Undecodable: `empty_file`, `undecodable` (not one of FORMATS, or broken), `too_many_pixels`, `too_slow_to_decode`, `values_out_of_range`.
    """
    if not encoded:
        raise Undecodable("empty_file")
    if is_too_slow(encoded, max_megapixels):
        raise Undecodable(TOO_SLOW)
    try:
        return _decode_upright(encoded, max_megapixels)
    except Undecodable:
        raise
    except ValuesOutOfRange as error:
        raise Undecodable(OUT_OF_RANGE) from error
    except Image.DecompressionBombError as error:
        raise Undecodable("too_many_pixels") from error
    except Exception as error:
        raise Undecodable("undecodable") from error


def _decode_upright(encoded: bytes, max_megapixels: float) -> Pixels:
    image = _open(encoded)
    if image.width * image.height > max_megapixels * 1e6:
        raise Undecodable("too_many_pixels")
    image.load()
    if image.format != "TIFF":  # which Pillow turns by itself
        turn = TURNS.get(read_metadata(encoded).orientation)
        image = image if turn is None else image.transpose(turn)
    return to_rgb(image)


def _open(encoded: bytes) -> Image.Image:
    """The image with its header read. Raises whatever Pillow raises, and ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit stands in `decode`
        return Image.open(io.BytesIO(without_metadata(encoded)), formats=FORMATS)


def megapixels(encoded: bytes) -> float:
    """Of a picture by its header alone; 0 where there is none."""
    try:
        image = _open(encoded)
        return image.width * image.height / 1e6
    except Exception:  # noqa: BLE001  (decoding says what is wrong with it)
        return 0.0


def rotated_by_exif(encoded: bytes) -> bool:
    """Whether the file says that its pixels are to be turned; `decode` does, other tools may not."""
    return read_metadata(encoded).orientation != UPRIGHT


QUICK_PNG = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),  # what repeats in a photograph's bytes repeats at once
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]


def encode(pixels: Pixels) -> bytes:
    """PNG, lossless, by the quickest way that compresses. Grey pictures are stored with one channel."""
    source = pixels[..., 0] if is_grey(pixels) else pixels[..., ::-1]
    done, buffer = cv2.imencode(".png", source, QUICK_PNG)
    if not done:
        raise Undecodable("unencodable")
    return bytes(buffer.tobytes())


def is_grey(pixels: Pixels) -> bool:
    """Whether all channels are the same; of a coloured picture one pixel, or a few, tell."""
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
    """What the row's id is the hash of: shape and pixels, so a PNG and a BMP of one picture are one content."""
    return f"{pixels.shape[0]}x{pixels.shape[1]}".encode() + pixels.tobytes()


def contrast(pixels: Pixels) -> float:
    """The largest channel's range between its 1st and 99th percentile, 0 to 255: near 0 is a blank picture."""
    low, high = np.percentile(pixels.reshape(-1, 3), [1, 99], axis=0)
    return float((high - low).max())


def is_blank(pixels: Pixels) -> bool:
    """Whether nothing is on it, as `contrast` has it; of a picture on which there is something a few pixels tell."""
    some = pixels[::8, ::8].reshape(-1, 3)
    return int((some.max(axis=0) - some.min(axis=0)).max()) < CLEAR and contrast(pixels) < BLANK


def thumbnail(pixels: Pixels, side: int = 16) -> NDArray[np.float32]:
    """(side, side, 3) by area averaging, 0 to 255."""
    small: NDArray[np.float32] = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """(height, width, 3), the whole picture, its shape not kept; area averaging down, cubic up."""
    down = max(pixels.shape[:2]) >= height
    changed: Pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if down else cv2.INTER_CUBIC)
    return changed


def shrunk(pixels: Pixels, longest: int) -> Pixels:
    """The picture with its longer side at most so many pixels, its shape kept."""
    scale = min(1.0, longest / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    smaller: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return smaller


def perceptual_hash(pixels: Pixels) -> int:
    """64 bits: the signs of the lowest 8×8 cosine coefficients of the grey 32×32 picture (pHash, Zauner 2010)."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    low[0] = np.median(low[1:])  # the mean brightness says nothing about the content
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
