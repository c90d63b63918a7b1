"""What is remembered of a source on the web, between runs and through a kill: answers, items, visits, and how fast each host may be asked.

One SQLite file a source, in `.seedling/web/`. Times lie here, and never in a generation's bytes.
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
from typing import Any, Self

from seedling.errors import DamagedFile
from seedling.faults import explain

TABLES = """
CREATE TABLE IF NOT EXISTS visits (
    number INTEGER PRIMARY KEY, as_of TEXT UNIQUE, definition TEXT, finished INTEGER NOT NULL DEFAULT 0, counts TEXT NOT NULL DEFAULT '{}');
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
    "restore it from a backup, or save what can be read (`sqlite3 {path} .recover | sqlite3 new.sqlite`, then put new.sqlite in "
    "its place), or delete it: its source is then collected anew, and what the site no longer has is lost"
)
FAULTY = 2  # in the column `absent`
PACKED = ("text/", "application/json", "application/xhtml", "application/xml")  # kinds that zlib makes smaller


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer; visit: in which it was last confirmed; fetched: seconds since 1970."""

    url: str
    status: int
    headers: Mapping[str, list[str]]
    body: bytes
    visit: int
    fetched: float


def _explained(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """Of a damaged file what to do about it, which nobody may do unasked: it holds what a site may no longer have."""
    found = explain(error, writing=path, database=path)
    if isinstance(found, DamagedFile):
        return DamagedFile(path, error, REMEDY.format(path=path))
    return found or error


class Memory:
    """One source's file. Every call is a transaction of its own, so a kill loses what was on its way and nothing else."""

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
        """The number of the visit of this name, and whether it is finished. definition: what the source asks for; one that changed is read
        anew, from the answers of the visit where they are there.
        """
        name = as_of or ""
        found = self._base.execute(
            "SELECT number, definition, finished FROM visits WHERE as_of = ?", (name,)
        ).fetchone()
        if found and found[1] == definition:
            return found[0], bool(found[2])
        if found:
            self._base.execute(
                "UPDATE visits SET definition = ?, finished = 0 WHERE number = ?", (definition, found[0])
            )
            self._base.execute("DELETE FROM items WHERE visit = ?", (found[0],))
            self._base.execute("DELETE FROM done")
            return found[0], False
        last = self._base.execute("SELECT definition FROM visits ORDER BY number DESC LIMIT 1").fetchone()
        if last and last[0] != definition:  # what was found then was read another way
            self._base.execute("DELETE FROM done")
        made = self._base.execute("INSERT INTO visits (as_of, definition) VALUES (?, ?)", (name, definition))
        return int(made.lastrowid or 0), False

    def rename_visit(self, old: str, new: str) -> None:
        """Gives the visit `old` the name `new`; an earlier visit of that name goes, and its items stay."""
        with self._base:
            self._base.execute("BEGIN")
            if self._base.execute("SELECT 1 FROM visits WHERE as_of = ?", (old,)).fetchone():
                self._base.execute("DELETE FROM visits WHERE as_of = ?", (new,))
                self._base.execute("UPDATE visits SET as_of = ? WHERE as_of = ?", (new, old))

    def finish(self, visit: int, counts: Mapping[str, int]) -> None:
        """The visit is whole; counts: reason → pages or numbers that gave no item and are no error."""
        told = json.dumps(counts, sort_keys=True)
        self._base.execute("UPDATE visits SET finished = 1, counts = ? WHERE number = ?", (told, visit))

    def counts(self, visit: int) -> dict[str, int]:
        """As they were when the visit was finished."""
        found = self._base.execute("SELECT counts FROM visits WHERE number = ?", (visit,)).fetchone()
        counts: dict[str, int] = json.loads(found[0])
        return counts

    def visits(self) -> list[str]:
        """The names of the visits, the earliest first."""
        rows = self._base.execute("SELECT as_of FROM visits ORDER BY number")
        return [name for (name,) in rows]

    def answer(self, key: str) -> Answer | None:
        """The answer to a request of this fingerprint."""
        row = self._base.execute(
            "SELECT url, status, headers, body, visit, fetched FROM answers WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        headers = json.loads(row[2])
        return Answer(row[0], row[1], headers, _unpacked(row[3]), row[4], row[5])

    def keep_answer(
        self, key: str, url: str, status: int, headers: Mapping[str, list[str]], body: bytes, visit: int
    ) -> None:
        """Stores an answer, in place of an earlier one."""
        kind = next((values[0] for name, values in headers.items() if name.lower() == "content-type" and values), "")
        stored = b"z" + zlib.compress(body, 1) if kind.startswith(PACKED) else b"-" + body
        self._base.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, url, status, json.dumps(headers), stored, visit, time.time()),
        )

    def keep_answer_as(self, key: str, url: str, found: str) -> None:
        """The answer of one key is also another's, and of another address: a redirect led from that one to it."""
        self._base.execute(
            "INSERT OR REPLACE INTO answers SELECT ?, ?, status, headers, body, visit, fetched FROM answers WHERE key = ?",
            (key, url, found),
        )

    def stored_bytes(self, visit: int) -> int:
        """The size of the answers that the visit brought, as they are stored."""
        (count,) = self._base.execute("SELECT SUM(LENGTH(body)) FROM answers WHERE visit = ?", (visit,)).fetchone()
        return int(count or 0)

    def forget_answer(self, key: str) -> None:
        """It told nothing that lasts."""
        self._base.execute("DELETE FROM answers WHERE key = ?", (key,))

    def keep_item(self, line: Mapping[str, Any], visit: int, *, page: str, place: str, body: str | None = None) -> None:
        """Stores what a page says of an item; body: the key of the answer that is its content."""
        told = json.dumps(line, sort_keys=True, ensure_ascii=False)
        self._base.execute(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?)", (line["origin"], page, place, told, body, visit)
        )

    def forget(self, origin: str, place: str) -> None:
        """What was said of this origin at this place stands no more, such as that a page failed."""
        self._base.execute("DELETE FROM items WHERE origin = ? AND place = ?", (origin, place))

    def items(self, until: int) -> Iterator[tuple[dict[str, Any], bytes | None]]:
        """Each item by origin, as the last visit up to this one that saw it says, with its content where that is an answer's body.
        What failed is told of this visit alone, and only where no visit brought it.
        """
        with closing(self._base.cursor()) as cursor:
            cursor.execute(
                "SELECT items.line, answers.body FROM items "
                "JOIN (SELECT origin, MAX(CASE WHEN json_extract(line, '$.reason') IS NULL THEN visit END) AS good FROM items "
                "WHERE visit <= ? GROUP BY origin) AS seen ON items.origin = seen.origin "
                "LEFT JOIN answers ON items.body = answers.key "
                "WHERE CASE WHEN json_extract(items.line, '$.reason') IS NULL THEN items.visit = seen.good "
                "ELSE seen.good IS NULL AND items.visit = ? END ORDER BY items.origin, items.line",
                (until, until),
            )
            for line, body in cursor:
                yield json.loads(line), None if body is None else _unpacked(body)

    def how_many(self, visit: int) -> tuple[int, int]:
        """Items in all, and how many of them this visit saw for the first time."""
        seen = (
            "SELECT origin, MIN(visit) AS first FROM items WHERE json_extract(line, '$.reason') IS NULL GROUP BY origin"
        )
        row = self._base.execute(f"SELECT COUNT(*), COALESCE(SUM(first = ?), 0) FROM ({seen})", (visit,)).fetchone()  # noqa: S608
        return row[0], row[1]

    def mark_done(self, number: int, visit: int, *, absent: bool, faulty: bool = False) -> None:
        """A number of a sequence needs no further request in this visit; absent: the site has nothing there; faulty: what it has is no item. Both are
        asked for again in the next one.
        """
        self._base.execute(
            "INSERT OR REPLACE INTO done VALUES (?, ?, ?)", (number, visit, FAULTY if faulty else absent)
        )

    def done(self, visit: int, *, again: bool) -> Iterator[int]:
        """The numbers that need not be asked for, rising: those of this visit, and what earlier ones found, unless all is asked for again."""
        cursor = self._base.cursor()
        cursor.execute("SELECT number FROM done WHERE visit = ? OR NOT (absent OR ?) ORDER BY number", (visit, again))
        return (number for (number,) in cursor)

    def absent(self, visit: int) -> int:
        """How many numbers the site had nothing for."""
        return int(
            self._base.execute("SELECT COUNT(*) FROM done WHERE visit = ? AND absent = 1", (visit,)).fetchone()[0]
        )

    def fetched(self, url: str) -> float | None:
        """When the address was last asked for, in seconds since 1970."""
        row = self._base.execute("SELECT MAX(fetched) FROM answers WHERE url = ?", (url,)).fetchone()
        return None if row is None else row[0]

    def host(self, name: str) -> tuple[float, float | None, float | None] | None:
        """The pace that was found for a host: requests a second, and the bracket of its limit."""
        row = self._base.execute("SELECT rate, low, high FROM hosts WHERE host = ?", (name,)).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def keep_host(self, name: str, rate: float, low: float | None, high: float | None) -> None:
        """Remembers a host's pace for the next run."""
        self._base.execute("INSERT OR REPLACE INTO hosts VALUES (?, ?, ?, ?)", (name, rate, low, high))

    def note_pace(
        self, visit: int, host: str, seconds: float, state: tuple[float, float | None, float | None, int, int]
    ) -> None:
        """A point of the pace's plot: rate, low, high, answers, refusals so many seconds after the start."""
        self._base.execute("INSERT INTO pace VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (visit, host, seconds, *state))

    def pace(self) -> list[dict[str, Any]]:
        """The points of the last visit that has any."""
        cursor = self._base.execute("SELECT * FROM pace WHERE visit = (SELECT MAX(visit) FROM pace) ORDER BY rowid")
        names = [one[0] for one in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def _unpacked(stored: bytes) -> bytes:
    return zlib.decompress(stored[1:]) if stored[:1] == b"z" else stored[1:]
