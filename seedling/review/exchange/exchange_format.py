"""The formats that reviewed rows are exchanged in, and how a file's format is detected."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from seedling.errors import InputError
from seedling.files.data_files import files_below, read_first_bytes
from seedling.media.images import SUFFIXES
from seedling.review.exchange import csv_table, fiftyone, hugging_face, label_studio

HEAD_BYTES = 4_096


class ExchangeFormat(StrEnum):
    """Format of exported and imported rows."""

    label_studio = "label_studio"
    csv = "csv"
    huggingface = "huggingface"
    parquet = "parquet"
    imagefolder = "imagefolder"
    fiftyone = "fiftyone"


def detect_format(path: Path) -> ExchangeFormat:
    """Return the format of a file or folder, by its name and content. Raises InputError if it is none of them."""
    if not path.exists():
        raise InputError(f"{path} does not exist: name the file or folder to import.")
    detected = _of_folder(path) if path.is_dir() else _of_file(path)
    if detected is None:
        listed = ", ".join(ExchangeFormat)
        raise InputError(f"{path} is in none of the formats {listed}: name the format if it is one of them.")
    return detected


def _of_folder(path: Path) -> ExchangeFormat | None:
    if (path / hugging_face.SPLITS_FILE).is_file() or (path / hugging_face.STATE_FILE).is_file():
        return ExchangeFormat.huggingface
    if (path / fiftyone.LABELS_FILE).is_file() or (path / fiftyone.SAMPLES_FILE).is_file():
        return ExchangeFormat.fiftyone
    if (path / label_studio.TASKS_FILE).is_file():
        return ExchangeFormat.label_studio
    if (path / csv_table.TABLE_FILE).is_file():
        return ExchangeFormat.csv
    for file, fault in files_below(path, path.resolve()):
        if fault is None and file.suffix.lower() == ".parquet":
            return ExchangeFormat.parquet
        if fault is None and file.suffix.lower() in SUFFIXES:
            return ExchangeFormat.imagefolder
    return None


def _of_file(path: Path) -> ExchangeFormat | None:
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return ExchangeFormat.csv
        case ".parquet":
            return ExchangeFormat.parquet
        case ".arrow":
            return ExchangeFormat.huggingface
        case ".json":
            head = read_first_bytes(path, HEAD_BYTES)
            is_fiftyone = re.match(rb'(\xef\xbb\xbf)?\s*\{\s*"(classes|labels|samples)"', head)
            return ExchangeFormat.fiftyone if is_fiftyone else ExchangeFormat.label_studio
        case ".zip" | ".gz" | ".tar":
            raise InputError(f"{path} is an archive: unpack it, and name the file or folder in it.")
    return None
