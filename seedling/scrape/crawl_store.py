"""Stores what is known of a web source between runs, and after a kill: answers, items, visits, and hosts' rate limits.

One SQLite file per source, in `.seedling/web/`. Times are stored here, never in the bytes of a generation.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from seedling.errors import DamagedFile
from seedling.faults import explain
from seedling.records.crawl_rates import CrawlRatePoint
from seedling.scrape.items import CrawledItem

TABLES = """
CREATE TABLE IF NOT EXISTS visits (
    number INTEGER PRIMARY KEY, as_of TEXT UNIQUE, definition TEXT, finished INTEGER NOT NULL DEFAULT 0,
    counts TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, url TEXT, status INTEGER, headers TEXT, body BLOB, visit INTEGER, fetched REAL);
CREATE INDEX IF NOT EXISTS by_url ON answers (url);
CREATE TABLE IF NOT EXISTS items (
    origin TEXT, page TEXT, place TEXT, line TEXT, body TEXT, visit INTEGER, PRIMARY KEY (origin, page, place));
CREATE TABLE IF NOT EXISTS done (number INTEGER PRIMARY KEY, visit INTEGER, absent INTEGER);
CREATE TABLE IF NOT EXISTS hosts (host TEXT PRIMARY KEY, rate REAL, low REAL, high REAL);
CREATE TABLE IF NOT EXISTS pace (
    visit INTEGER, host TEXT, seconds REAL, rate REAL, low REAL, high REAL, answers INTEGER, refusals INTEGER);
"""
REMEDY = (
    "restore it from a backup, or save what can be read (`sqlite3 {path} .recover | sqlite3 new.sqlite`, then put "
    "new.sqlite in its place), or delete it: its source is then collected again, and what the site no longer has is "
    "lost"
)
FAULTY = 2  # in the column `absent`
COMPRESSED_TYPES = ("text/", "application/json", "application/xhtml", "application/xml")  # that zlib makes smaller


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer. visit: the visit that last confirmed it; fetched: seconds since 1970."""

    url: str
    status: int
    headers: Mapping[str, list[str]]
    body: bytes
    visit: int
    fetched: float


