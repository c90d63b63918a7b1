"""CSV tables for spreadsheets: `rows.csv`, and the images beside it in `images/`.

A person edits the column `label`, or fills `answer` (reject, none_of_these, bad, duplicate, keep, unsure, skip, flag,
label to confirm the label, or a class), and may fill `note` and `reviewer`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from seedling.dataset.spreadsheet import original_cell, spreadsheet_cell
from seedling.errors import InputError
from seedling.files.data_files import decode_text, read_bytes
from seedling.review.exchange.exported_rows import ExportedRow
from seedling.review.exchange.external_rows import ExternalRow, image_files
from seedling.review.exchange.table_rows import ANSWER, ID_COLUMNS, LABEL, PATH_COLUMNS, check_columns, table_row

TABLE_FILE, IMAGE_FOLDER = "rows.csv", "images"
DELIMITERS = (",", ";", "\t", "|")
MAX_FIELD_CHARACTERS = 10 * 2**20


def write(rows: Iterable[ExportedRow], folder: Path) -> None:
    """Write the table, and the images of image rows."""
    with (folder / TABLE_FILE).open("w", encoding="utf-8", newline="") as file:
        write_table(file, _with_content(rows, folder))


def _with_content(rows: Iterable[ExportedRow], folder: Path) -> Iterator[dict[str, Any]]:
    for row in rows:
        if isinstance(row.content, str):
            yield {"text": row.content, **row.fields()}
        else:
            (folder / IMAGE_FOLDER).mkdir(exist_ok=True)
            yield {"image": row.write_image(folder / IMAGE_FOLDER).relative_to(folder).as_posix(), **row.fields()}


def write_table(file: io.TextIOBase | Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows with the same columns; cells that a spreadsheet may take for formulas are marked as texts."""
    writer = csv.writer(file, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(row)
        writer.writerow([spreadsheet_cell(value) for value in row.values()])


def read(path: Path) -> Iterator[ExternalRow]:
    """Yield the rows of a table: separated by commas, semicolons, tabs or bars, in UTF-8, or UTF-16 with its mark.

    Raises InputError for another encoding or a broken line, and MissingColumn.
    """
    for number, (position, values) in enumerate(read_table(path)):
        if number == 0:
            check_columns(values, str(path))
            if {"annotation_id", "annotator"} <= set(values):
                raise InputError(f"{path} is a CSV export of Label Studio, which drops cancelled tasks: export JSON.")
        yield table_row(values, position, _Contents(values, path.parent))


class _Contents:
    """Reads the text or the image of a row when it is called."""

    def __init__(self, values: Mapping[str, str], folder: Path) -> None:
        self._values, self._folder = values, folder

    def __call__(self) -> Iterator[bytes | str]:
        if self._values.get("text"):
            yield self._values["text"]
        for name in PATH_COLUMNS:
            if self._values.get(name):
                yield from image_files(self._values[name], self._folder)


def read_table(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the position, as `line 12`, and the values by column of each row that is not blank."""
    content = read_content(path)
    separator = first_line(content).strip().strip('"')
    skipped = int(separator.lower().startswith("sep=") and len(separator) == 5)  # a first line that Excel writes
    if skipped:
        content = content[len(first_line(content)) :].lstrip("\r\n")
    delimiter = separator[4] if skipped else _delimiter(content)
    limit = csv.field_size_limit(MAX_FIELD_CHARACTERS)  # of the process; the module csv has no other
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [original_cell(name.strip()) for name in next(reader, [])]
        start = reader.line_num + 1
        for cells in reader:
            position = f"line {start + skipped}"
            start = reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(columns):
                raise InputError(
                    f"{path}, {position}: {len(cells)} cells, and the header has {len(columns)} columns: put quotation "
                    "marks around cells with the delimiter, or export the table again."
                )
            padded = [*map(original_cell, cells), *[""] * (len(columns) - len(cells))]
            yield position, dict(zip(columns, padded, strict=True))
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num + skipped}: {error}. Repair the line, or export the table again."
        ) from error
    finally:
        csv.field_size_limit(limit)


def read_content(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark. Raises InputError."""
    content = read_bytes(path)
    try:
        return decode_text(content)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} is not UTF-8 (byte 0x{content[error.start]:02x} in line {line}): save it as UTF-8, in Excel as "
            "'CSV UTF-8'."
        ) from error


def _delimiter(content: str) -> str:
    """The delimiter under which the header has most of the columns that matter, else most columns."""
    header = first_line(content.lstrip("\r\n"))
    expected = {*ID_COLUMNS, LABEL, ANSWER, "text", *PATH_COLUMNS}

    def rank(delimiter: str) -> tuple[int, int]:
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        return len(expected & set(names)), len(names)

    return max(DELIMITERS, key=rank)


def first_line(content: str) -> str:
    """The content up to the first line end."""
    return re.split(r"[\r\n]", content, maxsplit=1)[0]
