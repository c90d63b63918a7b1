"""Reads delimited text (CSV, TSV and similar): records with line numbers, or the reason why a line is not a record.

With a stray quotation mark, a CSV parser reads the lines up to the next mark as one field. So if each line of a record
is a record by itself, the first line is rejected, and reading continues at the second.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

Quoting = Literal["double", "backslash", "none"]
Terminator = Literal["\n", "\r"]
QUOTE = '"'
MAX_FIELD_CHARACTERS = 10 * 2**20
MAX_LINES_OF_BROKEN_RECORD = 100
TOO_FEW, TOO_MANY = "too_few_fields", "too_many_fields"
UNBALANCED, STRAY_BREAK = "unbalanced_quote", "stray_line_break"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written. skip_blanks: blanks after a delimiter are not part of the field, a quote may follow."""

    delimiter: str
    quoting: Quoting = "double"
    skip_blanks: bool = False

    def described(self) -> str:
        """Describe the dialect in a few words, as `seedling init` prints it."""
        name = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}.get(
            self.delimiter, repr(self.delimiter)
        )
        quotes = {"double": "", "backslash": ', \\" within quotes', "none": ", quotation marks are text"}
        return f"separated by {name}{quotes[self.quoting]}"

    @property
    def whole_fields(self) -> re.Pattern[str]:
        """A pattern of complete records with backslash escapes: the csv module accepts text after a closing quote."""
        return _whole_fields(self.delimiter, self.skip_blanks)

    def options(self) -> dict[str, Any]:
        """Return the options for the csv module."""
        if self.quoting == "none":
            return {"delimiter": self.delimiter, "quoting": csv.QUOTE_NONE, "strict": True}
        escape = {"doublequote": False, "escapechar": "\\"} if self.quoting == "backslash" else {}
        return {"delimiter": self.delimiter, "skipinitialspace": self.skip_blanks, "strict": True, **escape}


@cache
def _whole_fields(delimiter: str, skip_blanks: bool) -> re.Pattern[str]:
    end = re.escape(delimiter)
    quoted = rf'{" *" if skip_blanks else ""}"(?:[^"\\]|\\.)*+"(?={end}|\Z)'
    plain = rf'(?:[^"{end}\\]|\\.)(?:[^{end}\\]|\\.)*+'
    field = rf"(?>{quoted}|{plain}|)"  # atomic, so that matching takes linear time
    return re.compile(rf"{field}(?:{end}{field})*+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Record:
    """The cells of a record that starts at a line, or the reason why there are none; lines count from 1."""

    line: int
    cells: Sequence[str]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of the table's records.

    width: number of cells; at_least: number of cells up to the last column with a name; label_index: the cell with one
    of the labels.
    """

    width: int
    at_least: int
    label_index: int | None = None
    labels: frozenset[str] = frozenset()

    def fits(self, cells: Sequence[str]) -> bool:
        """Whether the cells of a line, split without quoting, can be a record."""
        if not self.at_least <= len(cells) <= self.width:
            return False
        return self.label_index is None or bare(cells[self.label_index]) in self.labels


def bare(cell: str) -> str:
    """Return the cell without blanks and quotation marks around it."""
    return cell.strip().strip(QUOTE).strip()


def is_wrapped(cell: str) -> bool:
    """Whether the cell has quotation marks around it, which may be text or quotes."""
    return len(cell) > 1 and cell[0] == cell[-1] == QUOTE


def is_quoted(cell: str) -> bool:
    """Whether a CSV writer may have quoted the cell: it has quotation marks around it, and inner ones are doubled."""
    return is_wrapped(cell) and QUOTE not in cell[1:-1].replace(QUOTE * 2, "")


class Lines:
    """The lines of a file with their numbers; lines can be given back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._returned, self.number = lines, deque[str](), 0

    def take(self) -> str | None:
        """Return the next line with its terminator; None at the end."""
        line = self._returned.popleft() if self._returned else next(self._lines, None)
        self.number += line is not None
        return line

    def give_back(self, lines: Sequence[str]) -> None:
        """Put lines back, to be taken again."""
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)


def records(lines: Lines, dialect: Dialect, shape: Shape) -> Iterator[Record]:
    """Yield the records that follow; blank lines are skipped."""
    while (line := lines.take()) is not None:
        start, content = lines.number, line.rstrip("\r\n")
        if not content.strip():
            continue
        if _needs_parser(content, dialect):
            yield from _parsed(line, lines, dialect, shape)
        elif "\r" in content or "\n" in content:
            yield Record(start, (), STRAY_BREAK)
        else:
            cells = content.split(dialect.delimiter)
            yield Record(start, cells) if len(cells) == shape.width else _checked(start, cells, shape)


