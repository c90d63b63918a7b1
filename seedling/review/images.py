"""Images for the review page: decoded, reduced and encoded again, so that the browser never gets a stranger's file."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seedling.dataset.generation import SinglePayloads
from seedling.errors import IncompleteGeneration
from seedling.media import images
from seedling.workspace import Workspace

THUMBNAIL_SIDE, SCREEN_SIDE, MAX_SIDE = 256, 1_600, 4_096  # pixels of the longer side
MAX_LOSSLESS_SIDE = 512  # images up to this size are sent as PNG, whose pixels are exact
ENLARGED_SIDE = 512  # small images are enlarged to about this size: browsers blur the edges of a few pixels
JPEG_QUALITY = 85
MAX_CACHE_BYTES = 64 * 2**20
MAX_WAIT_SECONDS = 0.25  # of background work for images, per row


class ReviewImages:
    """Gives the images of rows in a size for the screen, and keeps the latest ones."""

    def __init__(self, workspace: Path, max_megapixels: float) -> None:
        self._read = SinglePayloads(Workspace(workspace).generation("scrape"))
        self._max_megapixels = max_megapixels
        self._cache: OrderedDict[tuple[str, int], tuple[bytes, str]] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()
        # Decoded images are large; more of them at once take memory and delay the answers, but are not sooner ready.
        self._decoding = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._n_requested, self._changed = 0, threading.Condition()

    def get(self, row_id: str, side: int) -> tuple[bytes, str]:
        """Return the encoded image and its media type. side: maximum pixels of the longer side, 0 for the largest.

        Raises Undecodable for a damaged or too large image, and a SeedlingError if the row's image is not there.
        """
        longest = MAX_SIDE if side <= 0 else min(side, MAX_SIDE)
        with self._lock:
            if (row_id, longest) in self._cache:
                self._cache.move_to_end((row_id, longest))
                return self._cache[row_id, longest]
        with self._counted_request(), self._decoding:
            return self._render(row_id, side, longest)

    @contextmanager
    def _counted_request(self) -> Iterator[None]:
        with self._changed:
            self._n_requested += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_requested -= 1
                self._changed.notify_all()

    def wait_until_idle(self, timeout_seconds: float = MAX_WAIT_SECONDS) -> None:
        """Wait until no page waits for an image, so that background work does not delay it."""
        with self._changed:
            self._changed.wait_for(lambda: self._n_requested == 0, timeout_seconds)

    def _render(self, row_id: str, side: int, longest: int) -> tuple[bytes, str]:
        payload = self._read([row_id]).get(row_id)
        if not isinstance(payload, bytes):
            raise IncompleteGeneration(f"The data has no image of row {row_id}.")
        pixels = images.shrunk(images.decode(payload, self._max_megapixels, longest=longest), longest)
        if side > 0:
            pixels = _enlarged(pixels, min(side, ENLARGED_SIDE))
        if max(pixels.shape[:2]) <= MAX_LOSSLESS_SIDE:
            encoded, media_type = images.encode(pixels), "image/png"
        else:
            encoded, media_type = images.compressed(pixels, JPEG_QUALITY), "image/jpeg"
        self._keep((row_id, longest), encoded, media_type)
        return encoded, media_type

    def _keep(self, key: tuple[str, int], encoded: bytes, media_type: str) -> None:
        with self._lock:
            if key in self._cache:
                return
            self._cache[key] = encoded, media_type
            self._cached_bytes += len(encoded)
            while self._cached_bytes > MAX_CACHE_BYTES:
                _, (oldest, _) = self._cache.popitem(last=False)
                self._cached_bytes -= len(oldest)


def _enlarged(pixels: images.Pixels, longest: int) -> images.Pixels:
    """Repeat each pixel as often as the longer side allows."""
    factor = longest // max(pixels.shape[:2])
    return pixels if factor < 2 else pixels.repeat(factor, axis=0).repeat(factor, axis=1)
