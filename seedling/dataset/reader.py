"""Reads a generation: its rows as a frame or one by one, and images and texts by id."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedling.dataset.manifest import RowsOnDisk, read_manifest
from seedling.dataset.row_index import RowGroup, RowIndex
from seedling.dataset.schema import Row
from seedling.errors import IncompleteGeneration, SeedlingError
from seedling.files.reading import reading
from seedling.workspace import PARTS, REJECTED

if TYPE_CHECKING:
    import pandas as pd

READ_BATCH_ROWS = 256
KEPT_INDEXES = 8  # that a process keeps; an index has about 50 bytes per row


def rows_on_disk(folder: Path) -> RowsOnDisk:
    """The numbers of rows in the Parquet footers."""
    kept = sum(_rows_in(part) for part in sorted(folder.glob(PARTS)))
    return RowsOnDisk(kept, _rows_in(folder / REJECTED))


def _rows_in(file: Path) -> int:
    with reading(file):
        return int(pq.read_metadata(file).num_rows)


def read(
    folder: Path,
    columns: Sequence[str] | None = None,
    *,
    splits: Collection[str] | None = None,
    ids: Collection[str] | None = None,
) -> pd.DataFrame:
    """Read the kept rows into one frame.

    columns: None for all columns except the images; splits, ids: only these rows are read. Other rows are dropped part
    by part, so that they are never in memory together, and parts without any of the ids are not read.
    """
    files = [part.file for part in read_manifest(folder).parts]
    if ids is not None:
        parts = _row_index([folder / file for file in files]).parts_with(ids)
        files = [part.name for part in parts] or files[:1]
    selected = {"split": splits, "id": ids}
    filters = {name: pa.array(sorted(values)) for name, values in selected.items() if values is not None}
    return _read(folder, files, columns, filters)


def read_columns(file: Path, columns: Sequence[str]) -> pa.Table:
    """Read these columns of a Parquet file, four times as fast as pyarrow's `read_table` if the file is small."""
    with reading(file), pq.ParquetFile(file) as parquet:
        return parquet.read(columns=list(columns), use_threads=False).select(list(columns))


def columns_of(folder: Path) -> list[str]:
    """The names of the kept rows' columns, except the images."""
    first = folder / read_manifest(folder).parts[0].file
    with reading(first):
        return [name for name in pq.read_schema(first).names if name != "image"]


