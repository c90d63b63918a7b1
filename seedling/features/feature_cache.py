"""A cache of values by row id: what depends on a row's content alone is computed once per content and workspace."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.errors import DamagedFile
from seedling.faults import explain
from seedling.parallel.executor import this_process
from seedling.terminal.notices import state_once
from seedling.workspace import feature_file

Features = NDArray[np.float32]  # (n, d)
MAX_FILE_BYTES = 4 * 2**30  # a larger file keeps its values and gets no more
IDS_PER_QUERY = 500


@dataclass
class FeatureCache:
    """Cached values by row id, in a file per key. Several threads and processes may use it at the same time.

    key: covers everything that the values depend on besides the row's content; dtype: of stored features.
    """

    folder: Path
    key: str
    dtype: type[np.floating[Any]] = np.float16
    max_file_bytes: int = MAX_FILE_BYTES

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / feature_file(self.key)
        with self._recreated_if_damaged():
            self._create()

    def _create(self) -> None:
        with closing(self._open()) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS features (id TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._path.touch()  # `seedling clean` uses the time of the last use

    @contextmanager
    def _recreated_if_damaged(self) -> Iterator[None]:
        """Replace a damaged file by an empty one: everything in it can be computed again."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not isinstance(explain(error, database=self._path), DamagedFile):
                raise
            state_once(
                f"The feature cache {self._path} is damaged ({error}) and is created again. No other data is lost."
            )
            self._remove()
            self._create()

    def _is_full(self) -> bool:
        return self._path.is_file() and self._path.stat().st_size > self.max_file_bytes

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    def stored(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the cached values of these ids."""
        values: dict[str, bytes] = {}
        with self._recreated_if_damaged(), closing(self._open()) as database:
            for first in range(0, len(ids), IDS_PER_QUERY):
                block = ids[first : first + IDS_PER_QUERY]
                placeholders = ",".join("?" * len(block))
                query = f"SELECT id, value FROM features WHERE id IN ({placeholders})"  # noqa: S608
                values.update(database.execute(query, block))
        return values

    def store(self, values: Sequence[tuple[str, bytes]]) -> None:
        """Store values by id in one transaction; only the leading process writes.

        Callers pass whole blocks, so that a kill loses at most one block per process.
        """
        if not values or not this_process().leads:
            return
        if self._is_full():
            state_once(
                f"The feature cache {self._path} is full ({self.max_file_bytes / 2**30:.0f} GB): features of new rows "
                "are computed in each run. Delete the file to start again with the present rows."
            )
            return
        with self._recreated_if_damaged(), closing(self._open()) as database, database:
            database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", values)

    def get(self, ids: Sequence[str]) -> dict[str, Features]:
        """Return the cached features of these ids."""
        return {
            row_id: np.frombuffer(value, self.dtype).astype(np.float32) for row_id, value in self.stored(ids).items()
        }

    def put(self, ids: Sequence[str], features: Features) -> None:
        """Store features, as `store` does."""
        self.store([(row_id, row.astype(self.dtype).tobytes()) for row_id, row in zip(ids, features, strict=True)])
