"""Finds the tables of a folder for `seedling init`: their columns, and the splits in their names.

The results are written into params.yaml, so that later stages do not detect them again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seedling.config.sources import TableSource
from seedling.dataset.generation import Modality
from seedling.errors import InputError, MissingColumn
from seedling.files.ignored_files import is_hidden
from seedling.scrape.columns import NAME_COLUMNS, resolve, split_by_name, suggest_columns
from seedling.scrape.image_paths import NO_SUCH_FILE, ImagePaths
from seedling.scrape.label_values import ASK_MINUS_ONE
from seedling.scrape.table_files import SET_ENCODING, SUFFIXES, TableFile, table_files

COLUMN_OPTIONS = ("text", "image", "label", "split", "id", "group")
MAX_TABLES_LISTED = 20  # more Parquet files in one folder are one source
MAX_DEPTH = 2  # of the folders that are searched for tables
MAX_IMAGE_FOLDERS = 1_000
SAMPLE_ROWS = 20
REMEDIES = {  # of params.yaml → of the command line
    NAME_COLUMNS: "Name the columns: --column text=NAME --column label=NAME.",
    SET_ENCODING: "use --encoding latin-1, cp1252 or utf-16.",
    ASK_MINUS_ONE: "use --no-label=-1 if it stands for no label, or --no-label= if it is a class.",
    "or set `delimiter` and `quoting` for this source in params.yaml": "or name the character between its cells: "
    "--delimiter ';'",
    "set `encoding: utf-16-le` (or utf-16-be) for this source in params.yaml": "use --encoding utf-16-le (or "
    "utf-16-be)",
}


@dataclass(frozen=True)
class TableOptions:
    """The command line's options for all tables."""

    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    no_label: Sequence[str] | None = None

    def settings(self) -> dict[str, Any]:
        """Return the options as settings of params.yaml. Raises InputError for an unknown column role."""
        if unknown := [name for name in self.columns if name not in COLUMN_OPTIONS]:
            raise InputError(
                f"--column {unknown[0]}: it must be one of {', '.join(COLUMN_OPTIONS)}, as in --column text=message."
            )
        no_label = None if self.no_label is None else [word for word in self.no_label if word]
        others = {"encoding": self.encoding, "delimiter": self.delimiter, "no_label": no_label}
        return {**self.columns, **{name: value for name, value in others.items() if value is not None}}


@dataclass(frozen=True)
class TableSources:
    """The tables with their settings, and notices about tables that are not read."""

    tables: Sequence[TableSource]
    notices: Sequence[str] = ()


def source_line(table: TableSource) -> str:
    """Return the table's line in params.yaml."""
    settings = {"kind": "table", "path": table.path} | {
        name: getattr(table, name) for name in type(table).model_fields if name in table.model_fields_set
    }
    return "{" + ", ".join(f"{name}: {_yaml_value(name, value)}" for name, value in settings.items()) + "}"


def _yaml_value(name: str, value: Any) -> str:
    return str(value) if name in {"kind", "default_split"} else json.dumps(value, ensure_ascii=False)


def table_paths(source: Path) -> list[str]:
    """Return the tables of a folder, relative to it.

    These are the tables directly in it, or, if there are none, those of its subfolders if they have no other files. A
    folder with more than MAX_TABLES_LISTED Parquet files stands for them.
    """
    top = sorted(path.name for path in source.iterdir() if path.suffix.lower() in SUFFIXES and not is_hidden(path.name))
    if top:
        return _by_folder(top)
    nested: list[str] = []
    for folder, names, files in os.walk(source):
        relative = Path(folder).relative_to(source)
        names[:] = sorted(name for name in names if not is_hidden(name)) if len(relative.parts) < MAX_DEPTH else []
        for name in sorted(file for file in files if not is_hidden(file)):
            if Path(name).suffix.lower() in SUFFIXES:
                nested.append((relative / name).as_posix())
            elif relative.parts:
                return []  # the folders have other files
    return _by_folder(sorted(nested))


def _by_folder(paths: list[str]) -> list[str]:
    parquet = [path for path in paths if path.lower().endswith(".parquet")]
    folders = sorted({path.rpartition("/")[0] or "." for path in parquet})
    if len(parquet) <= MAX_TABLES_LISTED or len(parquet) < len(paths) or len(folders) > 1:
        return paths
    return folders


