"""Finds the tables of a folder for `seedling init`, and what each is read as: its columns, and the split that its name stands for.

All of it is written into params.yaml, so that later stages guess nothing.
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
from seedling.scrape.columns import NAME_COLUMNS, resolve, split_by_name, suggested
from seedling.scrape.image_paths import NO_SUCH_FILE, ImagePaths
from seedling.scrape.label_values import ASK_MINUS_ONE
from seedling.scrape.table_files import SET_ENCODING, SUFFIXES, TableFile, table_files

COLUMN_OPTIONS = ("text", "image", "label", "split", "id", "group")
MAX_TABLES_LISTED = 20  # more Parquet files in one folder are one source
MAX_DEPTH = 2  # of folders in which tables are looked for
MAX_IMAGE_FOLDERS = 1_000
ROWS_TRIED = 20
REMEDIES = {  # of params.yaml → of the command line
    NAME_COLUMNS: "Name the columns: --column text=NAME --column label=NAME.",
    SET_ENCODING: "say --encoding latin-1, cp1252 or utf-16.",
    ASK_MINUS_ONE: "say --no-label=-1 where it stands for no label, or --no-label= where it is a class.",
    "or set `delimiter` and `quoting` for this source in params.yaml": "or say which character separates its cells: --delimiter ';'",
    "set `encoding: utf-16-le` (or utf-16-be) for this source in params.yaml": "say --encoding utf-16-le (or utf-16-be)",
}


@dataclass(frozen=True)
class TableOptions:
    """What the command line says of all tables."""

    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    no_label: Sequence[str] | None = None

    def settings(self) -> dict[str, Any]:
        """As they stand in params.yaml. Raises InputError for a name that is not a column's of a source."""
        if unknown := [name for name in self.columns if name not in COLUMN_OPTIONS]:
            raise InputError(
                f"--column {unknown[0]}: it must be one of {', '.join(COLUMN_OPTIONS)}, as in --column text=message."
            )
        no_label = None if self.no_label is None else [word for word in self.no_label if word]
        others = {"encoding": self.encoding, "delimiter": self.delimiter, "no_label": no_label}
        return {**self.columns, **{name: value for name, value in others.items() if value is not None}}


@dataclass(frozen=True)
class TableSources:
    """The tables with their settings, and what is said of those that are not read."""

    tables: Sequence[TableSource]
    notices: Sequence[str] = ()


def source_line(table: TableSource) -> str:
    """The table's line in params.yaml."""
    settings = {"kind": "table", "path": table.path} | {
        name: getattr(table, name) for name in type(table).model_fields if name in table.model_fields_set
    }
    return "{" + ", ".join(f"{name}: {_yaml_value(name, value)}" for name, value in settings.items()) + "}"


def _yaml_value(name: str, value: Any) -> str:
    return str(value) if name in {"kind", "default_split"} else json.dumps(value, ensure_ascii=False)


def table_paths(source: Path) -> list[str]:
    """The tables of a folder, relative to it: those on its top, or, where there is nothing else, those of its folders; a folder of very many
    Parquet files stands for them.
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
                return []  # folders of something else
    return _by_folder(sorted(nested))


def _by_folder(paths: list[str]) -> list[str]:
    parquet = [path for path in paths if path.lower().endswith(".parquet")]
    folders = sorted({path.rpartition("/")[0] or "." for path in parquet})
    if len(parquet) <= MAX_TABLES_LISTED or len(parquet) < len(paths) or len(folders) > 1:
        return paths
    return folders


def find_tables(root: Path, paths: Sequence[str], modality: Modality, options: TableOptions) -> TableSources:
    """What the tables are read as. Raises InputError where one cannot be read, and where names give test rows and no training rows."""
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
    """The source with the table's own names for what has another standard name. Raises InputError as the reader does."""
    path = root / source.path
    files = table_files(path.resolve(), source, modality)
    if not files:
        raise InputError(f"{path} holds no .parquet file.")
    found = suggested(files[0].columns, source, modality, str(path))
    source = source.model_copy(update=found)
    source.model_fields_set.update(found)
    columns = resolve(files[0].columns, source, modality, str(path))
    if modality == "image" and (folder := _image_folder(files[0], columns.content, root, path)):
        source = source.model_copy(update={"image_folder": folder})
        source.model_fields_set.add("image_folder")
    return source


def _image_folder(file: TableFile, column: str, root: Path, table: Path) -> str | None:
    """The only folder in which the first images lie, where they do not lie beside the table."""
    values = [row.values.get(column) for row in islice(file.rows(), ROWS_TRIED)]
    names = [value for value in values if isinstance(value, str) and value.strip()]
    beside = (table if table.is_dir() else table.parent).resolve()
    if not names or any(ImagePaths(beside, root.resolve()).find(name)[1] != NO_SUCH_FILE for name in names):
        return None
    fits = []
    for folder, inner, _ in islice(os.walk(beside), MAX_IMAGE_FOLDERS):
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        paths = ImagePaths(Path(folder), root.resolve())
        if Path(folder) != beside and all(paths.find(name)[1] is None for name in names):
            fits.append(Path(folder).relative_to(root.resolve()).as_posix())
    return fits[0] if len(fits) == 1 else None


def _with_splits(tables: Sequence[TableSource], root: Path) -> list[TableSource]:
    """Each with the split that its name stands for; a table alone is a training table, whatever its name."""
    if len(tables) == 1 and not (root / tables[0].path).is_dir():
        return [_of_split(tables[0], "train") if split_by_name(tables[0].path) not in {None, "train"} else tables[0]]
    names = {table.path: split_by_name(table.path) for table in tables if not (root / table.path).is_dir()}
    if names and len(names) == len(tables) and not {None, "train"} & set(names.values()):
        raise InputError(
            f"{root} has tables for {', '.join(sorted({str(split) for split in names.values()}))} by their names "
            f"({', '.join(sorted(names))}), and none with training rows: add one, such as train.csv, or name a single file."
        )
    return [table if (split := names.get(table.path)) is None else _of_split(table, split) for table in tables]


def _of_split(table: TableSource, split: str) -> TableSource:
    changed = table.model_copy(update={"default_split": split})
    changed.model_fields_set.add("default_split")
    return changed


def for_command_line(message: str, data: Path, source: Path) -> str:
    """An error of the reader, with the user's own path and the options in place of the workspace's and params.yaml."""
    shown = message.replace(str(data.resolve()), str(source.parent if source.is_file() else source))
    return _for_command_line(shown, source)


def _for_command_line(message: str, source: Path) -> str:
    shown = message.replace(str(source.resolve()), str(source))
    for of_params, of_options in REMEDIES.items():
        shown = shown.replace(of_params, of_options)
    return shown
