"""The feature cache of images: what needs their pixels is computed when they are decoded first, in scrape.

Later stages read the signals and small copies of the images by id instead of decoding the images again. An id is a
hash of the pixels, so that a cached value never belongs to other pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from seedling.features.feature_cache import FeatureCache
from seedling.media import images
from seedling.media.image_signals import VERSION, ImageSignals


@dataclass(frozen=True)
class ImageRecord:
    """What is kept of a decoded image. signals: see `ImageSignals.to_bytes`; copy: (side, side, 3), None for none."""

    signals: bytes
    side: int
    copy: bytes | None

    @classmethod
    def of(cls, pixels: images.Pixels, *, copy: bool = True) -> ImageRecord:
        """Measure an image; with `copy`, also resize it."""
        side = images.feature_side(min(pixels.shape[:2]))
        resized = images.resized(pixels, side, side).tobytes() if copy else None
        return cls(ImageSignals.of(pixels).to_bytes(), side, resized)


@dataclass(frozen=True)
class ImageCache:
    """Cached signals and small copies of a workspace's images.

    folder: of the feature cache; keeps_copies: False with an encoder, which needs larger images.
    """

    folder: Path
    keeps_copies: bool = True
    _signals: FeatureCache = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_signals", FeatureCache(self.folder, key_of("signals", VERSION)))

    def put(self, records: Sequence[tuple[str, ImageRecord]]) -> None:
        """Store records by row id."""
        self._signals.store([(row_id, record.signals) for row_id, record in records])
        for side in {record.side for _, record in records}:
            of_side = [(row_id, record.copy) for row_id, record in records if record.side == side and record.copy]
            if of_side:
                self._copies(side).store(of_side)

    def signals(self, ids: Sequence[str]) -> dict[str, ImageSignals]:
        """Return the cached signals of these rows."""
        stored = self._signals.stored(ids)
        return {row_id: ImageSignals.from_bytes(content) for row_id, content in stored.items()}

    def copies(self, ids: Sequence[str], side: int) -> dict[str, images.Pixels]:
        """Return the cached copies with this side."""
        stored = self._copies(side).stored(ids)
        return {row_id: np.frombuffer(content, np.uint8).reshape(side, side, 3) for row_id, content in stored.items()}

    def _copies(self, side: int) -> FeatureCache:
        return FeatureCache(self.folder, key_of("copies", side))


def measured(payload: bytes, max_megapixels: float) -> ImageSignals | str:
    """Return the signals of an encoded image, or the reason why it cannot be decoded."""
    try:
        return ImageSignals.of(images.decode(payload, max_megapixels))
    except images.Undecodable as error:
        return str(error)


def key_of(extractor: str, *parameters: object) -> str:
    """Return the name of a cache. OpenCV computes what is in it, so that its version is part of the name."""
    return "-".join(map(str, ("image", extractor, *parameters, cv2.__version__)))