def header(lines: Lines, dialect: Dialect) -> list[str]:
    """Return the cells of the first line that is not blank, without quotes and blanks around them; [] at the end."""
    while (line := lines.take()) is not None:
        if line.strip("\r\n\t "):
            try:
                cells, _ = _parse(line, lines, dialect)
            except csv.Error:
                cells = line.rstrip("\r\n").split(dialect.delimiter)
            return [bare(cell) for cell in cells]
    return []


def _needs_parser(content: str, dialect: Dialect) -> bool:
    if dialect.quoting == "none":
        return False
    return QUOTE in content or (dialect.quoting == "backslash" and "\\" in content)


def _checked(line: int, cells: Sequence[str], shape: Shape) -> Record:
    if len(cells) < shape.at_least:
        return Record(line, cells, TOO_FEW)
    if len(cells) > shape.width and any(cell.strip() for cell in cells[shape.width :]):
        return Record(line, cells, TOO_MANY)
    return Record(line, [*cells[: shape.width], *[""] * (shape.width - len(cells))])


def _parse(line: str, lines: Lines, dialect: Dialect) -> tuple[list[str], list[str]]:
    """Return a record's cells, and the lines after its first. Raises csv.Error, and gives these lines back."""
    more: list[str] = []

    def fed() -> Iterator[str]:
        yield line
        while (following := lines.take()) is not None:
            more.append(following)
            yield following

    try:
        limit = csv.field_size_limit(MAX_FIELD_CHARACTERS)  # of the process; the module csv has no other
        try:
            cells = next(csv.reader(fed(), **dialect.options()))
        finally:
            csv.field_size_limit(limit)
        if dialect.quoting == "backslash" and not dialect.whole_fields.fullmatch("".join([line, *more]).rstrip("\r\n")):
            raise csv.Error("text after a closing quotation mark")
    except csv.Error:
        lines.give_back(more)
        raise
    return cells, more


def _parsed(line: str, lines: Lines, dialect: Dialect, shape: Shape) -> Iterator[Record]:
    start = lines.number
    try:
        cells, more = _parse(line, lines, dialect)
    except csv.Error as error:
        yield from _broken(line, lines, dialect, shape, STRAY_BREAK if "new-line" in str(error) else UNBALANCED)
        return
    if more and _is_swallowed([line, *more], dialect, shape):
        lines.give_back(more)
        yield Record(start, (), UNBALANCED)
        return
    yield _checked(start, cells, shape)


def _is_swallowed(record_lines: Sequence[str], dialect: Dialect, shape: Shape) -> bool:
    """Whether a stray quotation mark has joined several records: each of the lines has a known label."""
    if shape.at_least < 2 or shape.label_index is None:  # without labels, the lines of a text may look like records
        return False
    return all(shape.fits(_split(line, dialect)) for line in record_lines)


def _split(line: str, dialect: Dialect) -> list[str]:
    return line.rstrip("\r\n").split(dialect.delimiter)


def _broken(line: str, lines: Lines, dialect: Dialect, shape: Shape, reason: str) -> Iterator[Record]:
    """Yield rejected records: the line alone if it can be a record, else all lines up to the closing quotation mark."""
    start = lines.number
    yield Record(start, (), reason)
    if line.count(QUOTE) % 2 == 0 or (shape.at_least > 1 and shape.fits(_split(line, dialect))):
        return
    rest: list[str] = []
    while len(rest) < MAX_LINES_OF_BROKEN_RECORD and (following := lines.take()) is not None:
        rest.append(following)
        if following.count(QUOTE) % 2 == 1:
            for number in range(start + 1, start + 1 + len(rest)):
                yield Record(number, (), reason)
            return
    lines.give_back(rest)


def defects(records_read: Iterator[Record], dialect: Dialect, content_index: int) -> int:
    """Count the records that contradict the dialect: rejected ones, and ones whose cells keep their quotation marks."""
    rejected = read = wrapped_content = wrapped = 0
    for record in records_read:
        read += 1
        rejected += record.reason is not None
        if record.reason is None:
            if dialect.quoting != "none":  # these quotation marks follow a blank
                wrapped += any(is_wrapped(cell.strip()) for cell in record.cells)
                continue
            quoted = [is_quoted(cell.lstrip()) for cell in record.cells]  # no blank may follow the closing quote
            wrapped_content += quoted.pop(content_index) if content_index < len(quoted) else 0
            wrapped += any(quoted)
    return rejected + wrapped + (wrapped_content if 2 * wrapped_content > read else 0)
