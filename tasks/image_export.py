"""Image files as they are handed to others: without what they say of place, author and camera, and upright."""

from __future__ import annotations

from tasks import images
from tasks.image_metadata import UPRIGHT, read_metadata, without_metadata
from tasks.tiff_parts import NotWalkable


def image_for_others(encoded: bytes, max_megapixels: float) -> bytes:
    """The file without EXIF, XMP, IPTC and comments, its pixels as they were, its color profile kept.

    An image that is stored turned is written upright as PNG, which loses nothing of what Seedling sees of it. So is a TIFF
    whose directory cannot be walked. Raises Undecodable where such a file cannot be decoded.
    """
    try:
        if read_metadata(encoded).orientation == UPRIGHT:
            return without_metadata(encoded, keep_color=True)
    except NotWalkable:
        pass
    return images.encode(images.decode(encoded, max_megapixels))
