"""Decoded images that are kept while they may be needed again, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict

from seedling.media import images

MAX_KEPT_BYTES = 128 * 2**20  # of pixels


class DecodedImages:
    """Decodes each image once, as long as the latest ones fit into `max_bytes`. Several threads may use it.

    max_megapixels: as for `decode`; max_side: larger images are reduced to it, None to keep their size. The pixels are
    shared, so that they are read-only.
    """

    def __init__(self, max_megapixels: float, *, max_side: int | None = None, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._max_megapixels, self._max_side, self._max_bytes = max_megapixels, max_side, max_bytes
        self._kept: OrderedDict[bytes, images.Pixels] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def __call__(self, encoded: bytes) -> images.Pixels:
        """Return the pixels of an encoded image. Raises Undecodable as `decode` does."""
        with self._lock:
            if encoded in self._kept:
                self._kept.move_to_end(encoded)
                return self._kept[encoded]
        pixels = images.decode(encoded, self._max_megapixels)
        if self._max_side is not None:
            pixels = images.shrunk(pixels, self._max_side)
        pixels.setflags(write=False)
        with self._lock:
            if encoded not in self._kept:
                self._kept[encoded] = pixels
                self._n_bytes += pixels.nbytes
            while self._n_bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._n_bytes -= oldest.nbytes
        return pixels
