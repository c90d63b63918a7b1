"""Hugging Face datasets: saved to disk (`datasets.load_from_disk`) or as Parquet files (`datasets.load_dataset`).

Both are read and written with PyArrow alone, so that the package `datasets` need not be installed. A dataset on disk is
a folder per split with Arrow streams, `dataset_info.json` and `state.json`; the Arrow schema describes the features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seedling.dataset.class_indices import index_by_class
from seedling.dataset.schema import IMAGE_TYPE
from seedling.errors import InputError
from seedling.media.image_export import suffix_of
from seedling.review.exchange.exported_rows import NUMBER_FIELDS, TEXT_FIELDS, ExportedRow
from seedling.review.exchange.external_rows import ExternalRow, image_files
from seedling.review.exchange.table_rows import LABEL, check_columns, table_row

SPLITS_FILE, STATE_FILE, INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"
ARROW_FILE, PARQUET_FOLDER = "data-00000-of-00001.arrow", "data"
ROWS_PER_BATCH, ROWS_PER_FILE = 256, 2_000
CONTENT_COLUMNS = ("image", "text", "content", "img")


def write_on_disk(rows: Iterable[ExportedRow], folder: Path, classes: Sequence[str], modality: str) -> None:
    """Write a dataset per split, which `datasets.load_from_disk` reads."""
    schema = _schema(classes, modality)
    writers: dict[str, pa.RecordBatchStreamWriter] = {}
    try:
        for split, batch in _batches(rows, schema, classes, ROWS_PER_BATCH):
            if split not in writers:
                (folder / split).mkdir()
                writers[split] = pa.ipc.new_stream(str(folder / split / ARROW_FILE), schema)
            writers[split].write_table(batch)
    finally:
        for writer in writers.values():
            writer.close()
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    for split in writers:
        _write(folder / split / INFO_FILE, {"citation": "", "description": "", "features": features, "homepage": ""})
        state: dict[str, Any] = {
            "_data_files": [{"filename": ARROW_FILE}],
            "_fingerprint": hashlib.blake2b((folder / split / ARROW_FILE).read_bytes(), digest_size=8).hexdigest(),
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        _write(folder / split / STATE_FILE, state)
    _write(folder / SPLITS_FILE, {"splits": list(writers)})


def write_parquet(rows: Iterable[ExportedRow], folder: Path, classes: Sequence[str], modality: str) -> None:
    """Write `data/<split>-00000-of-00001.parquet`, which `datasets.load_dataset` reads with splits of any name."""
    schema = _schema(classes, modality)
    (folder / PARQUET_FOLDER).mkdir()
    parts: dict[str, int] = {}
    for split, batch in _batches(rows, schema, classes, ROWS_PER_FILE):
        number = parts[split] = parts.get(split, -1) + 1
        part = folder / PARQUET_FOLDER / f"{split}-{number:05d}"
        pq.write_table(batch, part, compression="zstd", row_group_size=ROWS_PER_BATCH)
    for split, last in parts.items():
        for number in range(last + 1):
            part = folder / PARQUET_FOLDER / f"{split}-{number:05d}"
            part.rename(f"{part}-of-{last + 1:05d}.parquet")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def _schema(classes: Sequence[str], modality: str) -> pa.Schema:
    """The Arrow schema, with the Hub's description of its features as metadata."""
    content_type = IMAGE_TYPE if modality == "image" else pa.string()
    fields: list[pa.Field[Any]] = [pa.field(modality, content_type)]
    fields += [pa.field(name, pa.int64() if name == LABEL else pa.string()) for name in TEXT_FIELDS]
    fields += [pa.field(name, pa.float64()) for name in NUMBER_FIELDS]
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in TEXT_FIELDS}
    features |= {name: {"dtype": "float64", "_type": "Value"} for name in NUMBER_FIELDS}
    features |= {LABEL: {"names": list(classes), "_type": "ClassLabel"}}
    features |= {modality: {"_type": "Image"} if modality == "image" else {"dtype": "string", "_type": "Value"}}
    ordered = {field.name: features[field.name] for field in fields}
    return pa.schema(fields, metadata={b"huggingface": json.dumps({"info": {"features": ordered}}).encode()})


