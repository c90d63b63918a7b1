"""Checks of a single row: it can be read, it is large enough, and it is not blank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import Row
from seedling.media import images, texts
from seedling.media import quality_metrics as metrics
from seedling.media.image_metadata import UPRIGHT, read_metadata

THUMBNAIL_SIDE = 16  # pixels


@dataclass(slots=True)
class CheckedRow:
    """A row without its image, and what validate found out about it.

    reason: the reason code if the row is rejected; near_key, thumbnail: compared to find near-duplicates; signals:
    quality metrics (seedling/media/quality_metrics.py); quality_codes: the quality issues; label_issue: the columns
    about the label's correctness; original_label: the label before a repair, None if it was not changed; near_group:
    the smallest id among the near-duplicates, which may be fewer rows than the group; source_groups: the groups that
    the row's sources define; spans_sources: whether its near-duplicates are in several source groups.
    """

    row: Row
    reason: str | None
    near_key: int | str | None = None
    thumbnail: NDArray[np.uint8] | None = None
    signals: Mapping[str, Any] = field(default_factory=dict)
    quality_codes: list[str] = field(default_factory=list)
    label_issue: Mapping[str, Any] = field(default_factory=dict)
    original_label: str | None = None
    near_group: str | None = None
    source_groups: frozenset[str] = frozenset()
    spans_sources: bool = False


def check_row(row: Row, params: ValidateParams, config: WorkspaceConfig) -> CheckedRow:
    """Check one row by itself."""
    if config.modality == "text":
        return _check_text(row, str(row.payload or ""), params)
    without_image = replace(row, payload=None)
    try:
        pixels = images.decode(bytes(row.payload or b""), config.max_megapixels)  # type: ignore[arg-type]
    except images.Undecodable as error:
        return CheckedRow(without_image, str(error))
    if min(pixels.shape[:2]) < params.min_side:
        return CheckedRow(without_image, "too_small")
    if images.contrast(pixels) < params.blank_contrast:
        return CheckedRow(without_image, "blank")
    thumbnail = images.thumbnail(pixels, THUMBNAIL_SIDE).round().astype(np.uint8).ravel()
    metadata = read_metadata(bytes(row.payload or b""))  # type: ignore[arg-type]
    flags = {"rotated_by_exif": metadata.orientation != UPRIGHT, "location_metadata": metadata.has_location}
    signals = metrics.image_metrics(pixels) | flags
    return CheckedRow(without_image, None, images.perceptual_hash(pixels), thumbnail, signals)


def _check_text(row: Row, text: str, params: ValidateParams) -> CheckedRow:
    if not any(character.isprintable() and not character.isspace() for character in text):
        return CheckedRow(row, "empty")
    if len(text) < params.min_characters:
        return CheckedRow(row, "too_short")
    return CheckedRow(row, None, texts.normalized(text), signals=metrics.text_metrics(text))
