"""Reads a table, in CSV, TSV, JSONL or Parquet, with a text or image column, and optional label, split and id."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from seedling.config.sources import TableSource
from seedling.dataset.generation import SPLITS, Modality
from seedling.errors import InputError
from seedling.files.data_files import fault_of, inside, read_bytes
from seedling.scrape.columns import NAME_COLUMNS, SPLIT_NAMES, Columns, normalized_name, resolve, split_by_name
from seedling.scrape.image_paths import ImagePaths
from seedling.scrape.items import Item, has_lone_surrogate, storable, tidy_label, visible
from seedling.scrape.label_values import (
    MINUS_ONE,
    NO_LABEL_WORDS,
    SURROGATE,
    LabelCounts,
    LabelValue,
    label_value,
    minus_one_is_no_label,
)
from seedling.scrape.table_files import SET_ENCODING, SUFFIXES, TableFile, TableRow, table_files

__all__ = ["NAME_COLUMNS", "SET_ENCODING", "SUFFIXES", "Table", "read_table"]

LABELED = frozenset({"train", "validation", "test"})
MADE_FROM_OTHERS = "made_from_other_rows"  # rows of an export: they may be made from held-out rows
MAX_MALFORMED_SHARE = 0.5  # of the rows; above it, the table is not read correctly
MIN_MALFORMED_ROWS = 5
MALFORMED = frozenset(
    {"too_few_fields", "too_many_fields", "unbalanced_quote", "stray_line_break", "not_json", "duplicate_key"}
)


def read_table(
    source: TableSource, data: Path, modality: Modality, max_bytes: int, *, fields: bool = False
) -> Iterator[Item]:
    """Yield the table's items in order; the Parquet files of a folder, ordered by name, are one table.

    fields: whether label rules read columns.
    Raises InputError: missing file, unknown format, missing column, another encoding, no rows, a label that may mean no
    label, mostly malformed rows.
    """
    yield from Table(source, data, modality).items(max_bytes, fields=fields)


class Table:
    """An opened table: its `files` with their columns, from which `seedling init` reports what it found."""

    def __init__(self, source: TableSource, data: Path, modality: Modality) -> None:
        """Raises InputError if the table cannot be opened or lacks a column."""
        self.source, self._modality = source, modality
        self._root = data.resolve()
        self.path = _checked_path(source, data)
        self._name = storable(self.path.relative_to(self._root).as_posix())
        self.files = table_files(self.path, source, modality)
        self.columns = [resolve(file.columns, source, modality, str(file.path)) for file in self.files]
        beside = self.path if self.path.is_dir() else self.path.parent
        folder = inside(data, source.image_folder) if source.image_folder else beside
        self._image_paths = ImagePaths(folder, self._root)
        self.changes: Counter[str] = Counter()  # changes to label values, counted while the items are read
        self.dropped_labels = 0  # labels of rows in a split without labels

    def items(self, max_bytes: int, *, fields: bool = False) -> Iterator[Item]:
        """Yield the items in the files' order, as `read_table` does."""
        no_label = self._no_label()
        malformed: list[str] = []
        number = 0
        for file, columns in zip(self.files, self.columns, strict=True):
            default = self.default_split(file)
            for row in file.rows():
                number += 1
                if row.reason in MALFORMED:
                    malformed.append(f"{row.position} ({row.reason})")
                if row.reason is not None:
                    yield self._malformed(row)
                    continue
                item = self._item(row, number, file, columns, default, no_label, max_bytes)
                yield replace(item, fields=_fields(row.values, columns.content)) if fields else item
        if number == 0:
            raise InputError(f"{self.path} has no rows.")
        if len(malformed) >= MIN_MALFORMED_ROWS and len(malformed) > MAX_MALFORMED_SHARE * number:
            raise InputError(
                f"{self.path}: {len(malformed):,} of {number:,} rows do not fit the header or are incomplete, the "
                f"first at {malformed[0]}: repair or export the table again, or set `delimiter` and `quoting` for this "
                "source in params.yaml."
            )

    def default_split(self, file: TableFile) -> str | None:
        """Return the split of rows with a blank one: the configured one, or the one in the file's name."""
        if self.source.default_split is not None:
            return self.source.default_split
        return split_by_name(file.path.relative_to(self._root).as_posix())

    def _no_label(self) -> frozenset[str] | None:
        if self.source.no_label is not None:
            return frozenset(self.source.no_label)
        if not any(columns.label and not columns.class_names for columns in self.columns):
            return None
        minus_one = minus_one_is_no_label(self._label_counts(), str(self.path))
        return frozenset({*NO_LABEL_WORDS, MINUS_ONE}) if minus_one else None

    def _label_counts(self) -> LabelCounts:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for file, columns in zip(self.files, self.columns, strict=True):
            default = self.default_split(file)
            for row in file.rows() if columns.label else ():
                label = _label_of(row.values, file, columns, None).label
                if row.reason is None and label is not None:
                    counts[_split_of(row.values, columns, default) or "train"][label] += 1
        return LabelCounts(counts)

    def _item(
        self,
        row: TableRow,
        number: int,
        file: TableFile,
        columns: Columns,
        default: str | None,
        no_label: frozenset[str] | None,
        max_bytes: int,
    ) -> Item:
        values = row.values
        value = _label_of(values, file, columns, no_label)
        default = default or self._split_of_path(values.get(columns.content))
        split = _split_of(values, columns, default) or ("train" if value.label or value.reason else "pool")
        if split == "train" and value.label is None and value.reason is None:
            split = "pool"  # an unlabeled row of the training data
        reason = _reason(split, value)
        path: Path | None = None
        content: Any = b"" if self._modality == "image" else ""
        if reason is None:
            content, reason = self._content(values.get(columns.content), max_bytes)
        path = content.args[0] if isinstance(content, partial) else None
        group = _word(values.get(columns.group)) if columns.group else None
        identity = _word(values.get(columns.id)) if columns.id else None
        if value.change:
            self.changes[value.change] += 1
        label = value.label if split in LABELED else None
        self.dropped_labels += value.label is not None and split in SPLITS and label is None
        item = Item(
            origin=f"{self._name}#{storable(identity or str(number))}",
            load=content if callable(content) else lambda: content,
            split=split if split in SPLITS else "pool",
            label=label,
            label_source="human" if label else None,
            group=storable(f"{columns.group} {group}") if group else None,
            reason=reason,
            file=None if path is None else path.relative_to(self._root).as_posix(),
        )
        return _as_exported(item, values) if columns.exported else item

    def _split_of_path(self, value: Any) -> str | None:
        """Return the split in the name of an image path's first folder, as in layouts with a folder per split."""
        if self._modality == "text" or not isinstance(value, str):
            return None
        first, slash, _ = value.strip().replace("\\", "/").removeprefix("./").partition("/")
        return SPLIT_NAMES.get(normalized_name(first)) if slash else None

    def _malformed(self, row: TableRow) -> Item:
        return Item(
            origin=f"{self._name}#{row.position}",
            load=lambda: b"" if self._modality == "image" else "",
            reason=row.reason,
        )

    def _content(self, value: Any, max_bytes: int) -> tuple[Any, str | None]:
        if self._modality == "text":
            return _text(value)
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value, None if len(value) <= max_bytes else "too_many_bytes"
        name = _word(value)
        if not name or not name.strip():
            return b"", "empty"
        path, reason = self._image_paths.find(name)
        if reason is not None:
            return b"", reason
        return partial(read_bytes, path, self._root), None if path.stat().st_size <= max_bytes else "too_many_bytes"


