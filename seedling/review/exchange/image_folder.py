"""Image folders, which the Hub's `imagefolder` and torchvision read: `<split>/<class>/<id>.png` and `metadata.csv`.

A person moves an image to the folder of another class, or edits `answer` in metadata.csv.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from seedling.errors import InputError
from seedling.files.data_files import files_below
from seedling.files.writing import plain_names
from seedling.media.images import SUFFIXES
from seedling.review.exchange.csv_table import read_table, write_table
from seedling.review.exchange.exported_rows import ExportedRow
from seedling.review.exchange.external_rows import ExternalRow, image_files, row_ids_in
from seedling.review.exchange.table_rows import EXPORTED, ID_COLUMNS, LABEL, table_row

METADATA_FILE = "metadata.csv"
UNLABELED = "_unlabeled"  # folder names of classes never begin with _


def write(rows: Iterable[ExportedRow], folder: Path, classes: Sequence[str]) -> None:
    """Write the images and their metadata."""
    names = plain_names(classes)
    with (folder / METADATA_FILE).open("w", encoding="utf-8", newline="") as file:
        write_table(file, (_written(row, folder, names) for row in rows))


def _written(row: ExportedRow, folder: Path, names: dict[str, str]) -> dict[str, object]:
    target = folder / row.split / (UNLABELED if row.label is None else names[row.label])
    target.mkdir(parents=True, exist_ok=True)
    return {"file_name": row.write_image(target).relative_to(folder).as_posix(), **row.fields()}


def read(path: Path, classes: Sequence[str]) -> Iterator[ExternalRow]:
    """Yield the images; the label of each is the class of its folder, not what metadata.csv says.

    Raises InputError for a folder without images.
    """
    metadata = _metadata(path)
    class_of_folder = {folder_name: name for name, folder_name in plain_names(classes).items()}
    is_empty = True
    for file, fault in files_below(path, path.resolve()):
        if fault is not None or file.suffix.lower() not in SUFFIXES:
            continue
        is_empty = False
        name = file.relative_to(path).as_posix()
        folder = file.parent.name if file.parent != path else UNLABELED
        exported = next((metadata[row_id] for row_id in row_ids_in(name) if row_id in metadata), None)
        values = exported or metadata.get(name, {})
        is_moved = folder != PurePosixPath(values.get("file_name", "")).parent.name or EXPORTED not in values
        label = "" if folder == UNLABELED else class_of_folder.get(folder, folder)
        values = values | {"file_name": name, LABEL: label if is_moved else values[EXPORTED]}
        yield table_row(values, name, partial(image_files, name, path))
    if is_empty:
        raise InputError(f"{path} has no images: name a folder with a folder of images per class.")


def _metadata(path: Path) -> dict[str, dict[str, str]]:
    """The rows of metadata.csv, by id, and by file name for rows without an id."""
    by_name: dict[str, dict[str, str]] = {}
    for file in sorted(path.rglob(METADATA_FILE)):
        for _, values in read_table(file):
            row_ids = row_ids_in(*(values.get(column) for column in (*ID_COLUMNS, "file_name")))
            by_name[row_ids[0] if row_ids else values.get("file_name", "")] = values
    return by_name
