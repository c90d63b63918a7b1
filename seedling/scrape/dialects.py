"""Detects how a delimited file is written from its content: line ends, delimiter, quoting, and the form of records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from seedling.scrape.delimited import (
    QUOTE,
    Dialect,
    Lines,
    Quoting,
    Record,
    Shape,
    Terminator,
    bare,
    defects,
    header,
    is_quoted,
    records,
)

DELIMITERS = (",", ";", "\t", "|")
SAMPLE_RECORDS = 1_000
MAX_LABELS = 10_000  # a column with more values is not used as the label column of records
HEAD_BYTES = 2**16
BOMS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
HeaderRank = Callable[[Sequence[str]], int]  # how many of the expected columns a header has
IndexOf = Callable[[Sequence[str]], tuple[int, int | None]]  # indices of the content and of the label


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is written: all that is needed to read its records."""

    path: Path
    encoding: str
    terminator: Terminator
    lines_before_header: int
    dialect: Dialect
    columns: tuple[str, ...]
    shape: Shape

    def records(self) -> Iterator[Record]:
        """Yield all records from the start of the file."""
        with open_lines(self.path, self.encoding, self.terminator) as lines:
            _skip(lines, self.lines_before_header)
            header(lines, self.dialect)
            yield from records(lines, self.dialect, self.shape)


def encoding_of(path: Path, encoding: str) -> str:
    """Return the encoding of the byte order mark, or the configured one."""
    if encoding.lower().replace("_", "-") not in {"utf-8", "utf8"}:
        return encoding
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for mark, name in BOMS if head.startswith(mark)), "utf-8-sig")


@contextmanager
def open_lines(path: Path, encoding: str, terminator: Terminator) -> Iterator[Lines]:
    """Open the file for reading its lines."""
    with path.open(encoding=encoding, newline=terminator) as file:
        yield Lines(iter(file))


def find_layout(
    path: Path,
    encoding: str,
    rank: HeaderRank,
    index_of: IndexOf,
    *,
    delimiter: str | None = None,
    quoting: Quoting | None = None,
) -> Layout:
    """Return the layout with the fewest rejected records.

    rank: how well a header suits, which decides on the delimiter; index_of: header → indices of content and label.
    delimiter, quoting: as configured; None: detected. Raises UnicodeError.
    """
    encoding = encoding_of(path, encoding)
    terminator = _terminator(path, encoding)
    lines_before, separator = _separator_line(path, encoding, terminator)
    preferred = "\t" if path.suffix.lower() == ".tsv" else ","
    fixed = delimiter or separator
    candidates = [fixed] if fixed else sorted(DELIMITERS, key=lambda candidate: candidate != preferred)
    dialect = Dialect(candidates[0], quoting or "double")
    base = Layout(path, encoding, terminator, lines_before, dialect, (), Shape(0, 0))
    layouts = [_with_dialect(base, replace(dialect, delimiter=candidate), index_of) for candidate in candidates]
    best = max(layouts, key=lambda layout: (rank(layout.columns), *_share_of_records(layout)))
    if not best.columns:
        return best
    best = _with_labels(best)
    return best if quoting else _with_quoting(best, index_of)


def _terminator(path: Path, encoding: str) -> Terminator:
    """Detect files of old Macs, whose lines end with a carriage return alone."""
    with path.open(encoding=encoding, newline="") as file:
        head = file.read(HEAD_BYTES)
    first = head.find("\r")
    alone = first >= 0 and head[first + 1 : first + 2] != "\n" and "\n" not in head[:first]
    # A later line feed may be part of a field; if most lines end with one, the carriage return is a stray one.
    return "\r" if alone and head.count("\r") > head.count("\n") else "\n"


def _separator_line(path: Path, encoding: str, terminator: Terminator) -> tuple[int, str | None]:
    """Return the number of lines and the delimiter of Excel's `sep=;` above the header; (0, None) without it."""
    with open_lines(path, encoding, terminator) as lines:
        first = (lines.take() or "").rstrip("\r\n")
    content = first.strip(QUOTE)
    return (1, content[4]) if content.lower().startswith("sep=") and len(content) == 5 else (0, None)


def _skip(lines: Lines, count: int) -> None:
    for _ in range(count):
        lines.take()


def _with_dialect(layout: Layout, dialect: Dialect, index_of: IndexOf) -> Layout:
    with open_lines(layout.path, layout.encoding, layout.terminator) as lines:
        _skip(lines, layout.lines_before_header)
        columns = tuple(header(lines, dialect))
    named = [number for number, name in enumerate(columns, start=1) if name]
    shape = Shape(len(columns), max(named, default=1), index_of(columns)[1] if columns else None)
    return replace(layout, dialect=dialect, columns=columns, shape=shape)


def _share_of_records(layout: Layout) -> tuple[float, int]:
    """Return the negative share of rejected records among the first ones, and the number of columns, at most 2."""
    sample = list(islice(layout.records(), SAMPLE_RECORDS)) if layout.columns else []
    rejected = sum(record.reason is not None for record in sample)
    return -rejected / max(1, len(sample)), min(2, len(layout.columns))


def _with_labels(layout: Layout) -> Layout:
    """Return the layout with the labels of lines without quotation marks, which all dialects read alike."""
    index = layout.shape.label_index
    if index is None:
        return layout
    labels: Counter[str] = Counter()
    for record in replace(layout, dialect=replace(layout.dialect, quoting="none")).records():
        cells = [cell.strip() for cell in record.cells]
        if record.reason is None and not any(QUOTE in cell and not is_quoted(cell) for cell in cells):
            labels[bare(cells[index])] += 1
            if len(labels) > MAX_LABELS:
                return replace(layout, shape=replace(layout.shape, label_index=None))
    return replace(layout, shape=replace(layout.shape, labels=frozenset(labels)))


def _with_quoting(layout: Layout, index_of: IndexOf) -> Layout:
    best, fewest = layout, _defects(layout, index_of)
    if not fewest:
        return best
    dialect = layout.dialect
    escaped = [replace(dialect, quoting="backslash"), replace(dialect, quoting="backslash", skip_blanks=True)]
    for candidate in (
        replace(dialect, skip_blanks=True),
        *(escaped if _has_escaped_quotes(layout) else []),
        replace(dialect, quoting="none"),
    ):
        other = replace(_with_dialect(layout, candidate, index_of), shape=layout.shape)
        if len(other.columns) == len(layout.columns) and (count := _defects(other, index_of)) < fewest:
            best, fewest = other, count
    return best


def _defects(layout: Layout, index_of: IndexOf) -> int:
    content = index_of(layout.columns)[0]
    count = defects(layout.records(), layout.dialect, content)
    if layout.dialect.quoting == "none" and _header_is_quoted(layout):
        count += 1 + sum(1 for _ in layout.records())  # the file uses quotation marks
    return count


def _has_escaped_quotes(layout: Layout) -> bool:
    with layout.path.open(encoding=layout.encoding, newline=layout.terminator) as file:
        return any(f"\\{QUOTE}" in line for line in file)


def _header_is_quoted(layout: Layout) -> bool:
    with open_lines(layout.path, layout.encoding, layout.terminator) as lines:
        _skip(lines, layout.lines_before_header)
        while (line := lines.take()) is not None:
            if line.strip():
                return line.lstrip().startswith(QUOTE)
    return False
