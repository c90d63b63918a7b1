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

PACKED = "packed"
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
    content_field = pa.field("image", IMAGE_TYPE) if modality == "image" else pa.field("text", pa.string())
    other_fields = [pa.field(name, pa.string()) for name in ("label", "split", "id")]
    schema = pa.schema([content_field, *other_fields])
    (data / PACKED).mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    left_out: list[tuple[str, str]] = []
    size = parts = 0

    def flush() -> None:
        nonlocal rows, size, parts
        if rows:
            pq.write_table(
                pa.Table.from_pylist(rows, schema=schema),
                data / PACKED / f"part-{parts:05d}.parquet",
                compression="zstd",
                row_group_size=256,
            )
            parts, rows, size = parts + 1, [], 0

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
            continue
        cell: Any = {"bytes": content, "path": None} if isinstance(content, bytes) else content
        rows.append({content_field.name: cell, "label": item.label, "split": item.split, "id": item.origin})
        size += len(content)
        if len(rows) >= MAX_ROWS_PER_FILE or size >= MAX_BYTES_PER_FILE:
            flush()
    flush()
    return left_out


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)
