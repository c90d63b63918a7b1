"""Write CSV lists that are safe to open in a spreadsheet program.

A spreadsheet program may execute a cell that starts like a formula.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from seedling.terminal.printable import printable

FORMULA = re.compile(r"[\s'\"]*[=+\-@＝＋－＠]")
NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?%?")
LEADING = "\t\r\n"  # characters that a spreadsheet program skips
MARK = "'"  # marks a cell as text


def is_formula(value: Any) -> bool:
    """Whether a spreadsheet program may interpret the cell as a formula or a command. A number is not a formula."""
    if not isinstance(value, str) or not value:
        return False
    return (FORMULA.match(value) is not None or value[0] in LEADING) and not NUMBER.fullmatch(value)


def spreadsheet_cell(value: Any) -> Any:
    r"""The value, after an apostrophe if it may be a formula, with control characters escaped as in \r."""
    if not isinstance(value, str):
        return value
    text = printable(value, keep="\n\t")
    return f"{MARK}{text}" if is_formula(value) else text


def original_cell(value: str) -> str:
    """The value that `spreadsheet_cell` received."""
    return value[1:] if value.startswith(MARK) and is_formula(value[1:]) else value


def write_list(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file for people to open."""
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([spreadsheet_cell(name) for name in columns])
        writer.writerows([spreadsheet_cell(value) for value in row] for row in rows)
