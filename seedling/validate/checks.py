"""Checks of a single row: it can be read, it is large enough, and it is not blank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import Row
from seedling.features.image_cache import measured
from seedling.media import texts
from seedling.media.image_metadata import UPRIGHT, read_metadata
from seedling.media.image_signals import ImageSignals
from seedling.media.quality_metrics import text_metrics


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """Whether a row's label is wrong. p_label_error: 0 to 1; suggested_label: the most probable other class."""

    p_label_error: float
    suggested_label: str
    is_label_issue: bool


@dataclass(slots=True)
class CheckedRow:
    """A row without its image, and what validate found out about it.

    reason: the reason code if the row is rejected; near_key, thumbnail: compared to find near-duplicates; signals:
    quality metrics (seedling/media/quality_metrics.py); quality_codes: the quality issues; label_issue: None if
    the label was not evaluated; original_label: the label before a repair or a review, None if it was not changed;
    is_labeled_by_review: whether the data has no label from a person, but a reviewer has given one; near_group:
    the smallest id among the near-duplicates, which may be fewer rows than the group; source_groups: the groups that
    the row's sources define; spans_sources: whether its near-duplicates are in several source groups.
    """

    row: Row
    reason: str | None
    near_key: int | str | None = None
    thumbnail: NDArray[np.uint8] | None = None
    signals: Mapping[str, Any] = field(default_factory=dict)
    quality_codes: list[str] = field(default_factory=list)
    label_issue: LabelIssue | None = None
    original_label: str | None = None
    is_labeled_by_review: bool = False
    near_group: str | None = None
    source_groups: frozenset[str] = frozenset()
    spans_sources: bool = False


def check_row(
    row: Row, cached: ImageSignals | None = None, *, params: ValidateParams, config: WorkspaceConfig
) -> CheckedRow:
    """Check one row by itself. cached: the signals of its image; None: the image is decoded and measured."""
    if config.modality == "text":
        return _check_text(row, str(row.payload or ""), params)
    without_image, encoded = replace(row, payload=None), bytes(row.payload or b"")  # type: ignore[arg-type]
    signals = measured(encoded, config.max_megapixels) if cached is None else cached
    if isinstance(signals, str):
        return CheckedRow(without_image, signals)
    metrics = signals.metrics
    if min(metrics["width"], metrics["height"]) < params.min_side:
        return CheckedRow(without_image, "too_small")
    if metrics["contrast"] < params.blank_contrast:
        return CheckedRow(without_image, "blank")
    metadata = read_metadata(encoded)
    flags = {"rotated_by_exif": metadata.orientation != UPRIGHT, "location_metadata": metadata.has_location}
    return CheckedRow(without_image, None, signals.perceptual_hash, signals.thumbnail, metrics | flags)


def _check_text(row: Row, text: str, params: ValidateParams) -> CheckedRow:
    if not any(character.isprintable() and not character.isspace() for character in text):
        return CheckedRow(row, "empty")
    if len(text) < params.min_characters:
        return CheckedRow(row, "too_short")
    return CheckedRow(row, None, texts.normalized(text), signals=text_metrics(text))
