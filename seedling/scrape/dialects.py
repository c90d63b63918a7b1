"""Finds out how a delimited file is written, by reading it: line ends, delimiter, quoting, and where a record is one."""

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
MAX_LABELS = 10_000  # more different values are not labels, and tell nothing about a record
HEAD_BYTES = 2**16
BOMS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
HeaderRank = Callable[[Sequence[str]], int]  # how many of the columns that are looked for a header has
IndexOf = Callable[[Sequence[str]], tuple[int, int | None]]  # of the content and of the label


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is written: everything that is needed to read its records."""

    path: Path
    encoding: str
    terminator: Terminator
    lines_before_header: int
    dialect: Dialect
    columns: tuple[str, ...]
    shape: Shape

    def records(self) -> Iterator[Record]:
        """All records, from the file's begin."""
        with opened(self.path, self.encoding, self.terminator) as lines:
            _skip(lines, self.lines_before_header)
            header(lines, self.dialect)
            yield from records(lines, self.dialect, self.shape)


def encoding_of(path: Path, encoding: str) -> str:
    """The encoding, where a byte order mark says it or, without its mark, as it is set."""
    if encoding.lower().replace("_", "-") not in {"utf-8", "utf8"}:
        return encoding
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for mark, name in BOMS if head.startswith(mark)), "utf-8-sig")


@contextmanager
def opened(path: Path, encoding: str, terminator: Terminator) -> Iterator[Lines]:
    """The file's lines."""
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
    """The layout under which the fewest records are rejected.

    rank: how well a header suits, which decides on the delimiter; index_of: where a header has the content and the label.
    delimiter, quoting: what is set. Raises UnicodeError.
    """
    encoding = encoding_of(path, encoding)
    terminator = _terminator(path, encoding)
    before, named = _separator_line(path, encoding, terminator)
    preferred = "\t" if path.suffix.lower() == ".tsv" else ","
    known = delimiter or named
    candidates = [known] if known else sorted(DELIMITERS, key=lambda one: one != preferred)
    base = Layout(path, encoding, terminator, before, Dialect(candidates[0], quoting or "double"), (), Shape(0, 0))
    layouts = [_with(base, replace(base.dialect, delimiter=one), index_of) for one in candidates]
    best = max(layouts, key=lambda one: (rank(one.columns), *_share_of_records(one)))
    if not best.columns:
        return best
    best = _with_labels(best)
    return best if quoting else _with_quoting(best, index_of)


def _terminator(path: Path, encoding: str) -> Terminator:
    """A carriage return alone ends the lines of files from old Macs, and of nothing else."""
    with path.open(encoding=encoding, newline="") as file:
        head = file.read(HEAD_BYTES)
    first = head.find("\r")
    alone = first >= 0 and head[first + 1 : first + 2] != "\n" and "\n" not in head[:first]
    # A line feed somewhere later may stand within a field; one that ends most lines makes the return a stray one.
    return "\r" if alone and head.count("\r") > head.count("\n") else "\n"


def _separator_line(path: Path, encoding: str, terminator: Terminator) -> tuple[int, str | None]:
    """Excel's `sep=;` above the header: how many lines it takes, and what it names."""
    with opened(path, encoding, terminator) as lines:
        first = (lines.take() or "").rstrip("\r\n")
    bare = first.strip(QUOTE)
    return (1, bare[4]) if bare.lower().startswith("sep=") and len(bare) == 5 else (0, None)


def _skip(lines: Lines, many: int) -> None:
    for _ in range(many):
        lines.take()


def _with(layout: Layout, dialect: Dialect, index_of: IndexOf) -> Layout:
    with opened(layout.path, layout.encoding, layout.terminator) as lines:
        _skip(lines, layout.lines_before_header)
        columns = tuple(header(lines, dialect))
    named = [number for number, name in enumerate(columns, start=1) if name]
    shape = Shape(len(columns), max(named, default=1), index_of(columns)[1] if columns else None)
    return replace(layout, dialect=dialect, columns=columns, shape=shape)


def _share_of_records(layout: Layout) -> tuple[float, int]:
    """The share of the first records that are none, negative; and how many columns there are."""
    found = list(islice(layout.records(), SAMPLE_RECORDS)) if layout.columns else []
    rejected = sum(record.reason is not None for record in found)
    return -rejected / max(1, len(found)), min(2, len(layout.columns))


def _with_labels(layout: Layout) -> Layout:
    """Its shape with the labels of lines that hold no quotation mark, so that every dialect reads them alike."""
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
    for changed in (
        replace(dialect, skip_blanks=True),
        *(escaped if _has_escaped_quotes(layout) else []),
        replace(dialect, quoting="none"),
    ):
        other = replace(_with(layout, changed, index_of), shape=layout.shape)
        if len(other.columns) == len(layout.columns) and (count := _defects(other, index_of)) < fewest:
            best, fewest = other, count
    return best


def _defects(layout: Layout, index_of: IndexOf) -> int:
    content = index_of(layout.columns)[0]
    found = defects(layout.records(), layout.dialect, content)
    if layout.dialect.quoting == "none" and _header_is_quoted(layout):
        found += 1 + sum(1 for _ in layout.records())  # quotation marks are in use
    return found


def _has_escaped_quotes(layout: Layout) -> bool:
    with layout.path.open(encoding=layout.encoding, newline=layout.terminator) as file:
        return any(f"\\{QUOTE}" in line for line in file)


def _header_is_quoted(layout: Layout) -> bool:
    with opened(layout.path, layout.encoding, layout.terminator) as lines:
        _skip(lines, layout.lines_before_header)
        while (line := lines.take()) is not None:
            if line.strip():
                return line.lstrip().startswith(QUOTE)
    return False
