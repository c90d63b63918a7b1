"""The manifest of a generation: its rows, classes, parts and notes. A folder with a manifest is complete."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from seedling.errors import DamagedFile
from seedling.files.reading import read_json, reading, remedy
from seedling.records.record import Record, RecordPart
from seedling.records.stage_notes import PseudoLabelNotes, StageNotes, notes_class
from seedling.workspace import MANIFEST

Modality = Literal["image", "text"]
Notes = TypeVar("Notes", bound=StageNotes)
FORMAT = 1


class RowCounts(RecordPart):
    """The rows that a stage received or planned to create, kept and rejected; in a generation, rows_in is their sum."""

    model_config = ConfigDict(populate_by_name=True)

    rows_in: int = Field(validation_alias="in", serialization_alias="in")
    kept: int
    rejected: int


class LabelCount(RecordPart):
    """The number of kept rows with this split, label and source of the label; None for rows without a label."""

    split: str
    label: str | None
    label_source: str | None
    rows: int


class PartFile(RecordPart):
    """A Parquet file of kept rows."""

    file: str
    rows: int


class Manifest(Record):
    """The manifest of one generation.

    stage: with its round, as in `pseudo_label@1`; classes: sorted, empty before validate; reasons: reason → rejected
    rows; counts: the kept rows; parts: their files, in order.
    """

    format: int = FORMAT
    stage: str
    modality: Modality
    classes: tuple[str, ...] = ()
    rows: RowCounts
    reasons: dict[str, int]
    counts: tuple[LabelCount, ...]
    parts: tuple[PartFile, ...]
    notes: SerializeAsAny[StageNotes]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises DamagedFile if it is not a manifest, and FileNotFoundError."""
        value = read_json(path)
        if not isinstance(value, dict) or "rows" not in value:
            raise DamagedFile(path, "it is not a manifest", remedy(path))
        with reading(path):
            return cls.of_json(value)

    @model_validator(mode="before")
    @classmethod
    def _type_notes(cls, value: Any) -> Any:
        """Parse the notes by their stage. In files without a version, notes in an earlier form are left out."""
        if not isinstance(value, dict) or not isinstance(value.get("notes", {}), dict):
            return value
        notes, expected = value.get("notes", {}), notes_class(str(value.get("stage")))
        readable = notes if "version" in value else _readable(notes, expected)
        return {**value, "notes": expected.model_validate(readable)}

    def rows_of(self, split: str) -> int:
        """The number of kept rows of the split."""
        return sum(count.rows for count in self.counts if count.split == split)

    @property
    def is_skipped(self) -> bool:
        """Whether the stage had nothing to do, because the loop had stopped."""
        return isinstance(self.notes, PseudoLabelNotes) and self.notes.skipped


def _readable(notes: Mapping[str, Any], expected: type[StageNotes]) -> dict[str, Any]:
    """The notes that this version can read."""
    readable = {}
    for name in [name for name in notes if name in expected.model_fields]:
        try:
            expected.model_validate({name: notes[name]})
        except ValidationError:
            continue
        readable[name] = notes[name]
    return readable


def read_manifest_if_any(folder: Path) -> Manifest | None:
    """The manifest in the folder; None without one. Raises DamagedFile if it is not a manifest."""
    path = folder / MANIFEST
    return Manifest.read(path) if path.is_file() else None


def read_notes(folder: Path, kind: type[Notes]) -> Notes:
    """The notes in the folder's manifest; those of an empty stage without a manifest.

    Raises DamagedFile if the manifest is damaged or of another stage.
    """
    manifest = read_manifest_if_any(folder)
    notes = kind() if manifest is None else manifest.notes
    if not isinstance(notes, kind):
        path = folder / MANIFEST
        raise DamagedFile(path, "it is of another stage", remedy(path))
    return notes
