"""A cache of features: encoding and counting words are done once per row for all folds and rounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seedling.errors import DamagedFile
from seedling.faults import explain
from seedling.features.classical import Read, pieces_of
from seedling.features.encoder import EncodePiece, Encoder, Features
from seedling.parallel.cluster import on_cluster, over_cluster
from seedling.parallel.executor import this_process
from seedling.progress import Progress, silent
from seedling.terminal.notices import state_once

ROWS_PER_PROCESS = 4_096  # that each of several processes encodes between exchanges


@dataclass
class FeatureCache:
    """Cached features by row id; the key covers everything that features depend on. dtype: of the stored values."""

    folder: Path
    key: str
    dtype: type[np.floating[Any]] = np.float16

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"{self.key}.sqlite"
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
            for suffix in ("", "-wal", "-shm", "-journal"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._create()

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    def get(self, ids: Sequence[str]) -> dict[str, Features]:
        """Return the cached features of these ids."""
        features: dict[str, Features] = {}
        with self._recreated_if_damaged(), closing(self._open()) as database:
            for first in range(0, len(ids), 500):
                block = ids[first : first + 500]
                placeholders = ",".join("?" * len(block))
                query = f"SELECT id, value FROM features WHERE id IN ({placeholders})"  # noqa: S608
                for row_id, value in database.execute(query, block):
                    features[row_id] = np.frombuffer(value, self.dtype).astype(np.float32)
        return features

    def put(self, ids: Sequence[str], features: Features) -> None:
        """Store features; only the leading process writes.

        Callers pass whole blocks, so a kill loses at most one block, or `ROWS_PER_PROCESS` rows per process.
        """
        if not this_process().leads:
            return
        rows = [(row_id, row.astype(self.dtype).tobytes()) for row_id, row in zip(ids, features, strict=True)]
        with self._recreated_if_damaged(), closing(self._open()) as database, database:
            database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)


def encode_rows(
    load: Callable[[], Encoder],
    ids: Sequence[str],
    read: Read,
    cache: FeatureCache,
    max_megapixels: float,
    progress: Progress = silent,
    remote: EncodePiece | None = None,
) -> Features:
    """(n, d), in the order of the ids; only rows that the cache lacks are encoded, divided among the processes.

    load: loads the encoder, which takes seconds, and is called only if rows are missing; read: called with the missing
    ids; remote: the function for workers of a cluster.
    """
    process = this_process()
    features_of_id = cache.get(ids)
    # The leader decides: it may write rows before another process reads the cache.
    missing: list[str] = process.by_leader(
        lambda: [row_id for row_id in dict.fromkeys(ids) if row_id not in features_of_id]
    )
    n_cached = len(features_of_id)
    progress("encode", n_cached, n_cached + len(missing))

    def encoded(share: Sequence[str]) -> dict[str, Features]:
        read_ids: list[str] = []

        def payloads() -> Iterator[bytes | str]:
            for row_id, payload in read(share):
                read_ids.append(row_id)
                yield payload

        encoded_rows: dict[str, Features] = {}
        if remote is not None and on_cluster():
            blocks = over_cluster(remote, pieces_of(payloads(), *remote.piece_size))
        else:
            blocks = load().encode(payloads(), max_megapixels)
        for block in blocks:
            block_ids = read_ids[len(encoded_rows) : len(encoded_rows) + len(block)]
            cache.put(block_ids, block)
            encoded_rows.update(zip(block_ids, block, strict=True))
            n_done = len(features_of_id) - n_cached + len(encoded_rows) * process.count
            progress("encode", n_cached + min(n_done, len(missing)), n_cached + len(missing))
        return encoded_rows

    if process.count == 1:
        features_of_id.update(encoded(missing) if missing else {})
    for first in range(0, len(missing), ROWS_PER_PROCESS * process.count) if process.count > 1 else ():
        exchanged_ids = missing[first : first + ROWS_PER_PROCESS * process.count]
        shares = [exchanged_ids[number :: process.count] for number in range(process.count)]
        for number, part in enumerate(process.map(encoded, shares, "encode")):
            features_of_id.update(part)
            if number != process.number and part:
                cache.put(list(part), np.stack(list(part.values())))
    return np.stack([features_of_id[row_id] for row_id in ids]) if len(ids) else np.zeros((0, 1), np.float32)
