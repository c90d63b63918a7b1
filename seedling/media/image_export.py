"""Image files as they are handed to others: without what they say of place, author and camera, and upright."""

from __future__ import annotations

import numpy as np

from seedling.media import images
from seedling.media.image_metadata import UPRIGHT, read_metadata, without_metadata
from seedling.media.image_parts import GIF_SIGNATURES
from seedling.media.tiff_parts import NotWalkable


def image_for_others(encoded: bytes, max_megapixels: float) -> bytes:
    """The file without EXIF, XMP, IPTC and comments, its pixels as they were, its color profile kept.

    An image that is stored turned is written upright as PNG, which loses nothing of what Seedling sees of it. So are a TIFF
    whose directory cannot be walked, and a damaged GIF whose pixels change without its comments. Raises Undecodable where such a
    file cannot be decoded.
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
