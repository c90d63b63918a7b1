"""Packs a folder with very many files into Parquet files, so that DVC tracks dozens of files instead of thousands."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seedling.config.sources import FolderSource
from seedling.dataset.generation import IMAGE_TYPE, Modality
from seedling.files.data_files import NOT_REGULAR, fault_of
from seedling.plugins import CODE, is_code
from seedling.progress import Progress, counted, silent
from seedling.scrape.folder import read_folder
from seedling.scrape.items import Item
from seedling.workspace import PACKED, part_file

MAX_ROWS_PER_FILE = 2_000
MAX_BYTES_PER_FILE = 32 * 2**20


def pack_folder(
    source: Path,
    data: Path,
    modality: Modality,
    total: int,
    progress: Progress = silent,
    *,
    with_code: bool = True,
    by_class: bool = False,
) -> list[tuple[str, str]]:
    """Write the source's files as `data/packed/part-*.parquet` (text or image, label, split, id).

    A file's bytes are unchanged, and its path becomes the id, so that a row's origin still names it. Files that cannot
    be rows (outside class folders, not UTF-8) are copied to data/, where the scrape stage rejects them with a reason.
    Returns the files that are left out: (path, reason). Raises InputError for a source without files, OSError if a
    file cannot be read or written.
    """
    (data / PACKED).mkdir(parents=True)
    writer = PartWriter(data / PACKED, modality)
    left_out: list[tuple[str, str]] = []
    items = read_folder(FolderSource(kind="folder", by_class=by_class), source, modality, sys.maxsize)
    for item in counted(items, progress, "pack", total):
        path = source / item.origin
        code = CODE if not with_code and is_code(path) else None
        fault = None if path.is_dir() else fault_of(path, source.resolve()) or code
        if path.is_dir() or fault is not None:
            left_out.append((item.origin, fault or item.reason or NOT_REGULAR))
            continue
        try:
            content = item.load() if item.reason is None else None
        except UnicodeDecodeError:
            content = None
        if content is None:
            _copy(path, data / item.origin)
        else:
            writer.add(item, content)
    writer.flush()
    return left_out


class PartWriter:
    """Writes rows to `part-*.parquet` in a folder; a part is full at MAX_ROWS_PER_FILE or MAX_BYTES_PER_FILE."""

    def __init__(self, folder: Path, modality: Modality) -> None:
        self._folder = folder
        self._content_name = modality  # the column's name
        content_type = IMAGE_TYPE if modality == "image" else pa.string()
        other_fields = [pa.field(name, pa.string()) for name in ("label", "split", "id")]
        self._schema = pa.schema([pa.field(self._content_name, content_type), *other_fields])
        self._rows: list[dict[str, Any]] = []
        self._size_bytes = self._parts = 0

    def add(self, item: Item, content: bytes | str) -> None:
        """Add a row, and write the part if it is full."""
        cell: Any = {"bytes": content, "path": None} if isinstance(content, bytes) else content
        self._rows.append({self._content_name: cell, "label": item.label, "split": item.split, "id": item.origin})
        self._size_bytes += len(content)
        if len(self._rows) >= MAX_ROWS_PER_FILE or self._size_bytes >= MAX_BYTES_PER_FILE:
            self.flush()

    def flush(self) -> None:
        """Write the rows of an unfinished part."""
        if not self._rows:
            return
        pq.write_table(
            pa.Table.from_pylist(self._rows, schema=self._schema),
            self._folder / part_file(self._parts),
            compression="zstd",
            row_group_size=256,
        )
        self._rows, self._size_bytes, self._parts = [], 0, self._parts + 1


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)
