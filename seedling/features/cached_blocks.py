"""Classical features of images by id: computed once per workspace, from the small copies that scrape kept if it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedling.dataset.generation import PayloadReader
from seedling.features.classical import Measure, pieces_of, raw_blocks
from seedling.features.feature_cache import FeatureCache
from seedling.features.image_cache import ImageCache, key_of
from seedling.media import images
from seedling.media.images import Pixels
from seedling.parallel.pool import in_pieces
from seedling.progress import Progress

VERSION = "1"  # of the blocks; part of the key
ROWS_PER_READ = 512  # that are read from the caches at a time


class BlockCache:
    """Cached network images and raw feature blocks of `Measure`, by row id."""

    def __init__(self, folder: Path, measure: Measure) -> None:
        self._cache = FeatureCache(folder, key_of("classical", measure.side, measure.network_side, VERSION))
        self._image_shape = (measure.network_side, measure.network_side, 3)
        no_images = np.zeros((0, measure.side, measure.side, 3), np.uint8)
        self._widths = [block.shape[1] for block in raw_blocks(no_images)]

    def empty(self, n_rows: int) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]]]:
        """Return arrays to be filled: (n_rows, network_side, network_side, 3), and (n_rows, ·) per block."""
        return np.empty((n_rows, *self._image_shape), np.uint8), [
            np.empty((n_rows, width), np.float32) for width in self._widths
        ]

    def read(self, ids: Sequence[str]) -> dict[str, tuple[NDArray[np.uint8], list[NDArray[np.float32]]]]:
        """Return the network image and the blocks of the cached rows among these."""
        n_image_bytes, ends = int(np.prod(self._image_shape)), np.cumsum(self._widths)[:-1]
        return {
            row_id: (
                np.frombuffer(value, np.uint8, n_image_bytes).reshape(self._image_shape),
                np.split(np.frombuffer(value, np.float32, -1, n_image_bytes), ends),
            )
            for row_id, value in self._cache.stored(ids).items()
        }

    def write(self, ids: Sequence[str], image_arrays: NDArray[np.uint8], blocks: list[NDArray[np.float32]]) -> None:
        """Store the network images and blocks of these rows."""
        joined = np.concatenate(blocks, axis=1)
        pairs = zip(image_arrays, joined, strict=True)
        values = [image.tobytes() + features.tobytes() for image, features in pairs]
        self._cache.store(list(zip(ids, values, strict=True)))


def blocks_of_rows(
    measure: Measure, ids: Sequence[str], read: PayloadReader, folder: Path, progress: Progress
) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]]]:
    """Return the network images and the raw feature blocks of these rows, as `Measure` computes them.

    ids: in the order in which `read` yields them; folder: of the feature cache.
    """
    cache, copies = BlockCache(folder, measure), ImageCache(folder)
    image_arrays, blocks = cache.empty(len(ids))
    missing: list[int] = []

    def fill(
        rows: Sequence[int] | slice, images_of_rows: NDArray[np.uint8], blocks_of: list[NDArray[np.float32]]
    ) -> None:
        image_arrays[rows] = images_of_rows
        for block, values in zip(blocks, blocks_of, strict=True):
            block[rows] = values

    for first in range(0, len(ids), ROWS_PER_READ):
        cached = cache.read(ids[first : first + ROWS_PER_READ])
        for row, row_id in enumerate(ids[first : first + ROWS_PER_READ], first):
            if row_id in cached:
                small, values = cached[row_id]
                fill(slice(row, row + 1), small[None], [block[None] for block in values])
            else:
                missing.append(row)
    n_done, total = len(ids) - len(missing), len(ids)
    progress("compute features", n_done, total)
    remaining = iter(missing)
    sources = _copies_or_payloads([ids[row] for row in missing], measure.side, read, copies)
    for small_images, raw in in_pieces(measure, pieces_of(sources)):
        rows = [next(remaining) for _ in range(len(small_images))]
        fill(rows, small_images, raw)
        cache.write([ids[row] for row in rows], small_images, raw)
        n_done += len(rows)
        progress("compute features", n_done, total)
    return image_arrays, blocks


def shorter_sides(ids: Sequence[str], read: PayloadReader, folder: Path, max_megapixels: float) -> list[float]:
    """Return the shorter side of each image in pixels: as scrape measured it, or from the image's header."""
    metrics = {row_id: signals.metrics for row_id, signals in ImageCache(folder).signals(ids).items()}
    sides = {row_id: min(values["width"], values["height"]) for row_id, values in metrics.items()}
    for row_id, payload in read([row_id for row_id in ids if row_id not in sides]):
        sides[row_id] = images.shorter_side(bytes(payload), max_megapixels)  # type: ignore[arg-type]
    return list(sides.values())


def _copies_or_payloads(
    ids: Sequence[str], side: int, read: PayloadReader, cache: ImageCache
) -> Iterator[bytes | Pixels]:
    """Yield the cached copy of each row, or its encoded image."""
    for first in range(0, len(ids), ROWS_PER_READ):
        block = ids[first : first + ROWS_PER_READ]
        copies = cache.copies(block, side)
        payloads = dict(read([row_id for row_id in block if row_id not in copies]))
        for row_id in block:
            yield copies[row_id] if row_id in copies else bytes(payloads[row_id])  # type: ignore[arg-type]
