"""Reads the files of a table, CSV, TSV, JSONL or Parquet: their columns, and their raw rows with position and fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seedling.config.sources import TableSource
from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.files.data_files import files_below
from seedling.scrape.columns import check_duplicates, content_of, find, rank
from seedling.scrape.dialects import Layout, encoding_of, find_layout

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
SET_ENCODING = "set its encoding for this source in params.yaml, such as `encoding: latin-1`, cp1252 or utf-16."
NOT_JSON, DUPLICATE_KEY, NOT_UTF8 = "not_json", "duplicate_key", "not_utf8"
BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: its values by column; position: where a user finds it, as `line 12`; reason: why it cannot be read."""

    position: str
    values: Mapping[str, Any]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file of a table. class_names: column of class numbers → the names that the file has for them."""

    path: Path
    columns: Sequence[str]
    rows: Callable[[], Iterator[TableRow]]
    described: str = ""
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def table_files(path: Path, source: TableSource, modality: Modality) -> list[TableFile]:
    """Return the file, or the Parquet files of a folder by name. Raises InputError for a file that cannot be read."""
    if path.is_dir():
        return [_parquet(part) for part in _parts(path)]
    with explained(path, source.encoding):
        match path.suffix.lower():
            case ".parquet":
                return [_parquet(path)]
            case ".jsonl":
                return [_json_lines(path, encoding_of(path, source.encoding))]
            case _:
                return [_delimited(path, source, modality)]


def _parts(path: Path) -> list[Path]:
    """Return the Parquet files of a folder. Raises InputError for a file that is not read."""
    listed = [(part, fault) for part, fault in files_below(path, path) if part.suffix.lower() == ".parquet"]
    for part, fault in listed:
        if fault:
            raise InputError(f"{part} is not read ({fault}): copy the file itself into the folder.")
    return sorted(part for part, _ in listed)


class explained:  # noqa: N801  (a context manager, read like contextlib's)
    """Replaces errors of the readers by an InputError that names the file, its encoding and the position."""

    def __init__(self, path: Path, encoding: str) -> None:
        self._path, self._encoding = path, encoding

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UnicodeError):
            raise InputError(_undecodable(self._path, self._encoding, error)) from error
        if isinstance(error, LookupError) and "encoding" in str(error):
            raise InputError(f"{self._path}: the encoding '{self._encoding}' is unknown: {SET_ENCODING}") from error
        if isinstance(error, pa.ArrowException | OverflowError) or (isinstance(error, OSError) and error.errno is None):
            first_line = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise InputError(
                f"{self._path} cannot be read: {first_line.rstrip('.')}. Repair or export the file again."
            ) from error


def _undecodable(path: Path, encoding: str, error: UnicodeError) -> str:
    """Return the message for a file in another encoding, with the first wrong byte and its line."""
    try:
        content = path.read_bytes()
        content.decode(encoding_of(path, encoding))
    except UnicodeDecodeError as first:
        line = content[: first.start].count(b"\n") + 1
        byte = content[first.start]
        return f"{path} is not {encoding} (byte 0x{byte:02x} in line {line}): convert it, or {SET_ENCODING}"
    except (UnicodeError, OSError):
        pass
    return f"{path} is not {encoding} ({error}): convert it, or {SET_ENCODING}"


def _delimited(path: Path, source: TableSource, modality: Modality) -> TableFile:
    def index_of(columns: Sequence[str]) -> tuple[int, int | None]:
        contents, labels = find(columns, content_of(source, modality)), find(columns, source.label)
        return columns.index(contents[0]) if contents else 0, columns.index(labels[0]) if labels else None

    layout = find_layout(
        path,
        source.encoding,
        lambda columns: rank(columns, source, modality),
        index_of,
        delimiter=source.delimiter,
        quoting=source.quoting,
    )

    def rows() -> Iterator[TableRow]:
        with explained(path, source.encoding):
            yield from _named_cells(layout)

    return TableFile(path, layout.columns, rows, layout.dialect.described())


def _named_cells(layout: Layout) -> Iterator[TableRow]:
    for record in layout.records():
        position = f"line {record.line}"
        if record.reason is not None:
            yield TableRow(position, {}, record.reason)
        else:
            yield TableRow(position, dict(zip(layout.columns, record.cells, strict=True)))


class _DuplicateKeyError(ValueError):
    """An object has the same key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _DuplicateKeyError
    return values


