"""Which files of data/ are rows of image tables, and the labels that the tables give them."""

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
    """Each file that a table among the sources names, relative to data/ → the labels that tables give it, None for no label.

    Raises InputError where a table cannot be read.
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
    return {file: frozenset(given) for file, given in labels.items()}


def holds_images(table: Table) -> bool:
    """Whether its files hold the images' bytes themselves, which are not read for nothing."""
    return all(embeds_all(file.path, columns.content) for file, columns in zip(table.files, table.columns, strict=True))
