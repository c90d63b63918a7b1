"""Features that were made before: an encoder's work, and that of counting words, is done once a row for all folds and rounds."""

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

ROWS_TOGETHER = 4_096  # that each of several processes encodes before they meet


@dataclass
class FeatureCache:
    """Features that were made before, by key and row id, which says all that they depend on. dtype: as they are kept."""

    folder: Path
    key: str
    dtype: type[np.floating[Any]] = np.float16

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"{self.key}.sqlite"
        with self._made_anew_if_damaged():
            self._create()

    def _create(self) -> None:
        with closing(self._open()) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS features (id TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._path.touch()  # `seedling clean` goes by the last use

    @contextmanager
    def _made_anew_if_damaged(self) -> Iterator[None]:
        """Where the file turns out to be damaged, a new one takes its place: all that it holds can be computed again."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not isinstance(explain(error, database=self._path), DamagedFile):
                raise
            state_once(f"The feature cache {self._path} is damaged ({error}): it is made anew, nothing else is lost.")
            for suffix in ("", "-wal", "-shm", "-journal"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._create()

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    def get(self, ids: Sequence[str]) -> dict[str, Features]:
        """What is known of these ids."""
        found: dict[str, Features] = {}
        with self._made_anew_if_damaged(), closing(self._open()) as database:
            for first in range(0, len(ids), 500):
                some = ids[first : first + 500]
                marks = ",".join("?" * len(some))
                for one, value in database.execute(f"SELECT id, value FROM features WHERE id IN ({marks})", some):  # noqa: S608
                    found[one] = np.frombuffer(value, self.dtype).astype(np.float32)
        return found

    def put(self, ids: Sequence[str], features: Features) -> None:
        """Keeps these; whole blocks, so that a kill loses one at most, or of several processes `ROWS_TOGETHER` each: one
        alone writes.
        """
        if not this_process().leads:
            return
        rows = [(one, row.astype(self.dtype).tobytes()) for one, row in zip(ids, features, strict=True)]
        with self._made_anew_if_damaged(), closing(self._open()) as database, database:
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
    """(n, d), in the ids' order; only rows that the cache lacks are read and encoded, by several processes each its share.

    load: gives the encoder, which takes seconds, and is called only where rows are missing; read: called with their ids; remote: what a
    cluster's workers do instead.
    """
    process = this_process()
    known = cache.get(ids)
    # As the one that writes saw it: its first rows may be there already when another process looks.
    missing: list[str] = process.by_leader(lambda: [one for one in dict.fromkeys(ids) if one not in known])
    before = len(known)
    progress("encode", before, before + len(missing))

    def encoded(share: Sequence[str]) -> dict[str, Features]:
        waiting: list[str] = []

        def each() -> Iterator[bytes | str]:
            for one, payload in read(share):
                waiting.append(one)
                yield payload

        made: dict[str, Features] = {}
        if remote is not None and on_cluster():
            blocks = over_cluster(remote, pieces_of(each(), *remote.piece_size))
        else:
            blocks = load().encode(each(), max_megapixels)
        for block in blocks:
            those = waiting[len(made) : len(made) + len(block)]
            cache.put(those, block)
            made.update(zip(those, block, strict=True))
            done = len(known) - before + len(made) * process.count
            progress("encode", before + min(done, len(missing)), before + len(missing))
        return made

    if process.count == 1:
        known.update(encoded(missing) if missing else {})
    for first in range(0, len(missing), ROWS_TOGETHER * process.count) if process.count > 1 else ():
        some = missing[first : first + ROWS_TOGETHER * process.count]
        shares = [some[number :: process.count] for number in range(process.count)]
        for number, part in enumerate(process.spread(encoded, shares, "encode")):
            known.update(part)
            if number != process.number and part:
                cache.put(list(part), np.stack(list(part.values())))
    return np.stack([known[one] for one in ids]) if len(ids) else np.zeros((0, 1), np.float32)