def _batches(
    rows: Iterable[ExportedRow], schema: pa.Schema, classes: Sequence[str], batch_rows: int
) -> Iterator[tuple[str, pa.Table]]:
    """Yield (split, rows) in batches; rows of a split stay in their order."""
    class_to_index = index_by_class(classes)
    of_split: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        values = row.fields()
        cells: dict[str, Any] = {**values, LABEL: None if row.label is None else class_to_index[row.label]}
        if isinstance(row.content, str):
            cells["text"] = row.content
        else:
            cells["image"] = {"bytes": row.content, "path": f"{row.id}.{suffix_of(row.content)}"}
        batch = of_split.setdefault(row.split, [])
        batch.append(cells)
        if len(batch) == batch_rows:
            yield row.split, pa.Table.from_pylist(batch, schema=schema)
            batch.clear()
    for split, batch in of_split.items():
        if batch:
            yield split, pa.Table.from_pylist(batch, schema=schema)


def read(path: Path) -> Iterator[ExternalRow]:
    """Yield the rows of a dataset: a folder that `save_to_disk` wrote, a Parquet file, or a folder with such files.

    Raises InputError for a damaged file, and MissingColumn.
    """
    for file in data_files(path):
        yield from _rows(file, path if path.is_dir() else path.parent)


def data_files(path: Path) -> list[Path]:
    """The files with the rows. Raises InputError for a folder without any, or with files that are missing."""
    if path.is_file():
        return [path]
    states = sorted([*path.glob(STATE_FILE), *path.glob(f"*/{STATE_FILE}")])
    files = [file for state in states for file in _files_of_state(state)] or sorted(path.rglob("*.parquet"))
    if not files:
        raise InputError(f"{path} has no rows of a dataset: name a folder of `save_to_disk`, or of Parquet files.")
    return files


def _files_of_state(state: Path) -> list[Path]:
    try:
        names = [str(file["filename"]) for file in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{state} is damaged ({type(error).__name__}): save the dataset again.") from error
    root, files = state.parent.resolve(), [state.parent / name for name in names]
    for file in files:
        if not file.resolve().is_relative_to(root) or not file.is_file():
            raise InputError(f"{state} names {file.name}, which is not a file beside it: save the dataset again.")
    return files


def _rows(file: Path, root: Path) -> Iterator[ExternalRow]:
    class_names: Mapping[str, Sequence[str]] = {}
    number = 0
    for schema, rows_of_batch in _batches_of_file(file):
        if number == 0:
            check_columns(schema.names, str(file))
            class_names = _class_names(schema)
        for values in rows_of_batch:
            number += 1
            position = f"{file.relative_to(root)} row {number}"
            yield _row(values, class_names, position, file.parent)


def _batches_of_file(file: Path) -> Iterator[tuple[pa.Schema, list[dict[str, Any]]]]:
    """Yield the rows in batches. Raises InputError; a damaged batch is detected before its values are read."""
    batches = _record_batches(file)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate(full=True)
            rows_of_batch = batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"{file} cannot be read ({lines[0][:200]}): save the dataset again.") from error
        yield batch.schema, rows_of_batch


def _record_batches(file: Path) -> Iterator[pa.RecordBatch]:
    if file.suffix.lower() == ".parquet":
        with pq.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(ROWS_PER_BATCH)
        return
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        yield from stream


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of class numbers, by column."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: list(map(str, kind["names"])) for name, kind in features.items() if kind.get("names")}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _row(values: dict[str, Any], class_names: Mapping[str, Sequence[str]], position: str, folder: Path) -> ExternalRow:
    contents = {name: values.pop(name) for name in CONTENT_COLUMNS if name in values}
    for name, names in class_names.items():
        if isinstance(values.get(name), int):  # -1 stands for no label
            values[name] = names[values[name]] if 0 <= values[name] < len(names) else None
    paths = [cell.get("path") for cell in contents.values() if isinstance(cell, dict)]
    values["file_name"] = values.get("file_name") or next(filter(None, paths), None)
    return table_row(values, position, partial(_contents, contents, folder))


def _contents(cells: Mapping[str, Any], folder: Path) -> Iterator[bytes | str]:
    for cell in cells.values():
        if isinstance(cell, dict) and cell.get("bytes"):
            yield cell["bytes"]
        elif isinstance(cell, dict) and cell.get("path"):
            yield from image_files(str(cell["path"]), folder)
        elif isinstance(cell, bytes | str):
            yield cell
