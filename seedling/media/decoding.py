"""Decodes images under limits of pixels and of work.

Decoding goes by content, never by a file's name. A file's structure is read before any pixel, so that a decompression bomb
is refused for the price of a few bytes. What costs much within the limits is decoded in a process that ends when it takes
longer than anything should.
"""

from __future__ import annotations

import io
import logging
import warnings

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
}  # by EXIF's orientation
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged files are told by their reasons, not on standard error
logging.getLogger("PIL").setLevel(logging.CRITICAL)

MIN_SHARE_FOR_PROCESS = 0.25  # of the limit of work, from which on an image is decoded in a process of its own


class Undecodable(ValueError):
    """These bytes give no image; the message is the reason code."""


def decode(
    encoded: bytes, max_megapixels: float = 64.0, background: Color | None = None, *, ends_itself: bool = False
) -> Pixels:
    """The image as RGB, (height, width, 3); EXIF orientation applied, the first frame or page. Deep values and transparency are brought to RGB by
    seedling/media/image_modes.py. What is wrong with the file's metadata costs nothing. background: of transparent images; None: what shows them.
    ends_itself: whether this process ends where an image takes too long, so that costly ones need no process of their own.

    Raises Undecodable: `empty_file`, `undecodable` (not one of FORMATS, or broken), `too_many_pixels`, `too_slow_to_decode`, `values_out_of_range`.
    """
    if not encoded:
        raise Undecodable("empty_file")
    share = share_of_limit(encoded, max_megapixels)
    if share > 1:
        raise Undecodable(TOO_SLOW)
    if ends_itself or share < MIN_SHARE_FOR_PROCESS:
        return decode_here(encoded, max_megapixels, background)
    answer = answer_of_process(__name__, encoded, max_megapixels, background)
    if isinstance(answer, str):
        raise Undecodable(answer)
    return answer


def decode_here(encoded: bytes, max_megapixels: float, background: Color | None = None) -> Pixels:
    """As `decode`, in this process, without the limits of work."""
    try:
        return _decode_upright(encoded, max_megapixels, background)
    except Undecodable:
        raise
    except ValuesOutOfRange as error:
        raise Undecodable(OUT_OF_RANGE) from error
    except Image.DecompressionBombError as error:
        raise Undecodable("too_many_pixels") from error
    except Exception as error:
        raise Undecodable("undecodable") from error


def _decode_upright(encoded: bytes, max_megapixels: float, background: Color | None) -> Pixels:
    image = _open(encoded)
    if image.width * image.height > max_megapixels * 1e6:
        raise Undecodable("too_many_pixels")
    image.load()
    if image.format != "TIFF":  # which Pillow turns by itself
        turn = TURNS.get(read_metadata(encoded).orientation)
        image = image if turn is None else image.transpose(turn)
    return to_rgb(image, background)


def _open(encoded: bytes) -> Image.Image:
    """The image with its header read. Raises whatever Pillow raises, and ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pixels, for which our own limit stands in `decode`, and of damaged tags
        return Image.open(io.BytesIO(without_metadata(encoded)), formats=FORMATS)


def may_be_transparent(encoded: bytes) -> bool:
    """By the image's header; false where there is none."""
    try:
        return is_transparent(_open(encoded))
    except Exception:  # noqa: BLE001  (decoding says what is wrong with it)
        return False


def megapixels(encoded: bytes) -> float:
    """Of an image by its header alone; 0 where there is none."""
    try:
        image = _open(encoded)
        return image.width * image.height / 1e6
    except Exception:  # noqa: BLE001  (decoding says what is wrong with it)
        return 0.0


if __name__ == "__main__":  # the process that `decode` starts
    serve_answers(decode_here, Undecodable)
