"""Decode images, with limits on the number of pixels and on the decoding work.

The format is detected from the content, never from the file name. The structure of a file is read before any pixel, so
that a decompression bomb is rejected after a few bytes. Expensive images within the limits are decoded in a separate
process with a limit on its processor time.
"""

from __future__ import annotations

import io
import logging
import warnings
from math import ceil

from PIL import Image

from seedling.media.decoding_limits import TOO_SLOW, share_of_limit
from seedling.media.decoding_process import answer_of_process, serve_answers
from seedling.media.image_metadata import read_metadata, without_metadata
from seedling.media.image_modes import OUT_OF_RANGE, Color, Pixels, ValuesOutOfRange, is_transparent, to_rgb

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation → transposition
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged files are reported by reason codes, not on standard error
logging.getLogger("PIL").setLevel(logging.CRITICAL)

MIN_SHARE_FOR_PROCESS = 0.25  # of the work limit; more expensive images are decoded in a separate process


class Undecodable(ValueError):
    """The bytes cannot be decoded as an image. The message is the reason code."""


def decode(
    encoded: bytes,
    max_megapixels: float = 64.0,
    background: Color | None = None,
    *,
    ends_itself: bool = False,
    longest: int | None = None,
) -> Pixels:
    """Decode the first frame or page of an image as RGB, (height, width, 3), with the EXIF orientation applied.

    seedling/media/image_modes.py converts deep values and transparency to RGB. Damaged metadata is ignored.

    Args:
        encoded: the content of the file.
        max_megapixels: the maximum size.
        background: the color behind transparent images; None: a color on which they are visible.
        ends_itself: whether this process may end if an image takes too long, so that it decodes expensive images too.
        longest: the pixels of the longer side that are needed, for a view: a JPEG is decoded in a half, a quarter or an
            eighth of its size if that is enough, which takes a fraction of the time. None: all pixels.

    Raises:
        Undecodable: `empty_file`, `undecodable` (not one of FORMATS, or damaged), `too_many_pixels`,
            `too_slow_to_decode`, `values_out_of_range`.
    """
    if not encoded:
        raise Undecodable("empty_file")
    share = share_of_limit(encoded, max_megapixels)
    if share > 1:
        raise Undecodable(TOO_SLOW)
    if ends_itself or share < MIN_SHARE_FOR_PROCESS:
        return decode_here(encoded, max_megapixels, background, longest)
    answer = answer_of_process(__name__, encoded, max_megapixels, background)
    if isinstance(answer, str):
        raise Undecodable(answer)
    return answer


def decode_here(
    encoded: bytes, max_megapixels: float, background: Color | None = None, longest: int | None = None
) -> Pixels:
    """Decode as `decode` does, but in this process and without the limits on the work."""
    try:
        return _decode_upright(encoded, max_megapixels, background, longest)
    except Undecodable:
        raise
    except ValuesOutOfRange as error:
        raise Undecodable(OUT_OF_RANGE) from error
    except Image.DecompressionBombError as error:
        raise Undecodable("too_many_pixels") from error
    except Exception as error:
        raise Undecodable("undecodable") from error


def _decode_upright(encoded: bytes, max_megapixels: float, background: Color | None, longest: int | None) -> Pixels:
    image = _open(encoded)
    if image.width * image.height > max_megapixels * 1e6:
        raise Undecodable("too_many_pixels")
    if longest is not None:
        scale = longest / max(image.size)
        image.draft(None, (max(1, ceil(image.width * scale)), max(1, ceil(image.height * scale))))
    image.load()
    if image.format != "TIFF":  # Pillow applies the orientation of a TIFF itself
        turn = TURNS.get(read_metadata(encoded).orientation)
        image = image if turn is None else image.transpose(turn)
    return to_rgb(image, background)


def _open(encoded: bytes) -> Image.Image:
    """Read the header of the image. Raises Pillow's exceptions and ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged tags, and about pixels, which `decode` limits
        return Image.open(io.BytesIO(without_metadata(encoded)), formats=FORMATS)


def may_be_transparent(encoded: bytes) -> bool:
    """Whether the image's header declares transparency; False without a readable header."""
    try:
        return is_transparent(_open(encoded))
    except Exception:  # noqa: BLE001  (decoding reports the error)
        return False


def megapixels(encoded: bytes) -> float:
    """The size of an image according to its header, in megapixels; 0 without a readable header."""
    try:
        image = _open(encoded)
        return image.width * image.height / 1e6
    except Exception:  # noqa: BLE001  (decoding reports the error)
        return 0.0


def shorter_side(encoded: bytes, max_megapixels: float = 64.0) -> int:
    """The shorter side of an image in pixels, from its header; from its pixels if the header cannot be read.

    Raises Undecodable as `decode` does if neither can be read.
    """
    try:
        return int(min(_open(encoded).size))
    except Exception:  # noqa: BLE001  (decoding reports the error)
        return int(min(decode(encoded, max_megapixels).shape[:2]))


if __name__ == "__main__":  # the process that `decode` starts
    serve_answers(decode_here, Undecodable)