def _checked_path(source: TableSource, data: Path) -> Path:
    path = inside(data, source.path)
    if not path.exists():
        raise InputError(
            f"{path} does not exist: name a {', '.join(SUFFIXES)} file, or a folder of .parquet files, "
            "in params.yaml, scrape.sources."
        )
    if not path.is_dir() and (fault := fault_of(path, data.resolve())):
        raise InputError(f"{path} is not read ({fault}): copy the table itself into data/.")
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is not a {', '.join(SUFFIXES)} file: save the table as one of these.")
    return path


def _label_of(values: Mapping[str, Any], file: TableFile, columns: Columns, no_label: Any) -> LabelValue:
    if columns.label is None:
        return LabelValue()
    value = values.get(columns.label)
    if columns.class_names and isinstance(value, str):
        return LabelValue(tidy_label(value))
    return label_value(values.get(columns.label), file.class_names.get(columns.label, ()), no_label)


def _split_of(values: Mapping[str, Any], columns: Columns, default: str | None) -> str | None:
    word = normalized_name(_word(values.get(columns.split)) or "") if columns.split else ""
    return SPLIT_NAMES.get(word, word) or default


def _reason(split: str, value: LabelValue) -> str | None:
    if split not in SPLITS:
        return "unknown_split"
    if split not in LABELED:
        return None
    return value.reason or ("no_label" if value.label is None else None)


def _text(value: Any) -> tuple[str, str | None]:
    if isinstance(value, dict | list):
        return "", "not_a_text"
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            return "", "not_utf8"
    text = _word(value) or ""
    if has_lone_surrogate(text):
        return "", SURROGATE
    return (text, None) if visible(text).strip() else ("", "empty")


def _fields(values: Mapping[str, Any], content: str) -> dict[str, str]:
    return {
        storable(name): storable(word)
        for name, value in values.items()
        if name and name != content and (word := _word(value)) is not None
    }


def _word(value: Any) -> str | None:
    return None if value is None or value != value else str(value)


def _as_exported(item: Item, values: Mapping[str, Any]) -> Item:
    """Return the item of a row of `seedling export` with the provenance of its label, license and attribution."""
    words = {normalized_name(name): _word(value) or None for name, value in values.items()}
    confidence = _share(words["confidence"]) if item.label else 1.0
    weight = _share(words["weight"]) if item.label else 1.0
    return replace(
        item,
        label_source=(words["label_source"] or "human") if item.label else None,
        license=words.get("license") or words.get("licence"),
        attribution=words["attribution"],
        weight=weight / confidence if item.split == "train" else weight,  # the exported weight includes the confidence
        confidence=confidence,
        reason=item.reason or (MADE_FROM_OTHERS if words["stage"] in {"augment", "synthesize"} else None),
    )


def _share(word: str | None) -> float:
    """Return a number in (0, 1]; 1 if the word is not such a number."""
    try:
        number = float(word or 1)
    except ValueError:
        return 1.0
    return number if 0 < number <= 1 else 1.0
