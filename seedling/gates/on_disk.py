"""Rows as a gate sees them: on disk, a column read when it is asked for, and a part at a time where that is enough.

The only importer of duckdb. It answers what is asked of all values of a column at once, and puts on disk what does not fit in memory.
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

MEMORY = "1GB"  # that DuckDB may take; beyond it goes to a folder of its own, which is removed


@dataclass(frozen=True)
class Stored:
    """Parquet files of one schema, in their order, and how many rows each has."""

    files: tuple[Path, ...]
    counts: tuple[int, ...]

    @classmethod
    def generation(cls, folder: Path) -> Stored:
        """The kept rows of a generation."""
        parts = read_manifest(folder)["parts"]
        return cls(tuple(folder / one["file"] for one in parts), tuple(one["rows"] for one in parts))

    @classmethod
    def file(cls, path: Path) -> Stored:
        """One file."""
        with reading(path):
            return cls((path,), (pq.read_metadata(path).num_rows,))

    @property
    def schema(self) -> pa.Schema:
        """Of all files."""
        with reading(self.files[0]):
            return pq.read_schema(self.files[0])


@contextmanager
def database(**stored: Stored) -> Iterator[Any]:
    """A DuckDB connection with a view a name: the files' columns, and `place`, the row's number from 0."""
    import duckdb

    with (
        tempfile.TemporaryDirectory() as spill,
        duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": spill}) as base,
    ):
        for name, one in stored.items():
            files = [str(file) for file in one.files]
            starts = np.cumsum([0, *one.counts[:-1]])
            base.register(f"{name}_starts", pa.table({"filename": files, "start": starts}))
            base.read_parquet(list(map(_literal, files)), filename=True, file_row_number=True).create_view(
                f"{name}_parts"
            )
            base.execute(
                f"CREATE VIEW {name} AS SELECT *, start + file_row_number AS place "
                f"FROM {name}_parts JOIN {name}_starts USING (filename)"
            )
            ((seen,),) = base.execute(f"SELECT count(*) FROM {name}").fetchall()
            if seen != sum(one.counts):
                raise IncompleteGeneration(
                    f"{one.files[0].parent} should hold {sum(one.counts):,} rows, {seen:,} are there: run the stage again."
                )
        yield base


def _literal(path: str) -> str:
    """A path as it is where a pattern is read."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def marked(base: Any, query: str, rows: int) -> NDArray[np.bool_]:
    """(n_rows,): True at the places that the query gives."""
    result = np.zeros(rows, dtype=bool)
    result[base.execute(query).fetchnumpy()["place"]] = True
    return result


