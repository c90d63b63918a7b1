"""Manifests and their parts for tests that need no rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seedling.records.intervals import EstimateRecord
from seedling.records.manifest import LabelCount, Manifest, RowCounts
from seedling.records.stage_notes import LabelIssueEstimate, PseudoLabelAudit, StageNotes, notes_class
from seedling.workspace import MANIFEST


def manifest(stage: str, notes: StageNotes | None = None, counts: Sequence[LabelCount] = ()) -> Manifest:
    """The manifest of a stage without parts. counts: kept rows; none was rejected."""
    kept = sum(count.rows for count in counts)
    return Manifest(
        stage=stage,
        modality="text",
        rows=RowCounts(rows_in=kept, kept=kept, rejected=0),
        reasons={},
        counts=tuple(counts),
        parts=(),
        notes=notes or notes_class(stage)(),
    )


def write_manifest(
    folder: Path, stage: str, notes: StageNotes | None = None, counts: Sequence[LabelCount] = ()
) -> None:
    """Write the manifest into the folder."""
    manifest(stage, notes, counts).write(folder / MANIFEST)


def label_issues(**changes: Any) -> LabelIssueEstimate:
    """An estimate without wrong labels among 100, with changes."""
    values = {
        "labels": 100,
        "expected": 0.0,
        "between": (0.0, 0.0),
        "flagged": 0,
        "policy": "report",
        "repaired": 0,
        "unrepaired_classes": (),
        "by_class": (),
        "pairs": (),
        "items_per_minute": 20.0,
        "budget": (),
    }
    return LabelIssueEstimate.model_validate(values | changes)


def audit(**changes: Any) -> PseudoLabelAudit:
    """The audit of a round on 20 held-out rows, with changes."""
    values = {
        "temperature": 1.0,
        "teacher_weight": 0.1,
        "rows": 20,
        "filter": "all",
        "kept": 20,
        "precision": EstimateRecord(value=1.0, low=0.8, high=1.0),
        "classes": {},
        "filters": (),
    }
    return PseudoLabelAudit.model_validate(values | changes)
