"""Cells of lists that people open in a spreadsheet: a cell that begins like a formula would be executed there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from seedling.terminal.printable import printable

FORMULA = re.compile(r"[\s'\"]*[=+\-@＝＋－＠]")
NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?%?")
LEADING = "\t\r\n"  # that a spreadsheet passes over
MARK = "'"  # makes a cell a text


def is_formula(value: Any) -> bool:
    """Whether a spreadsheet may take the cell for a formula or a command; a number is none."""
    if not isinstance(value, str) or not value:
        return False
    return (FORMULA.match(value) is not None or value[0] in LEADING) and not NUMBER.fullmatch(value)


def spreadsheet_cell(value: Any) -> Any:
    r"""The value, with an apostrophe before it where it may be a formula; control characters are written out, as in \r."""
    if not isinstance(value, str):
        return value
    shown = printable(value, keep="\n\t")
    return f"{MARK}{shown}" if is_formula(value) else shown


def original_cell(value: str) -> str:
    """What `spreadsheet_cell` was given."""
    return value[1:] if value.startswith(MARK) and is_formula(value[1:]) else value


def write_list(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file for people."""
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([spreadsheet_cell(name) for name in columns])
        writer.writerows([spreadsheet_cell(value) for value in row] for row in rows)
