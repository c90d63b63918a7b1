"""What is looked at in a row by itself: can it be read, is it large enough, is anything on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import Row
from seedling.media import images, texts
from seedling.media import quality_metrics as signals
from seedling.media.image_metadata import UPRIGHT, read_metadata

THUMBNAIL_SIDE = 16


@dataclass(slots=True)
class CheckedRow:
    """A row without its image, and what was seen of it: the reason to drop it, or the marks that duplicates share and what was
    measured (seedling/media/quality_metrics.py), its quality codes, the doubt about its label, and the label as it was given where it was changed.
    """

    row: Row
    reason: str | None
    near_key: int | str | None = None
    thumbnail: NDArray[np.uint8] | None = None
    signals: Mapping[str, Any] = field(default_factory=dict)
    codes: list[str] = field(default_factory=list)
    doubt: Mapping[str, Any] = field(default_factory=dict)
    given: str | None = None
    near: str | None = None  # the smallest id among its near-duplicates, where its group may be larger
    sources: frozenset[str] = frozenset()  # the source groups that it was found in
    shared: bool = False  # its near-duplicates were found in several


def look(row: Row, params: ValidateParams, facts: WorkspaceConfig) -> CheckedRow:
    """Checks one row by itself."""
    if facts.modality == "text":
        return _look_at_text(row, str(row.payload or ""), params)
    light = replace(row, payload=None)
    try:
        pixels = images.decode(bytes(row.payload or b""), facts.max_megapixels)  # type: ignore[arg-type]
    except images.Undecodable as error:
        return CheckedRow(light, str(error))
    if min(pixels.shape[:2]) < params.min_side:
        return CheckedRow(light, "too_small")
    if images.contrast(pixels) < params.blank_contrast:
        return CheckedRow(light, "blank")
    small = images.thumbnail(pixels, THUMBNAIL_SIDE).round().astype(np.uint8).ravel()
    metadata = read_metadata(bytes(row.payload or b""))  # type: ignore[arg-type]
    said = {"rotated_by_exif": metadata.orientation != UPRIGHT, "location_metadata": metadata.has_location}
    return CheckedRow(light, None, images.perceptual_hash(pixels), small, signals.of_image(pixels) | said)


def _look_at_text(row: Row, text: str, params: ValidateParams) -> CheckedRow:
    if not any(one.isprintable() and not one.isspace() for one in text):  # blanks and invisible characters alone
        return CheckedRow(row, "empty")
    if len(text) < params.min_characters:
        return CheckedRow(row, "too_short")
    return CheckedRow(row, None, texts.normalized(text), signals=signals.of_text(text))
