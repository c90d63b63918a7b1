"""An index of a generation by id: which row group of which part holds a row.

It is read from the column of ids alone and kept per process, so that reading k rows reads at most k row groups,
however many rows the generation has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedling.files.reading import reading

KEPT_INDEXES = 8  # one per generation of a run; an index has about 50 bytes per row


@dataclass(frozen=True)
class RowGroup:
    """Rows to read from a row group of a part. rows: their numbers within it, ascending; ids: of these rows."""

    file: Path
    number: int
    rows: NDArray[np.intp]
    ids: list[str]


@dataclass(frozen=True)
class RowIndex:
    """The place of each row of a generation.

    ids: (n,), sorted; positions: (n,), the row's number in the generation, in the order of ids; starts: the first row
    number of each row group, and the number of rows at the end; groups: the part and the number of each row group.
    """

    ids: NDArray[np.bytes_]
    positions: NDArray[np.intp]
    starts: NDArray[np.intp]
    groups: Sequence[tuple[Path, int]]

    def find(self, ids: Iterable[str]) -> list[RowGroup]:
        """Return the row groups with rows of these ids, in the order of the generation.

        Of several rows with the same id, it is the first. Ids that the generation does not have are left out.
        """
        keys = np.array([row_id.encode() for row_id in ids], dtype=bytes)
        if not len(keys) or not len(self.ids):
            return []
        nearest = np.minimum(np.searchsorted(self.ids, keys), len(self.ids) - 1)
        matches = nearest[self.ids[nearest] == keys]
        rows, first = np.unique(self.positions[matches], return_index=True)
        row_ids = self.ids[matches[first]]
        group_of_row = np.searchsorted(self.starts, rows, side="right") - 1
        bounds = np.flatnonzero(np.diff(group_of_row, prepend=-1, append=-1))
        return [
            RowGroup(
                *self.groups[group_of_row[start]],
                rows[start:end] - self.starts[group_of_row[start]],
                [row_id.decode() for row_id in row_ids[start:end].tolist()],
            )
            for start, end in pairwise(bounds)
        ]


def row_index(files: Sequence[Path]) -> RowIndex:
    """Return the index of these Parquet files, which is kept until one of them changes."""
    return _read_index(tuple(files), tuple(_version(path) for path in files))


def _version(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written again."""
    with reading(path):
        stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=KEPT_INDEXES)
def _read_index(files: tuple[Path, ...], versions: tuple[tuple[int, int, int], ...]) -> RowIndex:
    ids: list[bytes] = []
    starts, groups = [0], []
    for path in files:
        with reading(path), pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                column = file.read_row_group(number, columns=["id"])["id"]
                ids += [row_id.encode() for row_id in column.to_pylist()]
                groups.append((path, number))
                starts.append(len(ids))
    keys = np.array(ids, dtype=bytes)
    order = np.argsort(keys, kind="stable")  # equal ids stay in the order of the generation, for `find`
    return RowIndex(keys[order], order, np.array(starts, dtype=np.intp), groups)
