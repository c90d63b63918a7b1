"""Which files of data/ are rows of image tables, and the labels that the tables give them."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data_files import files_below, inside
from tasks.errors import InputError
from tasks.generation import Modality
from tasks.scrape.folder import NO_FILES, LabelsByFile
from tasks.scrape.table import read_table
from tasks.sources import Source, TableSource


def labels_by_file(sources: Sequence[Source], data: Path, modality: Modality) -> LabelsByFile:
    """Each file that a table among the sources names, relative to data/ → the labels that tables give it, None for no label.

    Raises InputError where a table cannot be read.
    """
    if modality != "image":
        return NO_FILES
    labels: dict[str, set[str | None]] = defaultdict(set)
    for source in sources:
        if isinstance(source, TableSource) and not holds_images(source, data):
            for item in read_table(source, data, modality, sys.maxsize):
                if item.file is not None:
                    labels[item.file].add(item.label)
    return {file: frozenset(given) for file, given in labels.items()}


def holds_images(source: TableSource, data: Path) -> bool:
    """Whether it is of Parquet files that hold the images' bytes themselves, which are not read for nothing."""
    path = inside(data, source.path)
    if not path.is_dir() and path.suffix.lower() != ".parquet":
        return False
    try:
        return all(_embeds_all(part, source.image) for part in _parts(path))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {str(error).rstrip('.')}. Correct or re-export the file.") from error


def _parts(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (part for part, fault in files_below(path, path) if part.suffix == ".parquet" and fault is None)
    else:
        yield path


def _embeds_all(part: Path, column: str) -> bool:
    """Whether no row of the column `column` is a path, by the statistics of the file's footer."""
    metadata = pq.read_metadata(part)
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        for place in range(group.num_columns):
            chunk = group.column(place)
            if chunk.path_in_schema == f"{column}.bytes" or (
                chunk.path_in_schema == column and chunk.physical_type == "BYTE_ARRAY" and not _is_text(metadata, place)
            ):
                if chunk.statistics is None or not chunk.statistics.has_null_count or chunk.statistics.null_count:
                    return False
                break
        else:
            return False
    return True


def _is_text(metadata: pq.FileMetaData, place: int) -> bool:
    return str(metadata.schema.column(place).logical_type.type) == "STRING"