def _objects(path: Path, encoding: str) -> Iterator[TableRow]:
    """Yield the objects of a file of JSON lines, or of a JSON array."""
    with path.open(encoding=encoding) as file:
        head = file.read(1024)
        file.seek(0)
        if head.lstrip().startswith("["):
            yield from _array(file.read(), path)
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _object(line, f"line {number}")


def _array(content: str, path: Path) -> Iterator[TableRow]:
    try:
        members = json.loads(content, object_pairs_hook=_once)
    except _DuplicateKeyError:
        raise InputError(f"{path}: an object of its array names a key twice: rename or remove one of them.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} begins with '[' and is not a JSON array ({str(error)[:100]}): write one object in each line."
        ) from error
    for number, member in enumerate(members, start=1):
        is_object = isinstance(member, dict)
        yield TableRow(f"item {number}", member if is_object else {}, None if is_object else NOT_JSON)


def _object(line: str, position: str) -> TableRow:
    try:
        values = json.loads(line, object_pairs_hook=_once)
    except _DuplicateKeyError:
        return TableRow(position, {}, DUPLICATE_KEY)
    except (ValueError, RecursionError):
        return TableRow(position, {}, NOT_JSON)
    return TableRow(position, values) if isinstance(values, dict) else TableRow(position, {}, NOT_JSON)


def _json_lines(path: Path, encoding: str) -> TableFile:
    keys: dict[str, None] = {}
    for row in _objects(path, encoding):
        keys.update(dict.fromkeys(row.values))

    def rows() -> Iterator[TableRow]:
        with explained(path, encoding):
            yield from _objects(path, encoding)

    return TableFile(path, list(keys), rows, "a JSON object in each line")


def _parquet(path: Path) -> TableFile:
    with explained(path, "Parquet"):
        schema = pq.ParquetFile(path).schema_arrow
    check_duplicates(schema.names, str(path))

    def rows() -> Iterator[TableRow]:
        with explained(path, "Parquet"):
            number = 0
            for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS):
                for row in _of_batch(batch):
                    number += 1
                    yield TableRow(f"row {number}", {} if row is None else row, NOT_UTF8 if row is None else None)

    return TableFile(path, schema.names, rows, "Parquet", _class_names(schema))


def _of_batch(batch: Any) -> Iterable[dict[str, Any] | None]:
    """Return the rows' values; None for a row with a text that is not UTF-8."""
    try:
        values: list[dict[str, Any] | None] = batch.to_pylist()
    except UnicodeDecodeError:
        values = []
        for number in range(batch.num_rows):
            try:
                values += batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError:
                values.append(None)
    return values


def _class_names(schema: Any) -> dict[str, Sequence[str]]:
    """Return the names of class numbers by column, from the metadata that the Hub's `datasets` writes."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: list(map(str, of["names"])) for name, of in features.items() if of.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def embeds_all(path: Path, column: str) -> bool:
    """Whether a file is Parquet and each row of the column has bytes, by its footer's statistics. Raises InputError."""
    if path.suffix.lower() != ".parquet":
        return False
    with explained(path, "Parquet"):
        file = pq.ParquetFile(path)
        kind = file.schema_arrow.field(column).type
        leaf = f"{column}.bytes" if pa.types.is_struct(kind) else column
        if not pa.types.is_struct(kind) and not pa.types.is_binary(kind) and not pa.types.is_large_binary(kind):
            return False
        return all(_has_no_null(file.metadata.row_group(number), leaf) for number in range(file.num_row_groups))


def _has_no_null(group: Any, leaf: str) -> bool:
    """Whether a column of a row group, by its path in the file's schema, has a value in each row."""
    chunks = [group.column(index) for index in range(group.num_columns)]
    statistics = next((chunk.statistics for chunk in chunks if chunk.path_in_schema == leaf), None)
    return statistics is not None and statistics.has_null_count and statistics.null_count == 0
