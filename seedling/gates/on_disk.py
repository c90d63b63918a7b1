"""Rows on disk as a gate sees them: columns are read on demand, and a part at a time where that is enough.

The only importer of duckdb, which runs queries over all values of a column and spills to disk what does not fit in
memory.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedling.dataset.generation import read_manifest
from seedling.errors import IncompleteGeneration
from seedling.files.reading import reading

MEMORY_LIMIT = "1GB"  # of DuckDB; it spills the rest into a temporary folder
PART_ROWS = 2**17


@dataclass(frozen=True)
class StoredRows:
    """Parquet files with one schema, in order, and the number of rows of each."""

    files: tuple[Path, ...]
    counts: tuple[int, ...]

    @classmethod
    def generation(cls, folder: Path) -> StoredRows:
        """The kept rows of a generation."""
        parts = read_manifest(folder).parts
        return cls(tuple(folder / part.file for part in parts), tuple(part.rows for part in parts))

    @classmethod
    def file(cls, path: Path) -> StoredRows:
        """The rows of one file."""
        with reading(path):
            return cls((path,), (pq.read_metadata(path).num_rows,))

    @property
    def schema(self) -> pa.Schema:
        """The schema of all files."""
        with reading(self.files[0]):
            return pq.read_schema(self.files[0])


@contextmanager
def database(**stored: StoredRows) -> Iterator[Any]:
    """Open a DuckDB connection with one view per name: the files' columns, and `row_index`, the row's number from 0.

    Raises IncompleteGeneration if the files do not have as many rows as their counts.
    """
    import duckdb

    with (
        tempfile.TemporaryDirectory() as spill_folder,
        duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": spill_folder}) as connection,
    ):
        for name, rows in stored.items():
            files = [str(file) for file in rows.files]
            starts = np.cumsum([0, *rows.counts[:-1]])
            connection.register(f"{name}_starts", pa.table({"filename": files, "start": pa.array(starts)}))
            parts = connection.read_parquet(list(map(_escape_glob, files)), filename=True, file_row_number=True)
            parts.create_view(f"{name}_parts")
            connection.execute(
                f"CREATE VIEW {name} AS SELECT *, start + file_row_number AS row_index "
                f"FROM {name}_parts JOIN {name}_starts USING (filename)"
            )
            ((count,),) = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
            if count != sum(rows.counts):
                raise IncompleteGeneration(
                    f"{rows.files[0].parent} has {count:,} rows instead of {sum(rows.counts):,}: run the stage again."
                )
        yield connection


def _escape_glob(path: str) -> str:
    """The path as a glob pattern that matches only itself."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def rows_selected(connection: Any, query: str, rows: int) -> NDArray[np.bool_]:
    """(n_rows,): whether the query returns the row's `row_index`."""
    result = np.zeros(rows, dtype=bool)
    result[connection.execute(query).fetchnumpy()["row_index"]] = True
    return result


