"""Writes a generation: its kept rows a part at a time, its rejected rows, and last its manifest.

Part boundaries follow the hashes in the ids (content-defined chunking, Muthitacharoen et al. 2001) and the folders of
the origins. New rows therefore change only the neighboring parts, and DVC stores only those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from seedling.dataset.manifest import check_counts, read_manifest
from seedling.dataset.reader import stream
from seedling.dataset.schema import Row, schema
from seedling.records.manifest import LabelCount, Manifest, Modality, PartFile, RowCounts
from seedling.records.stage_notes import StageNotes, notes_class
from seedling.workspace import MANIFEST, REJECTED, part_file

ROWS_PER_PART = 200  # on average; a part has a quarter of it to four times as many
MAX_PART_BYTES = 64 * 2**20  # bounds the memory for large photographs


class GenerationWriter:
    """Write one generation, a part at a time. Without a call of `close` it has no manifest and is incomplete."""

    def __init__(
        self,
        folder: Path,
        *,
        stage: str,
        modality: Modality,
        images: bool = True,
        extra: Sequence[pa.Field[Any]] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._stage, self._modality = folder, stage, modality
        self._schema = schema(modality, images=images, extra=extra)
        self._rows: list[Row] = []
        self._bytes = 0
        self._parts: list[PartFile] = []
        self._rejected: list[tuple[Row, str]] = []
        self._rejected_bytes = 0
        self._rejected_schema = schema(modality, images=images, extra=extra, reason=True)
        self._rejected_file = pq.ParquetWriter(folder / REJECTED, self._rejected_schema, compression="zstd")
        self.kept: Counter[tuple[str, str | None, str | None]] = Counter()
        self.reasons: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rejected_file.is_open:
            self._rejected_file.close()

    def keep(self, row: Row) -> None:
        """Add a kept row."""
        min_rows = ROWS_PER_PART // 4
        if len(self._rows) >= min_rows and _folder(row) != _folder(self._rows[-1]):
            self._flush()  # new files in one folder do not change the parts of the next folder
        self._rows.append(row)
        self._bytes += len(row.payload or "")
        self.kept[row.split, row.label, row.label_source] += 1
        is_boundary = len(self._rows) >= min_rows and int(row.id[:12], 16) % ROWS_PER_PART == 0
        if is_boundary or len(self._rows) >= 4 * ROWS_PER_PART or self._bytes >= MAX_PART_BYTES:
            self._flush()

    def reject(self, row: Row, reason: str) -> None:
        """Add a rejected row with its reason code, in snake_case."""
        self._rejected.append((row, reason))
        self._rejected_bytes += len(row.payload or "")
        self.reasons[reason] += 1
        if len(self._rejected) >= 4 * ROWS_PER_PART or self._rejected_bytes >= MAX_PART_BYTES:
            self._flush_rejected()

    def close(self, *, rows_in: int, classes: Sequence[str] = (), notes: StageNotes | None = None) -> Manifest:
        """Write the remaining rows and then the manifest, which is returned.

        rows_in: the number of rows that the stage received or planned to create, counted independently of the kept and
        rejected rows; notes: None for those of a stage that has nothing to note.

        Raises IncompleteGeneration if rows_in is not the number of kept and rejected rows.
        """
        if self._rows or not self._parts:
            self._flush()
        self._flush_rejected()
        self._rejected_file.close()
        kept, rejected = sum(self.kept.values()), sum(self.reasons.values())
        manifest = Manifest(
            stage=self._stage,
            modality=self._modality,
            classes=tuple(classes),
            rows=RowCounts(rows_in=rows_in, kept=kept, rejected=rejected),
            reasons=dict(sorted(self.reasons.items())),
            counts=tuple(
                LabelCount(split=split, label=label, label_source=source, rows=rows)
                for (split, label, source), rows in sorted(self.kept.items(), key=lambda item: str(item[0]))
            ),
            parts=tuple(self._parts),
            notes=notes_class(self._stage)() if notes is None else notes,
        )
        check_counts(manifest)
        manifest.write(self._folder / MANIFEST)
        return manifest

    def _flush(self) -> None:
        name = part_file(len(self._parts))
        table = _table(self._rows, self._schema)
        pq.write_table(table, self._folder / name, compression="zstd", row_group_size=4 * ROWS_PER_PART)
        self._parts.append(PartFile(file=name, rows=len(self._rows)))
        self._rows, self._bytes = [], 0

    def _flush_rejected(self) -> None:
        if self._rejected:
            rows, reasons = [row for row, _ in self._rejected], [reason for _, reason in self._rejected]
            table = _table(rows, self._schema).append_column("reason", pa.array(reasons, pa.string()))
            self._rejected_file.write_table(table.cast(self._rejected_schema))
        self._rejected, self._rejected_bytes = [], 0


def _folder(row: Row) -> str:
    return (row.origin or "").rpartition("/")[0]


def _table(rows: Sequence[Row], columns: pa.Schema) -> pa.Table:
    def cell(row: Row, name: str) -> Any:
        if name == "image":
            return None if row.payload is None else {"bytes": row.payload, "path": f"{row.id}.png"}
        if name == "text":
            return row.payload
        return row.extra[name] if name in row.extra else getattr(row, name)

    values = {column.name: [cell(row, column.name) for row in rows] for column in columns}
    return pa.Table.from_pydict(values, schema=columns)


def rewrite(folder: Path, into: Path, change: Callable[[Row], Row]) -> None:
    """Write the generation into another folder with every kept row changed.

    The stage's own columns and the notes are kept. Rejected rows are left out.
    """
    manifest = read_manifest(folder)
    columns = pq.read_schema(folder / manifest.parts[0].file)
    extra = [columns.field(name) for name in columns.names if name not in {*Row.__slots__, "image", "text"}]
    with GenerationWriter(
        into, stage=manifest.stage, modality=manifest.modality, images="image" in columns.names, extra=extra
    ) as writer:
        for row in stream(folder):
            writer.keep(change(row))
        writer.close(rows_in=sum(writer.kept.values()), classes=manifest.classes, notes=manifest.notes)
