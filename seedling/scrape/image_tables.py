"""Finds which files of data/ are rows of image tables, and the labels that the tables give them."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from seedling.config.sources import Source, TableSource
from seedling.dataset.generation import Modality
from seedling.scrape.folder import NO_FILES, LabelsByFile
from seedling.scrape.table import Table
from seedling.scrape.table_files import embeds_all


def labels_by_file(sources: Sequence[Source], data: Path, modality: Modality) -> LabelsByFile:
    """Map each file that a table of the sources names, relative to data/, to its labels; None stands for no label.

    Raises InputError for a table that cannot be read.
    """
    if modality != "image":
        return NO_FILES
    labels: dict[str, set[str | None]] = defaultdict(set)
    for source in sources:
        if isinstance(source, TableSource):
            table = Table(source, data, modality)
            for item in table.items(sys.maxsize) if not holds_images(table) else ():
                if item.file is not None:
                    labels[item.file].add(item.label)
    return {file: frozenset(labels_of_file) for file, labels_of_file in labels.items()}


def holds_images(table: Table) -> bool:
    """Whether the table's files contain the images' bytes, which are large and need not be read here."""
    return all(embeds_all(file.path, columns.content) for file, columns in zip(table.files, table.columns, strict=True))