@dataclass(frozen=True)
class GatedRows:
    """Rows in order, numbered from 0.

    stored: the files; read_columns: the columns that are read from them; computed: further columns, in memory;
    rows_at_once: the number of rows of a part in memory.
    """

    stored: StoredRows
    read_columns: tuple[str, ...]
    computed: pd.DataFrame
    rows_at_once: int = PART_ROWS

    @classmethod
    def of(cls, frame: pd.DataFrame) -> GatedRows:
        """The rows of a frame in memory."""
        return cls(StoredRows((), ()), (), frame.reset_index(drop=True))

    def __len__(self) -> int:
        return sum(self.stored.counts) if self.stored.files else len(self.computed)

    @property
    def columns(self) -> list[str]:
        """The names of all columns."""
        return [*(name for name in self.read_columns if name not in self.computed), *map(str, self.computed.columns)]

    @cached_property
    def empty(self) -> pd.DataFrame:
        """A frame without rows that has the column types of all rows together."""
        names = [name for name in self.columns if name not in self.computed]
        frame = self.computed.iloc[:0]
        if names:
            schema = pa.schema([self.stored.schema.field(name) for name in names])
            frame = pd.concat([_frame(schema.empty_table()), frame], axis=1)
        for name in self._columns_with_gaps:
            is_boolean = pa.types.is_boolean(self.stored.schema.field(name).type)
            frame[name] = frame[name].astype(object if is_boolean else float)
        return frame[self.columns]

    @cached_property
    def _columns_with_gaps(self) -> list[str]:
        """The stored integer and boolean columns with missing values, which pandas reads as another type."""
        schema = pa.schema([]) if not self.stored.files else self.stored.schema
        types = {name: schema.field(name).type for name in self.read_columns if name not in self.computed}
        names = [name for name, kind in types.items() if pa.types.is_integer(kind) or pa.types.is_boolean(kind)]
        if not names:
            return []
        selection = ", ".join(f"count({_quoted(name)})" for name in names)
        with database(rows=self.stored) as connection:
            counts = connection.execute(f"SELECT {selection} FROM rows").fetchone()
        return [name for name, count in zip(names, counts, strict=True) if count < len(self)]

    def read(self, names: Sequence[str]) -> pd.DataFrame:
        """All rows of these columns."""
        parts = list(self.parts(names))
        return parts[0] if len(parts) == 1 else pd.concat(parts)

    def parts(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield all rows of these columns in parts, at least one, possibly empty. Their index is the row number."""
        for rows, files in self._chunks():
            yield self._part(rows, files, names)

    def at(self, row_numbers: Iterable[int], names: Sequence[str]) -> pd.DataFrame:
        """The rows with these numbers, in ascending order."""
        numbers, frames = np.asarray(list(row_numbers), dtype=np.int64), [self.empty[list(names)]]
        for rows, files in self._chunks():
            in_chunk = numbers[(numbers >= rows.start) & (numbers < rows.stop)]
            if len(in_chunk):
                frames.append(self._part(rows, files, names).loc[in_chunk])
        return frames[0] if len(frames) == 1 else pd.concat(frames[1:])

    def texts_on_disk(self, names: Sequence[str]) -> bool:
        """Whether all of these are stored text columns.

        For texts, DuckDB and pandas agree on which values are equal or missing. For numbers they do not always.
        """
        types = [
            self.stored.schema.field(name).type
            for name in names
            if name in self.read_columns and name not in self.computed
        ]
        return len(types) == len(names) and all(map(pa.types.is_string, types))

    def repeated(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """(n_rows,): whether another row has the same texts in these columns; missing values are equal."""
        columns = ", ".join(map(_quoted, names))
        same = " AND ".join(f"rows.{_quoted(name)} IS NOT DISTINCT FROM several.{_quoted(name)}" for name in names)
        with database(rows=self.stored) as connection:
            connection.execute(
                f"CREATE TEMP TABLE several AS SELECT {columns} FROM rows GROUP BY ALL HAVING count(*) > 1"
            )
            return rows_selected(connection, f"SELECT row_index FROM rows JOIN several ON {same}", len(self))

    def missing(self, names: Sequence[str], *, in_all: bool) -> NDArray[np.bool_]:
        """(n_rows,): whether the value is missing in all of these columns, or in any of them."""
        condition = (" AND " if in_all else " OR ").join(f"{_quoted(name)} IS NULL" for name in names)
        with database(rows=self.stored) as connection:
            return rows_selected(connection, f"SELECT row_index FROM rows WHERE {condition}", len(self))

    def distinct(self, names: Sequence[str]) -> pd.DataFrame:
        """The first row of each combination of values in these columns."""
        rows = self.empty[list(names)]
        for part in self.parts(names):
            rows = part.drop_duplicates() if rows.empty else pd.concat([rows, part]).drop_duplicates()
        return rows

    def write(self, names: Sequence[str], path: Path) -> None:
        """Write these columns as one Parquet file."""
        types = {name: self.stored.schema.field(name).type for name in names if name not in self.computed}
        types |= {name: pa.Array.from_pandas(self.computed[name]).type for name in names if name in self.computed}
        schema = pa.schema([pa.field(name, pa.string() if types[name] == pa.null() else types[name]) for name in names])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for part in self.parts(names):
                writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))

    def _chunks(self) -> Iterator[tuple[range, list[Path]]]:
        """The row numbers and the files of each part."""
        first, count, files = 0, 0, list[Path]()
        for file, rows in zip(self.stored.files, self.stored.counts, strict=True):
            files.append(file)
            count += rows
            if count >= self.rows_at_once:
                yield range(first, first + count), files
                first, count, files = first + count, 0, []
        if files or not first:
            yield range(first, len(self)), files

    def _part(self, rows: range, files: Sequence[Path], names: Sequence[str]) -> pd.DataFrame:
        if not files:
            return self.computed[list(names)]
        index = pd.RangeIndex(rows.start, rows.stop)
        stored = [name for name in names if name not in self.computed]
        frame = pd.DataFrame(index=index)
        if stored:
            frame = _frame(pa.concat_tables([pq.read_table(file, columns=stored) for file in files]), index)
        if frame.select_dtypes(["integer", "bool"]).columns.size:
            with_gaps = [name for name in self._columns_with_gaps if name in frame]
            frame = frame.astype({name: self.empty[name].dtype for name in with_gaps})
        for name in names:
            if name in self.computed:
                frame[name] = self.computed[name].iloc[rows.start : rows.stop]
        return frame[list(names)]


def _frame(table: pa.Table, index: pd.RangeIndex | None = None) -> pd.DataFrame:
    """The table in pandas' types, with texts as objects and None if missing; equal texts share memory."""
    rows = pd.RangeIndex(table.num_rows) if index is None else index
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_string(column.type):
            encoded = column.combine_chunks().dictionary_encode()
            texts = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
            columns[name] = pd.Series(texts[encoded.indices.fill_null(-1).to_numpy()], index=rows, dtype=object)
        else:
            columns[name] = column.to_pandas().set_axis(rows)
    return pd.DataFrame(columns, index=rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
