"""Prepare image files for other people: upright, and without the location, the author and the camera."""

from __future__ import annotations

import numpy as np

from seedling.media import images
from seedling.media.image_metadata import UPRIGHT, read_metadata, without_metadata
from seedling.media.image_parts import GIF_SIGNATURES
from seedling.media.tiff_parts import NotWalkable

SUFFIX_OF = {
    **{b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp", b"BM": "bmp", b"GIF8": "gif"},
    **{b"II": "tif", b"MM": "tif"},
}


def image_for_others(encoded: bytes, max_megapixels: float) -> bytes:
    """Remove EXIF, XMP, IPTC and comments from the file. The pixels and the color profile stay the same.

    An image that is stored rotated is written upright as PNG, with the pixels that Seedling uses. The same applies to a
    TIFF whose directory cannot be read, and to a damaged GIF whose pixels change without its comments.

    Raises Undecodable if such a file cannot be decoded.
    """
    try:
        if read_metadata(encoded).orientation == UPRIGHT:
            stripped = without_metadata(encoded, keep_color=True)
            if (
                stripped == encoded
                or not encoded.startswith(GIF_SIGNATURES)
                or _same_pixels(stripped, encoded, max_megapixels)
            ):
                return stripped
    except NotWalkable:
        pass
    return images.encode(images.decode(encoded, max_megapixels))


def _same_pixels(stripped: bytes, encoded: bytes, max_megapixels: float) -> bool:
    """Whether both files decode to the same pixels; False if either cannot be decoded."""
    try:
        return np.array_equal(images.decode(stripped, max_megapixels), images.decode(encoded, max_megapixels))
    except images.Undecodable:
        return False


def suffix_of(encoded: bytes) -> str:
    """Returns the file name extension of an image, by its first bytes."""
    return next((suffix for start, suffix in SUFFIX_OF.items() if encoded.startswith(start)), "png")
