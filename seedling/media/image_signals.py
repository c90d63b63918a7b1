"""What is measured on a decoded image: quality metrics, and a hash and a thumbnail that find near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seedling.media import images
from seedling.media.quality_metrics import IMAGE, image_metrics

THUMBNAIL_SIDE = 16  # pixels
VERSION = "1"  # of the measurements; part of the key of cached signals
PIXEL_METRICS = {"width", "height"}  # are whole numbers


@dataclass(frozen=True, slots=True)
class ImageSignals:
    """The signals of an image, which depend on its pixels alone.

    metrics: see `image_metrics`; perceptual_hash: 64 bits; thumbnail: (THUMBNAIL_SIDE² · 3,).
    """

    metrics: dict[str, float]
    perceptual_hash: int
    thumbnail: NDArray[np.uint8]

    @classmethod
    def of(cls, pixels: images.Pixels) -> ImageSignals:
        """Measure an image."""
        thumbnail = images.thumbnail(pixels, THUMBNAIL_SIDE).round().astype(np.uint8).ravel()
        return cls(image_metrics(pixels), images.perceptual_hash(pixels), thumbnail)

    def to_bytes(self) -> bytes:
        """Return the signals with their full precision, for a cache."""
        metrics = np.array([self.metrics[name] for name in IMAGE], np.float64)
        return metrics.tobytes() + np.uint64(self.perceptual_hash).tobytes() + self.thumbnail.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> ImageSignals:
        """Read what `to_bytes` returned."""
        metrics = np.frombuffer(content, np.float64, len(IMAGE)).tolist()
        end = 8 * len(IMAGE)
        values = {
            name: int(value) if name in PIXEL_METRICS else value for name, value in zip(IMAGE, metrics, strict=True)
        }
        return cls(
            values, int(np.frombuffer(content, np.uint64, 1, end)[0]), np.frombuffer(content, np.uint8, -1, end + 8)
        )