def _explained(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """Return the error with a remedy. A damaged file is never deleted here: it may hold what the site no longer has."""
    explained = explain(error, writing=path, database=path)
    if isinstance(explained, DamagedFile):
        return DamagedFile(path, error, REMEDY.format(path=path))
    return explained or error


class CrawlStore:
    """One source's file. Each call is a transaction, so that a kill loses only the call in progress."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._base = sqlite3.connect(path, isolation_level=None, timeout=30)
        try:
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.executescript(TABLES)
        except sqlite3.DatabaseError as error:
            self._base.close()
            raise _explained(error, path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._base.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise _explained(error, self.path) from error

    def visit(self, as_of: str | None, definition: str) -> tuple[int, bool]:
        """Return the number of the visit of this name, which is created if it is new, and whether it is finished.

        definition: a hash of what the source requests; if it has changed, items are read again, from the visit's stored
        answers if there are any.
        """
        name = as_of or ""
        row = self._base.execute("SELECT number, definition, finished FROM visits WHERE as_of = ?", (name,)).fetchone()
        if row and row[1] == definition:
            return row[0], bool(row[2])
        if row:
            self._base.execute("UPDATE visits SET definition = ?, finished = 0 WHERE number = ?", (definition, row[0]))
            self._base.execute("DELETE FROM items WHERE visit = ?", (row[0],))
            self._base.execute("DELETE FROM done")
            return row[0], False
        last = self._base.execute("SELECT definition FROM visits ORDER BY number DESC LIMIT 1").fetchone()
        if last and last[0] != definition:  # its numbers were read under another definition
            self._base.execute("DELETE FROM done")
        cursor = self._base.execute("INSERT INTO visits (as_of, definition) VALUES (?, ?)", (name, definition))
        return int(cursor.lastrowid or 0), False

    def rename_visit(self, old: str, new: str) -> None:
        """Rename the visit `old` to `new`; an earlier visit of that name is deleted, and its items stay."""
        with self._base:
            self._base.execute("BEGIN")
            if self._base.execute("SELECT 1 FROM visits WHERE as_of = ?", (old,)).fetchone():
                self._base.execute("DELETE FROM visits WHERE as_of = ?", (new,))
                self._base.execute("UPDATE visits SET as_of = ? WHERE as_of = ?", (new, old))

    def finish(self, visit: int, counts: Mapping[str, int]) -> None:
        """Mark the visit as finished. counts: reason → pages or numbers without an item that are not errors."""
        counts_json = json.dumps(counts, sort_keys=True)
        self._base.execute("UPDATE visits SET finished = 1, counts = ? WHERE number = ?", (counts_json, visit))

    def counts(self, visit: int) -> dict[str, int]:
        """Return the counts that `finish` stored."""
        row = self._base.execute("SELECT counts FROM visits WHERE number = ?", (visit,)).fetchone()
        counts: dict[str, int] = json.loads(row[0])
        return counts

    def visits(self) -> list[str]:
        """Return the names of the visits, the earliest first."""
        rows = self._base.execute("SELECT as_of FROM visits ORDER BY number")
        return [name for (name,) in rows]

    def answer(self, key: str) -> Answer | None:
        """Return the answer to the request with this fingerprint."""
        row = self._base.execute(
            "SELECT url, status, headers, body, visit, fetched FROM answers WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        headers = json.loads(row[2])
        return Answer(row[0], row[1], headers, _unpacked(row[3]), row[4], row[5])

    def store_answer(
        self, key: str, url: str, status: int, headers: Mapping[str, list[str]], body: bytes, visit: int
    ) -> None:
        """Store an answer, and replace an earlier one."""
        kind = next((values[0] for name, values in headers.items() if name.lower() == "content-type" and values), "")
        stored = b"z" + zlib.compress(body, 1) if kind.startswith(COMPRESSED_TYPES) else b"-" + body
        self._base.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, url, status, json.dumps(headers), stored, visit, time.time()),
        )

    def store_answer_as(self, key: str, url: str, target_key: str) -> None:
        """Store the answer of `target_key` also under the key and URL from which a redirect led to it."""
        self._base.execute(
            "INSERT OR REPLACE INTO answers "
            "SELECT ?, ?, status, headers, body, visit, fetched FROM answers WHERE key = ?",
            (key, url, target_key),
        )

    def stored_bytes(self, visit: int) -> int:
        """Return the total size in bytes of the visit's answers, as they are stored."""
        (count,) = self._base.execute("SELECT SUM(LENGTH(body)) FROM answers WHERE visit = ?", (visit,)).fetchone()
        return int(count or 0)

    def forget_answer(self, key: str) -> None:
        """Delete an answer that must be requested again."""
        self._base.execute("DELETE FROM answers WHERE key = ?", (key,))

    def store_item(self, record: CrawledItem, visit: int, *, page: str, item_id: str, body: str | None = None) -> None:
        """Store an item's record. item_id: unique on its page; body: the key of the answer with its content."""
        record_json = json.dumps(record, sort_keys=True, ensure_ascii=False)
        self._base.execute(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?)",
            (record["origin"], page, item_id, record_json, body, visit),
        )

    def forget(self, origin: str, item_id: str) -> None:
        """Delete a record that is no longer true, such as that a page failed."""
        self._base.execute("DELETE FROM items WHERE origin = ? AND place = ?", (origin, item_id))

    def items(self, until: int) -> Iterator[tuple[CrawledItem, bytes | None]]:
        """Yield each item's record by origin, from the last visit up to `until` that saw it, with its content if any.

        Failures are from the visit `until` alone, and only for items that no visit found.
        """
        with closing(self._base.cursor()) as cursor:
            cursor.execute(
                "SELECT items.line, answers.body FROM items "
                "JOIN (SELECT origin, "
                "MAX(CASE WHEN json_extract(line, '$.reason') IS NULL THEN visit END) AS good FROM items "
                "WHERE visit <= ? GROUP BY origin) AS seen ON items.origin = seen.origin "
                "LEFT JOIN answers ON items.body = answers.key "
                "WHERE CASE WHEN json_extract(items.line, '$.reason') IS NULL THEN items.visit = seen.good "
                "ELSE seen.good IS NULL AND items.visit = ? END ORDER BY items.origin, items.line",
                (until, until),
            )
            for record_json, body in cursor:
                yield json.loads(record_json), None if body is None else _unpacked(body)

    def count_items(self, visit: int) -> tuple[int, int]:
        """Return the number of items of all visits, and how many of them this visit saw first."""
        seen = (
            "SELECT origin, MIN(visit) AS first FROM items WHERE json_extract(line, '$.reason') IS NULL GROUP BY origin"
        )
        row = self._base.execute(f"SELECT COUNT(*), COALESCE(SUM(first = ?), 0) FROM ({seen})", (visit,)).fetchone()  # noqa: S608
        return row[0], row[1]

    def mark_done(self, number: int, visit: int, *, absent: bool, faulty: bool = False) -> None:
        """Mark a number of a sequence as done in this visit.

        absent: the site has nothing there; faulty: what it has is not an item. The next visit requests both again.
        """
        self._base.execute(
            "INSERT OR REPLACE INTO done VALUES (?, ?, ?)", (number, visit, FAULTY if faulty else absent)
        )

    def done(self, visit: int, *, again: bool) -> Iterator[int]:
        """Yield the numbers that need not be requested, in ascending order.

        These are the numbers of this visit, and those that earlier visits found, unless `again`.
        """
        cursor = self._base.cursor()
        cursor.execute("SELECT number FROM done WHERE visit = ? OR NOT (absent OR ?) ORDER BY number", (visit, again))
        return (number for (number,) in cursor)

    def absent(self, visit: int) -> int:
        """Return how many numbers the site has nothing for."""
        return int(
            self._base.execute("SELECT COUNT(*) FROM done WHERE visit = ? AND absent = 1", (visit,)).fetchone()[0]
        )

    def fetched(self, url: str) -> float | None:
        """Return when the URL was last requested, in seconds since 1970."""
        row = self._base.execute("SELECT MAX(fetched) FROM answers WHERE url = ?", (url,)).fetchone()
        return None if row is None else row[0]

    def host(self, name: str) -> tuple[float, float | None, float | None] | None:
        """Return a host's request rate from earlier runs, in requests per second, and the bounds of its limit."""
        row = self._base.execute("SELECT rate, low, high FROM hosts WHERE host = ?", (name,)).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def store_host(self, name: str, rate: float, low: float | None, high: float | None) -> None:
        """Store a host's request rate and the bounds of its limit for the next run."""
        self._base.execute("INSERT OR REPLACE INTO hosts VALUES (?, ?, ?, ?)", (name, rate, low, high))

    def store_rate(
        self, visit: int, host: str, seconds: float, state: tuple[float, float | None, float | None, int, int]
    ) -> None:
        """Store a point of the rate plot: rate, low, high, answers and refusals, this many seconds after the start."""
        self._base.execute("INSERT INTO pace VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (visit, host, seconds, *state))

    def rates(self) -> tuple[CrawlRatePoint, ...]:
        """Return the points of the rate plot, of the last visit that has any."""
        cursor = self._base.execute("SELECT * FROM pace WHERE visit = (SELECT MAX(visit) FROM pace) ORDER BY rowid")
        names = [column[0] for column in cursor.description]
        return tuple(CrawlRatePoint(**dict(zip(names, row, strict=True))) for row in cursor)


def _unpacked(stored: bytes) -> bytes:
    return zlib.decompress(stored[1:]) if stored[:1] == b"z" else stored[1:]
