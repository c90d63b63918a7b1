"""An index of a generation by id: which row group of which part holds a row.

Reading k rows reads at most k row groups, however many rows the generation has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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
    positions: NDArray[np.int32]
    starts: NDArray[np.intp]
    groups: Sequence[tuple[Path, int]]

    @classmethod
    def of(cls, ids_of_groups: Mapping[tuple[Path, int], NDArray[np.bytes_]]) -> RowIndex:
        """Index rows. ids_of_groups: the ids of each row group by its part and number, in the generation's order."""
        ids = np.concatenate([np.zeros(0, dtype=bytes), *ids_of_groups.values()])
        order = np.argsort(ids, kind="stable")  # equal ids stay in the order of the generation, for `find`
        starts = np.cumsum([0, *map(len, ids_of_groups.values())], dtype=np.intp)
        return cls(ids[order], order.astype(np.int32), starts, list(ids_of_groups))

    def parts_with(self, ids: Iterable[str]) -> list[Path]:
        """Return the parts with rows of these ids, in the order of the generation."""
        keys = np.array([row_id.encode() for row_id in ids], dtype=bytes)
        if not len(keys) or not len(self.ids):
            return []
        first, end = np.searchsorted(self.ids, keys, side="left"), np.searchsorted(self.ids, keys, side="right")
        positions = [self.positions[start:stop] for start, stop in zip(first, end, strict=True) if start < stop]
        if not positions:
            return []
        groups = np.unique(np.searchsorted(self.starts, np.concatenate(positions), side="right") - 1)
        return list(dict.fromkeys(self.groups[group][0] for group in groups))

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
        row_groups = []
        for start, end in pairwise(bounds):
            group = int(group_of_row[start])
            file, number = self.groups[group]
            group_ids = [row_id.decode() for row_id in row_ids[start:end].tolist()]
            row_groups.append(RowGroup(file, number, rows[start:end] - self.starts[group], group_ids))
        return row_groups