def find_tables(root: Path, paths: Sequence[str], modality: Modality, options: TableOptions) -> TableSources:
    """Return the tables with their settings.

    Raises InputError for a table that cannot be read, and if the names give test rows but no training rows.
    """
    settings = options.settings()
    tables, notices, missing = [], list[str](), list[MissingColumn]()
    for path in paths:
        try:
            source = TableSource(kind="table", path=path, **settings)
        except ValidationError as error:
            problem = error.errors()[0]
            raise InputError(f"--{problem['loc'][0]}: {str(problem['msg']).removeprefix('Value error, ')}") from error
        try:
            tables.append(_with_own_names(source, root, modality))
        except MissingColumn as error:
            missing.append(error)
            notices.append(f"Not read: {path}. {_for_command_line(str(error), root)}")
    if missing and (not tables or options.columns):
        raise missing[0]
    return TableSources(_with_splits(tables, root), notices)


def _with_own_names(source: TableSource, root: Path, modality: Modality) -> TableSource:
    """Return the source with the table's own column names. Raises InputError as the reader does."""
    path = root / source.path
    files = table_files(path.resolve(), source, modality)
    if not files:
        raise InputError(f"{path} has no .parquet file.")
    columns_by_role = suggest_columns(files[0].columns, source, modality, str(path))
    source = source.model_copy(update=columns_by_role)
    source.model_fields_set.update(columns_by_role)
    columns = resolve(files[0].columns, source, modality, str(path))
    if modality == "image" and (folder := _image_folder(files[0], columns.content, root, path)):
        source = source.model_copy(update={"image_folder": folder})
        source.model_fields_set.add("image_folder")
    return source


def _image_folder(file: TableFile, column: str, root: Path, table: Path) -> str | None:
    """Return the only folder that has all of the first images, if they are not beside the table."""
    values = [row.values.get(column) for row in islice(file.rows(), SAMPLE_ROWS)]
    names = [value for value in values if isinstance(value, str) and value.strip()]
    beside = (table if table.is_dir() else table.parent).resolve()
    if not names or any(ImagePaths(beside, root.resolve()).find(name)[1] != NO_SUCH_FILE for name in names):
        return None
    matching = []
    for folder, inner, _ in islice(os.walk(beside), MAX_IMAGE_FOLDERS):
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        paths = ImagePaths(Path(folder), root.resolve())
        if Path(folder) != beside and all(paths.find(name)[1] is None for name in names):
            matching.append(Path(folder).relative_to(root.resolve()).as_posix())
    return matching[0] if len(matching) == 1 else None


def _with_splits(tables: Sequence[TableSource], root: Path) -> list[TableSource]:
    """Return each table with the split in its name; a single table is a training table, whatever its name."""
    if len(tables) == 1 and not (root / tables[0].path).is_dir():
        return [_of_split(tables[0], "train") if split_by_name(tables[0].path) not in {None, "train"} else tables[0]]
    names = {table.path: split_by_name(table.path) for table in tables if not (root / table.path).is_dir()}
    if names and len(names) == len(tables) and not {None, "train"} & set(names.values()):
        raise InputError(
            f"{root} has tables for {', '.join(sorted({str(split) for split in names.values()}))} by their names "
            f"({', '.join(sorted(names))}), but none with training rows: add one, such as train.csv, or name a single "
            "file."
        )
    return [table if (split := names.get(table.path)) is None else _of_split(table, split) for table in tables]


def _of_split(table: TableSource, split: str) -> TableSource:
    changed = table.model_copy(update={"default_split": split})
    changed.model_fields_set.add("default_split")
    return changed


def for_command_line(message: str, data: Path, source: Path) -> str:
    """Return a reader's error message with the user's own path, and options of the command line."""
    message = message.replace(str(data.resolve()), str(source.parent if source.is_file() else source))
    return _for_command_line(message, source)


def _for_command_line(message: str, source: Path) -> str:
    message = message.replace(str(source.resolve()), str(source))
    for of_params, of_options in REMEDIES.items():
        message = message.replace(of_params, of_options)
    return message
