"""Masks as COCO's compressed run-length encoding: JSON of {"size": [height, width], "counts": "…"}.

faster-coco-eval, of the extra `boxes`, has the encoding; boxes without masks do not need it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.boxes.annotations import Box
from seedling.extras import require

FEATURE = "Masks of objects"
MAX_MEGAPIXELS = 64.0  # of a mask, as of an image


def compressed_mask(segmentation: Any, size: tuple[int | None, int | None]) -> str:
    """The mask of a COCO segmentation: polygons, or a run-length encoding, compressed or not.

    size: width and height of the image, which polygons need. Raises ValueError if it cannot be read.
    """
    require("boxes", FEATURE)
    from faster_coco_eval import mask

    if isinstance(segmentation, dict):
        height, width = _size_of(segmentation)
        counts = segmentation.get("counts")
        if isinstance(counts, list):
            if not all(isinstance(count, int) and count >= 0 for count in counts) or sum(counts) != height * width:
                raise ValueError(f"the counts of the mask do not add up to {width} × {height} pixels")
            encoded = mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
            return _as_json(encoded)
        if isinstance(counts, str) and counts:
            text = _as_json({"size": [height, width], "counts": counts.encode("ascii")})
            decode_mask(text)
            return text
        raise ValueError("a run-length encoding needs `counts`")
    width_of_image, height_of_image = size
    if width_of_image is None or height_of_image is None:
        raise ValueError("a polygon needs the width and height of its image")
    polygons = segmentation if isinstance(segmentation, list) else []
    if not polygons or not all(_is_polygon(polygon) for polygon in polygons):
        raise ValueError("a polygon needs three points, as x and y in turn")
    longest_side = max(width_of_image, height_of_image)
    if max(abs(value) for polygon in polygons for value in polygon) > 2 * longest_side:
        raise ValueError("a polygon is far outside the image")
    parts = mask.frPyObjects(
        [[float(value) for value in polygon] for polygon in polygons], height_of_image, width_of_image
    )
    return _as_json(mask.merge(parts))


def _size_of(segmentation: dict[str, Any]) -> tuple[int, int]:
    size = segmentation.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError("a run-length encoding needs `size`, as height and width")
    if size[0] * size[1] > MAX_MEGAPIXELS * 1e6:
        raise ValueError(f"a mask of {size[1]:,} × {size[0]:,} pixels exceeds {MAX_MEGAPIXELS:g} megapixels")
    return size[0], size[1]


def _is_polygon(polygon: Any) -> bool:
    if not isinstance(polygon, list):
        return False
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in polygon)
    return numbers and len(polygon) >= 6 and len(polygon) % 2 == 0 and bool(np.isfinite(polygon).all())


def encode_mask(pixels: NDArray[np.bool_]) -> str:
    """The mask of (height, width) pixels."""
    require("boxes", FEATURE)
    from faster_coco_eval import mask

    return _as_json(mask.encode(np.asfortranarray(pixels, dtype=np.uint8)))


def decode_mask(text: str) -> NDArray[np.bool_]:
    """(height, width): whether each pixel belongs to the object. Raises ValueError for a damaged mask."""
    require("boxes", FEATURE)
    from faster_coco_eval import mask

    content = json.loads(text)
    return np.asarray(mask.decode({"size": content["size"], "counts": content["counts"].encode("ascii")}), dtype=bool)


def mask_pixels(text: str) -> int:
    """The number of pixels of the object."""
    return int(decode_mask(text).sum())


def box_of_mask(text: str) -> Box | None:
    """The smallest box around the pixels of the object; None if there are none."""
    rows, columns = np.nonzero(decode_mask(text))
    if not len(rows):
        return None
    left, top = int(columns.min()), int(rows.min())
    return (float(left), float(top), float(columns.max() - left + 1), float(rows.max() - top + 1))


def _as_json(encoded: dict[str, Any]) -> str:
    counts = encoded["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return json.dumps({"size": [int(side) for side in encoded["size"]], "counts": text}, separators=(",", ":"))
