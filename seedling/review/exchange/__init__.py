"""Exchange with other tools: exports rows for Label Studio, FiftyOne, Hugging Face or a spreadsheet, and imports what
people answer there into the review log.

`exported_rows.py` has what is exported, a module per format writes and reads it, `external_rows.py` has what a file
says about a row, and `importing.py` turns it into answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedling.errors import InputError
from seedling.files.writing import complete_or_absent
from seedling.progress import Progress, counted, silent
from seedling.review.exchange import csv_table, fiftyone, hugging_face, image_folder, label_studio
from seedling.review.exchange.exchange_format import ExchangeFormat as ExchangeFormat
from seedling.review.exchange.exchange_format import detect_format as detect_format
from seedling.review.exchange.exported_rows import ExportedRow, exported_rows
from seedling.review.exchange.importing import ImportCounts as ImportCounts
from seedling.review.exchange.importing import ImportResult as ImportResult
from seedling.review.exchange.importing import LabelRules as LabelRules
from seedling.review.exchange.importing import import_rows
from seedling.review.exchange.importing import renames_of as renames_of

if TYPE_CHECKING:
    from seedling.review.decisions import Decisions
    from seedling.review.exchange.external_rows import ExternalRow
    from seedling.review.rows import ReviewRows

ONLY_IMAGES = frozenset({ExchangeFormat.imagefolder, ExchangeFormat.fiftyone})
MAX_MEGAPIXELS = 64.0


@dataclass(frozen=True)
class ExportSummary:
    """An export. left_out: ids of images that could not be decoded again."""

    folder: Path
    rows: int
    left_out: tuple[str, ...]


def export_rows(
    exchange_format: ExchangeFormat,
    rows: ReviewRows,
    collected: Path,
    decisions: Decisions,
    output: Path,
    *,
    row_ids: Sequence[str] | None = None,
    progress: Progress = silent,
) -> ExportSummary:
    """Write rows with labels, suggestions, states and answers to a new folder, in the format of another tool.

    collected: the generation with the images or texts (scrape). row_ids: the rows to export; None for all. Images are
    written without metadata, and upright. Raises InputError if the folder is not empty, or if the format is only for
    images.
    """
    if rows.modality == "text" and exchange_format in ONLY_IMAGES:
        raise InputError(f"Texts cannot be exported as {exchange_format}: use csv, huggingface or label_studio.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is not an empty folder: choose another folder.")
    left_out: list[str] = []
    total = len(rows) if row_ids is None else len(row_ids)
    exported = _Counted(
        counted(exported_rows(rows, collected, decisions, row_ids, left_out), progress, "export", total)
    )
    with complete_or_absent(output) as folder:
        _write(
            exchange_format, exported, folder, _Target(_classes(rows, decisions), rows.modality, output.resolve().name)
        )
    return ExportSummary(output, exported.count, tuple(left_out))


class _Counted:
    """Counts the rows while they are written."""

    def __init__(self, rows: Iterator[ExportedRow]) -> None:
        self._rows, self.count = rows, 0

    def __iter__(self) -> Iterator[ExportedRow]:
        return self

    def __next__(self) -> ExportedRow:
        row = next(self._rows)
        self.count += 1
        return row


@dataclass(frozen=True)
class _Target:
    """What the formats need besides the rows. name: of the finished folder."""

    classes: tuple[str, ...]
    modality: str
    name: str


def _classes(rows: ReviewRows, decisions: Decisions) -> tuple[str, ...]:
    """The classes, and labels of decisions that are not among them yet."""
    labels = {decision.label for decision in decisions.by_row.values() if decision.label is not None}
    return (*rows.classes, *sorted(labels - set(rows.classes)))


def _write(exchange_format: ExchangeFormat, exported: Iterator[ExportedRow], folder: Path, target: _Target) -> None:
    match exchange_format:
        case ExchangeFormat.label_studio:
            label_studio.write(exported, folder, target.classes, target.modality, target.name)
        case ExchangeFormat.csv:
            csv_table.write(exported, folder)
        case ExchangeFormat.huggingface:
            hugging_face.write_on_disk(exported, folder, target.classes, target.modality)
        case ExchangeFormat.parquet:
            hugging_face.write_parquet(exported, folder, target.classes, target.modality)
        case ExchangeFormat.imagefolder:
            image_folder.write(exported, folder, target.classes)
        case ExchangeFormat.fiftyone:
            fiftyone.write(exported, folder, target.classes)


def import_answers(  # noqa: PLR0913  (what the command asks for, each by its name)
    path: Path,
    exchange_format: ExchangeFormat | None,
    rows: ReviewRows,
    reviewer: str | None,
    *,
    default_reviewer: str | None = None,
    rules: LabelRules | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
    progress: Progress = silent,
) -> ImportResult:
    """Return the answers of people in a file or folder of another tool; nothing is stored (`ImportResult.store`).

    exchange_format: None: detected. reviewer: under whose name the answers are stored; None: the names in the file.
    default_reviewer: the name for answers of which the file does not say who gave them; None: they are an error.
    max_megapixels: of images that are matched by their content. Raises InputError if the file is damaged or has no
    rows, if none of its rows is a row of the workspace, or if a label is not a class.
    """
    chosen = exchange_format or detect_format(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: name the file or folder to import.")
    external_rows = counted(_read(chosen, path, rows), progress, "import")
    return import_rows(chosen, external_rows, rows, reviewer, rules or LabelRules(), max_megapixels, default_reviewer)


def _read(exchange_format: ExchangeFormat, path: Path, rows: ReviewRows) -> Iterator[ExternalRow]:
    match exchange_format:
        case ExchangeFormat.label_studio:
            return label_studio.read(path)
        case ExchangeFormat.csv:
            return csv_table.read(path / csv_table.TABLE_FILE if path.is_dir() else path)
        case ExchangeFormat.huggingface | ExchangeFormat.parquet:
            return hugging_face.read(path)
        case ExchangeFormat.imagefolder:
            return image_folder.read(path, rows.classes)
        case ExchangeFormat.fiftyone:
            return fiftyone.read(path)