def read_rejected(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the rejected rows with their reasons."""
    read_manifest(folder)
    return _read(folder, [REJECTED], columns, {})


def _read(
    folder: Path, files: Sequence[str], columns: Sequence[str] | None, filters: Mapping[str, pa.Array[Any]]
) -> pd.DataFrame:
    """Read files of the generation. filters: column → the values of the rows to read."""
    import pandas as pd  # here: 0.3 s, which a spider's process does not need

    with reading(folder / files[0]):
        names = pq.read_schema(folder / files[0]).names
    selected = [name for name in names if name != "image"] if columns is None else list(columns)
    to_read = [*selected, *(name for name in filters if name not in selected)]
    tables = []
    for file in files:
        table = read_columns(folder / file, to_read)
        for name, values in filters.items():
            table = table.filter(pc.is_in(table[name], values.cast(pa.string())))
        tables.append(table.select(selected))
    frame = pa.concat_tables(tables).to_pandas(ignore_metadata=True)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.StringDtype):  # None for missing values, as in Row and the schema
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame


def ids_of(folder: Path, split: str) -> Iterator[str]:
    """Yield the ids of the split's kept rows in order, with one part in memory at a time."""
    for part in read_manifest(folder).parts:
        table = read_columns(folder / part.file, ["id", "split"])
        yield from _strings(table.filter(pc.equal(table["split"], pa.scalar(split)))["id"])


def _strings(column: pa.ChunkedArray[Any]) -> list[str]:
    """The values of a text column without nulls."""
    strings: list[Any] = column.to_pylist()
    return strings


def stream(folder: Path) -> Iterator[Row]:
    """Yield the kept rows in order, with one row group in memory at a time."""
    for part in read_manifest(folder).parts:
        with reading(folder / part.file):
            yield from _rows(pq.ParquetFile(folder / part.file))


def _rows(file: pq.ParquetFile) -> Iterator[Row]:
    row_fields = set(Row.__slots__)
    for batch in file.iter_batches(batch_size=READ_BATCH_ROWS):
        for values in batch.to_pylist():
            image, text = values.pop("image", None), values.pop("text", None)
            extra = {name: values.pop(name) for name in list(values) if name not in row_fields}
            yield Row(**values, payload=image["bytes"] if image else text, extra=extra)


def payloads(folders: Iterable[Path], ids: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
    """Yield the id and the image or text of these rows, each once, in the order of the folders.

    Raises IncompleteGeneration if an id is in none of the folders.
    """
    for group, column in _locate(folders, ids):
        yield from zip(group.ids, _payloads(group, column), strict=True)


def rejected_payloads(folder: Path, ids: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
    """Yield the id and the image or text of these rejected rows, each once; ids without a rejected row are left out."""
    column = read_manifest(folder).modality
    for group in _row_index([folder / REJECTED]).find(ids):
        yield from zip(group.ids, _payloads(group, column), strict=True)


def _locate(folders: Iterable[Path], ids: Iterable[str]) -> Iterator[tuple[RowGroup, str]]:
    """Yield the row groups that hold the images or texts of these rows, each with the column to read."""
    missing = set(ids)
    for folder in folders:
        if not missing:
            return
        manifest = read_manifest(folder)
        column, parts = manifest.modality, [folder / part.file for part in manifest.parts]
        if not _has_column(parts[0], column):
            continue
        for group in _row_index(parts).find(missing):
            missing.difference_update(group.ids)
            yield group, column
    if missing:
        examples = ", ".join(sorted(missing)[:3])
        raise IncompleteGeneration(
            f"{len(missing)} rows have no image or text, for example {examples}: run `seedling run` again."
        )


@dataclass(frozen=True)
class PayloadReader:
    """Reads the images or texts of these generations by id, as `payloads` does."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, *folders: Path) -> PayloadReader:
        """Read from these folders."""
        return cls(folders)

    def __call__(self, ids: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
        """Yield the id and the image or text of these rows, each once. Raises what `payloads` raises."""
        return payloads(self.folders, ids)

    def order(self, ids: Iterable[str]) -> list[str]:
        """Return the ids, each once, in the order in which they are read. Raises what `payloads` raises."""
        return [row_id for group, _ in _locate(self.folders, ids) for row_id in group.ids]


class SinglePayloads:
    """Reads the images or texts of a few rows at a time from one generation, in milliseconds whatever its size.

    The manifest and the index of ids are read once, and again only if a part was replaced.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index: RowIndex | None = None
        self._column = ""

    def __call__(self, ids: Iterable[str]) -> dict[str, bytes | str]:
        """Return the payloads by id, without those of ids that the generation does not have."""
        row_ids = list(dict.fromkeys(ids))
        try:
            return self._read(row_ids)
        except (SeedlingError, OSError):  # a run has replaced the generation
            self._index = None
            return self._read(row_ids)

    def _read(self, row_ids: list[str]) -> dict[str, bytes | str]:
        if self._index is None:
            manifest = read_manifest(self._folder)
            self._column = manifest.modality
            self._index = _row_index([self._folder / part.file for part in manifest.parts])
        payloads_by_id: dict[str, bytes | str] = {}
        for group in self._index.find(row_ids):
            payloads_by_id.update(zip(group.ids, _payloads(group, self._column), strict=True))
        return payloads_by_id


def _payloads(group: RowGroup, column: str) -> Iterator[bytes | str]:
    """Yield the images or texts of the group's rows. The row group is read up to the last of them."""
    first, last = 0, group.rows[-1]
    with reading(group.file), pq.ParquetFile(group.file) as file:
        batches = file.iter_batches(READ_BATCH_ROWS, row_groups=[group.number], columns=[column])
        while first <= last:
            batch = next(batches)
            in_batch = group.rows[(group.rows >= first) & (group.rows < first + len(batch))] - first
            first += len(batch)
            payloads_of_batch: list[Any] = batch[column].take(pa.array(in_batch, pa.int64())).to_pylist()
            for payload in payloads_of_batch:
                yield payload["bytes"] if column == "image" else payload


def _has_column(part: Path, column: str) -> bool:
    with reading(part):
        return column in pq.read_schema(part).names


def has_payloads(folder: Path) -> bool:
    """Whether a kept row has its image or text in the generation, according to the Parquet footers."""
    manifest = read_manifest(folder)
    path = "text" if manifest.modality == "text" else "image.bytes"
    return any(_has_values(folder / part.file, path) for part in manifest.parts)


def _has_values(part: Path, path: str) -> bool:
    """Whether the column has a value that is not null. path: of the column in the Parquet schema."""
    with reading(part):
        metadata = pq.read_metadata(part)
        row_groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = (group.column(index) for group in row_groups for index in range(group.num_columns))
    return any(
        chunk.num_values > ((chunk.statistics.null_count or 0) if chunk.statistics else 0)
        for chunk in chunks
        if chunk.path_in_schema == path
    )


def _row_index(parts: Sequence[Path]) -> RowIndex:
    """The index of these parts, read from the column of ids alone, and kept until a part changes."""
    return _read_index(tuple(parts), tuple(_version(part) for part in parts))


def _version(part: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written again."""
    with reading(part):
        stat = part.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=KEPT_INDEXES)
def _read_index(parts: tuple[Path, ...], versions: tuple[tuple[int, int, int], ...]) -> RowIndex:
    ids_of_groups: dict[tuple[Path, int], NDArray[np.bytes_]] = {}
    for part in parts:
        with reading(part), pq.ParquetFile(part) as file:
            for number in range(file.num_row_groups):
                ids = _strings(file.read_row_group(number, columns=["id"])["id"])
                ids_of_groups[part, number] = np.array(ids, dtype=bytes)
    return RowIndex.of(ids_of_groups)