@dataclass(frozen=True)
class GatedRows:
    """Rows in their order, numbered from 0: columns of files, of which `shown` are seen, and further ones that were made of them, in memory.

    rows_at_once: of a part in memory.
    """

    stored: Stored
    shown: tuple[str, ...]
    made: pd.DataFrame
    rows_at_once: int = 2**17

    @classmethod
    def of(cls, frame: pd.DataFrame) -> GatedRows:
        """A frame that is in memory anyway."""
        return cls(Stored((), ()), (), frame.reset_index(drop=True))

    def __len__(self) -> int:
        return sum(self.stored.counts) if self.stored.files else len(self.made)

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return [*(name for name in self.shown if name not in self.made), *map(str, self.made.columns)]

    @cached_property
    def empty(self) -> pd.DataFrame:
        """No rows, with each column's type: as of all rows read together."""
        names = [name for name in self.columns if name not in self.made]
        frame = self.made.iloc[:0]
        if names:
            schema = self.stored.schema
            frame = pd.concat([_frame(pa.schema([schema.field(one) for one in names]).empty_table()), frame], axis=1)
        for name in self._with_gaps:
            frame[name] = frame[name].astype(
                object if pa.types.is_boolean(self.stored.schema.field(name).type) else float
            )
        return frame[self.columns]

    @cached_property
    def _with_gaps(self) -> list[str]:
        """The columns of files that hold numbers without a value for what is missing, which is missing somewhere."""
        schema = pa.schema([]) if not self.stored.files else self.stored.schema
        kinds = {name: schema.field(name).type for name in self.shown if name not in self.made}
        whole = [name for name, kind in kinds.items() if pa.types.is_integer(kind) or pa.types.is_boolean(kind)]
        if not whole:
            return []
        counts = ", ".join(f"count({_quoted(name)})" for name in whole)
        with database(rows=self.stored) as base:
            found = base.execute(f"SELECT {counts} FROM rows").fetchone()
        return [name for name, count in zip(whole, found, strict=True) if count < len(self)]

    def read(self, names: Sequence[str]) -> pd.DataFrame:
        """All rows of these columns."""
        parts = list(self.parts(names))
        return parts[0] if len(parts) == 1 else pd.concat(parts)

    def parts(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        """All rows of these columns, so many in memory at a time; at least one part, if an empty one. Their index is the rows' numbers."""
        for rows, files in self._chunks():
            yield self._part(rows, files, names)

    def at(self, places: Iterable[int], names: Sequence[str]) -> pd.DataFrame:
        """The rows with these numbers, which rise."""
        wanted, found = np.asarray(list(places), dtype=np.int64), [self.empty[list(names)]]
        for rows, files in self._chunks():
            mine = wanted[(wanted >= rows.start) & (wanted < rows.stop)]
            if len(mine):
                found.append(self._part(rows, files, names).loc[mine])
        return found[0] if len(found) == 1 else pd.concat(found[1:])

    def texts_on_disk(self, names: Sequence[str]) -> bool:
        """Whether these are columns of texts in the files, of which DuckDB and pandas think the same: numbers that are equal, or missing, are
        not so in all engines.
        """
        kinds = [self.stored.schema.field(one).type for one in names if one in self.shown and one not in self.made]
        return len(kinds) == len(names) and all(map(pa.types.is_string, kinds))

    def repeated(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """(n_rows,): whether another row has the same texts in these columns, where what is missing equals what is missing."""
        columns = ", ".join(map(_quoted, names))
        same = " AND ".join(f"rows.{_quoted(one)} IS NOT DISTINCT FROM several.{_quoted(one)}" for one in names)
        with database(rows=self.stored) as base:
            base.execute(f"CREATE TEMP TABLE several AS SELECT {columns} FROM rows GROUP BY ALL HAVING count(*) > 1")
            return marked(base, f"SELECT place FROM rows JOIN several ON {same}", len(self))

    def missing(self, names: Sequence[str], *, in_all: bool) -> NDArray[np.bool_]:
        """(n_rows,): whether no text is in all of these columns, or else in any of them."""
        condition = (" AND " if in_all else " OR ").join(f"{_quoted(one)} IS NULL" for one in names)
        with database(rows=self.stored) as base:
            return marked(base, f"SELECT place FROM rows WHERE {condition}", len(self))

    def distinct(self, names: Sequence[str]) -> pd.DataFrame:
        """The first row of each combination of values in these columns."""
        found = self.empty[list(names)]
        for part in self.parts(names):
            found = part.drop_duplicates() if found.empty else pd.concat([found, part]).drop_duplicates()
        return found

    def write(self, names: Sequence[str], path: Path) -> None:
        """These columns as one Parquet file."""
        kinds = {name: self.stored.schema.field(name).type for name in names if name not in self.made}
        kinds |= {name: pa.Array.from_pandas(self.made[name]).type for name in names if name in self.made}
        schema = pa.schema([pa.field(name, pa.string() if kinds[name] == pa.null() else kinds[name]) for name in names])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for part in self.parts(names):
                writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))

    def _chunks(self) -> Iterator[tuple[range, list[Path]]]:
        """The numbers of each part's rows, and its files."""
        first, held, files = 0, 0, list[Path]()
        for file, count in zip(self.stored.files, self.stored.counts, strict=True):
            files.append(file)
            held += count
            if held >= self.rows_at_once:
                yield range(first, first + held), files
                first, held, files = first + held, 0, []
        if files or not first:
            yield range(first, len(self)), files

    def _part(self, rows: range, files: Sequence[Path], names: Sequence[str]) -> pd.DataFrame:
        if not files:
            return self.made[list(names)]
        index = pd.RangeIndex(rows.start, rows.stop)
        stored = [name for name in names if name not in self.made]
        frame = pd.DataFrame(index=index)
        if stored:
            frame = _frame(pa.concat_tables([pq.read_table(file, columns=stored) for file in files]), index)
        if frame.select_dtypes(["integer", "bool"]).columns.size:
            gaps = [name for name in self._with_gaps if name in frame]
            frame = frame.astype({name: self.empty[name].dtype for name in gaps})
        for name in names:
            if name in self.made:
                frame[name] = self.made[name].iloc[rows.start : rows.stop]
        return frame[list(names)]


def _frame(table: pa.Table, index: pd.RangeIndex | None = None) -> pd.DataFrame:
    """As pandas reads it, but texts as objects, None for what is missing, the same text once in memory."""
    rows = pd.RangeIndex(table.num_rows) if index is None else index
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_string(column.type):
            once = column.combine_chunks().dictionary_encode()
            texts = np.array([*once.dictionary.to_pylist(), None], dtype=object)
            columns[name] = pd.Series(texts[once.indices.fill_null(-1).to_numpy()], index=rows, dtype=object)
        else:
            columns[name] = column.to_pandas().set_axis(rows)
    return pd.DataFrame(columns, index=rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
