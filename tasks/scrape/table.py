"""A table of a user's: CSV, TSV, JSONL or Parquet with a text or image column, and optional label, split and id."""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data_files import NOT_REGULAR, OUTSIDE, fault_of, files_below, inside, read_bytes
from tasks.errors import InputError, MissingColumn
from tasks.generation import SPLITS, Modality
from tasks.scrape.items import Item, tidy_label
from tasks.sources import TableSource

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
ALIASES = {
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "unlabelled": "pool",
    "unlabeled": "pool",
    "": None,
}
NAME_COLUMNS = (
    "Name the columns in params.yaml, scrape.sources."  # remedies, for which commands without a params.yaml have others
)
SET_ENCODING = "set its encoding for this source in params.yaml, such as `encoding: latin-1`, cp1252 or utf-16."
BROKEN = "\0broken"  # the key under which a line that cannot be read carries its reason

csv.field_size_limit(10 * 2**20)


def read_table(
    source: TableSource, data: Path, modality: Modality, max_bytes: int, *, fields: bool = False
) -> Iterator[Item]:
    """The table's items in its order; of a folder, its Parquet files in their names' order are one table. fields: whether label rules read columns.

    Raises InputError: no such file, another format, a column that is not there, another encoding, no rows.
    """
    path = inside(data, source.path)
    if not path.exists():
        raise InputError(
            f"{path} does not exist: name a {', '.join(SUFFIXES)} file, or a folder of .parquet files, "
            "in params.yaml, scrape.sources."
        )
    if not path.is_dir() and (fault := fault_of(path, data.resolve())):
        raise InputError(f"{path} is not read ({fault}): copy the table itself into data/.")
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is none of {', '.join(SUFFIXES)}: save the table as one of these.")
    wanted = source.text if modality == "text" else source.image
    number = 0
    try:
        for number, values in enumerate(_records(path, source, wanted), start=1):
            item = _item(values, number, wanted, source, path, data, modality, max_bytes)
            yield replace(item, fields=_fields(values, wanted)) if fields else item
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not {source.encoding} (byte 0x{error.object[error.start]:02x} near row {number + 1}): convert it, "
            f"or {SET_ENCODING}"
        ) from error
    except (csv.Error, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} cannot be read near row {number + 1}: {str(error).rstrip('.')}. Mend or re-export the file."
        ) from error
    if number == 0:
        raise InputError(f"{path} holds no rows.")


def _records(path: Path, source: TableSource, wanted: str) -> Iterator[Mapping[str, Any]]:
    if path.is_dir() or path.suffix.lower() == ".parquet":
        for part in _parts(path):
            file = pq.ParquetFile(part)
            _check_columns(part, file.schema_arrow.names, source, wanted)
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
        return
    encoding = "utf-8-sig" if source.encoding.lower().replace("_", "-") == "utf-8" else source.encoding
    with path.open(encoding=encoding, newline="") as file:
        if path.suffix.lower() == ".jsonl":
            yield from _json_lines(path, file, source, wanted)
            return
        reader = csv.DictReader(
            file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", restkey=BROKEN, strict=True
        )
        _check_columns(path, list(reader.fieldnames or []), source, wanted)
        for values in reader:
            yield (
                {BROKEN: "too_many_fields", **{k: v for k, v in values.items() if k != BROKEN}}
                if BROKEN in values
                else values
            )


def _parts(path: Path) -> list[Path]:
    """The Parquet files of a folder, or the file itself. Raises InputError for one that is not read."""
    if not path.is_dir():
        return [path]
    found = [(part, fault) for part, fault in files_below(path, path) if part.suffix == ".parquet"]
    for part, fault in found:
        if fault:
            raise InputError(f"{part} is not read ({fault}): copy the file itself into the folder.")
    return sorted(part for part, _ in found)


def _json_lines(path: Path, lines: Iterator[str], source: TableSource, wanted: str) -> Iterator[Mapping[str, Any]]:
    checked = False
    for line in lines:
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            yield {BROKEN: "not_json"}
            continue
        if not checked:
            _check_columns(path, list(values), source, wanted)
            checked = True
        yield values


def _check_columns(path: Path, columns: list[str], source: TableSource, wanted: str) -> None:
    named = {wanted: True, **{getattr(source, one): one in source.model_fields_set for one in ("label", "split", "id")}}
    named |= {source.group: True} if source.group else {}
    for column, required in named.items():
        if required and column not in columns:
            near = difflib.get_close_matches(column, columns, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            if len(columns) == 1 and ";" in columns[0]:
                hint = "it is separated by semicolons: save it with commas, or as .tsv with tabs. "
            if not columns:
                raise MissingColumn(f"{path} is empty: it needs a first line with the columns' names, and rows.")
            raise MissingColumn(f"{path} has no column '{column}': {hint}It has {', '.join(columns)}. {NAME_COLUMNS}")


def _item(
    values: Mapping[str, Any],
    number: int,
    wanted: str,
    source: TableSource,
    path: Path,
    data: Path,
    modality: Modality,
    max_bytes: int,
) -> Item:
    label = tidy_label(_word(values.get(source.label)))
    given = (_word(values.get(source.split)) or "").strip().lower()
    split = ALIASES.get(given, given) or ("train" if label else "pool")
    reason = values.get(BROKEN) or _reason(split, label)
    content = values.get(wanted)
    if reason is None and modality == "image":
        beside = path if path.is_dir() else path.parent
        content, reason = _picture(content, beside, data, max_bytes)
    elif reason is None and isinstance(content, (dict, list)):
        content, reason = "", "not_a_text"
    elif reason is None:
        content, reason = (content, None) if _word(content) else ("", "empty")
    loaded: Any = content
    together = _word(values.get(source.group)) if source.group else None
    labelled = label is not None and split in {"train", "validation", "test"}
    return Item(
        origin=f"{path.relative_to(data.resolve()).as_posix()}#{_word(values.get(source.id)) or number}",
        load=loaded if callable(loaded) else lambda: loaded if isinstance(loaded, bytes) else str(loaded or ""),
        split=split if split in SPLITS else "pool",
        label=label if labelled else None,
        label_source="human" if labelled else None,
        group=f"{source.group} {together}" if together else None,
        reason=reason,
        file=Path(loaded.args[0]).relative_to(data.resolve()).as_posix() if isinstance(loaded, partial) else None,
    )


def _fields(values: Mapping[str, Any], wanted: str) -> dict[str, str]:
    return {name: word for name, value in values.items() if name != wanted and (word := _word(value)) is not None}


def _reason(split: str, label: str | None) -> str | None:
    if split not in SPLITS:
        return "unknown_split"
    return "no_label" if label is None and split in {"train", "validation", "test"} else None


def _word(value: Any) -> str | None:
    return None if value is None or value != value else str(value)


def _picture(value: Any, folder: Path, data: Path, max_bytes: int) -> tuple[Any, str | None]:
    """What loads the bytes, and the reason where there are none; a path counts only inside data/."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value, None if len(value) <= max_bytes else "too_many_bytes"
    if not value:
        return b"", "empty"
    try:
        root = data.resolve()
        path = Path(os.path.normpath(folder / str(value)))
        if not path.is_relative_to(root):
            return b"", "path_outside_data"
        if (fault := fault_of(path, root)) is not None:
            return b"", fault if fault in {OUTSIDE, NOT_REGULAR} and not path.is_dir() else "no_such_file"
        size = path.stat().st_size
    except (OSError, ValueError):  # a name too long for any file system, or with a NUL
        return b"", "no_such_file"
    return partial(read_bytes, path, root), None if size <= max_bytes else "too_many_bytes"
