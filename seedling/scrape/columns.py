"""Finds the columns of a table by name, ignoring case, blanks and invisible characters around the names."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath

from seedling.config.sources import TableSource
from seedling.dataset.generation import Modality
from seedling.errors import InputError, MissingColumn
from seedling.scrape.items import visible
from seedling.workspace import PACKED_FILES

NAME_COLUMNS = "Name the columns in params.yaml, scrape.sources."  # commands without a params.yaml replace this remedy
# `seedling init` uses one of these names if the table lacks the standard name and has exactly one of them.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "text": (
        *("texts", "sentence", "message", "content", "review", "utterance", "document", "body", "comment", "tweet"),
        *("review_text", "text_content", "sentence1"),
    ),
    "image": ("images", "img", "file_name", "filename", "image_path", "image_file", "filepath", "file_path", "path"),
    "label": (
        *("labels", "class", "category", "target", "sentiment", "intent", "topic", "tag", "annotation", "y"),
        *("label_name", "class_name", "label_text"),
    ),
    "split": ("data_split", "dataset_split", "subset", "partition", "set"),
}
SPLIT_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trn", "labeled", "labelled"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("pool", "unlabeled", "unlabelled", "unsupervised"), "pool"),
    **dict.fromkeys(("out_of_scope", "oos"), "out_of_scope"),
}
# Columns of `seedling export`, beside those that a reader needs; a table with all of them is such an export.
EXPORTED = ("id", "label_source", "weight", "confidence", "origin", "attribution", "stage")

PACKED_COLUMNS = ("label", "split", "id")  # of these files, beside the content


@dataclass(frozen=True, slots=True)
class Columns:
    """The table's own names of the columns that are read; None for a column that it lacks."""

    content: str
    label: str | None = None
    split: str | None = None
    id: str | None = None
    group: str | None = None
    exported: bool = False
    class_names: bool = False  # whether the labels are exact class names, which need no cleaning

    def used(self) -> dict[str, str]:
        """Map each role that the table has to its column's name."""
        roles = {name: getattr(self, name) for name in ("content", "label", "split", "id", "group")}
        return {role: name for role, name in roles.items() if name is not None}


@lru_cache(maxsize=1024)
def normalized_name(name: str) -> str:
    """Return a column's name in the form in which names are compared."""
    plain = visible(unicodedata.normalize("NFKC", str(name))).strip().strip("\"'").casefold()
    return re.sub(r"[\s_-]+", "_", plain.strip())


def content_of(source: TableSource, modality: Modality) -> str:
    """Return the configured name of the column of texts or images."""
    return source.text if modality == "text" else source.image


def find(columns: Sequence[str], name: str, *, exactly: bool = False) -> list[str]:
    """Return the columns that match the name; with `exactly`, only the identical one if there is one."""
    if exactly and name in columns:
        return [name]
    key = normalized_name(name)
    return list(dict.fromkeys(column for column in columns if key and normalized_name(column) == key))


def rank(columns: Sequence[str], source: TableSource, modality: Modality) -> int:
    """Score how well the columns suit the source: 10 for the content, 3 for a synonym of it, and 1 per other column."""
    content = content_of(source, modality)
    others = [source.label, source.split, source.id, *([source.group] if source.group else [])]
    score = 10 if find(columns, content) else 3 if _synonyms(columns, "text" if modality == "text" else "image") else 0
    return score + sum(bool(find(columns, other)) for other in others)


def resolve(columns: Sequence[str], source: TableSource, modality: Modality, table: str) -> Columns:
    """Return the table's own columns. table: its name, for messages.

    Raises InputError if a required column is missing, or if two columns match one name.
    """
    if not any(columns):
        raise MissingColumn(f"{table} is empty: it needs a first line with the columns' names, and rows.")
    if any("\0" in column for column in columns):
        raise InputError(
            f"{table}: its first line has NUL characters, so its encoding may be utf-16: set `encoding: utf-16-le` (or "
            "utf-16-be) for this source in params.yaml, or save it as UTF-8."
        )
    check_duplicates(columns, table)
    column_of: dict[str, str | None] = {}
    for role, name, required in _roles(source, modality):
        set_by_user = role in source.model_fields_set
        matches = find(columns, name, exactly=set_by_user)
        if len(matches) > 1:
            raise InputError(
                f"{table} has the columns {' and '.join(map(repr, matches))}, and both match '{name}': rename one of "
                f"them, or choose one. {NAME_COLUMNS}"
            )
        if not matches and required:
            raise MissingColumn(_missing(columns, name, table))
        column_of["content" if role in {"text", "image"} else role] = matches[0] if matches else None
    keys = {normalized_name(column) for column in columns}
    exported = keys.issuperset(EXPORTED)
    is_packed = PurePath(table).match(PACKED_FILES) and tuple(columns[1:]) == PACKED_COLUMNS
    class_names = exported or is_packed
    return Columns(**column_of, exported=exported, class_names=class_names)  # type: ignore[arg-type]


def _roles(source: TableSource, modality: Modality) -> list[tuple[str, str, bool]]:
    """Return (role, column name, whether it is required); a column that the user names is required."""
    roles = [("text" if modality == "text" else "image", content_of(source, modality), True)]
    roles += [(role, getattr(source, role), role in source.model_fields_set) for role in ("label", "split", "id")]
    return [*roles, ("group", source.group, True)] if source.group else roles


def check_duplicates(columns: Sequence[str], table: str) -> None:
    """Raise InputError if two columns have the same name."""
    duplicates = [name for name, count in Counter(columns).items() if count > 1 and name]
    if duplicates:
        numbers = [str(number) for number, name in enumerate(columns, start=1) if name == duplicates[0]]
        raise InputError(
            f"{table} has {len(numbers)} columns named '{duplicates[0]}' (columns {', '.join(numbers)}): rename or "
            "remove all but one."
        )


def _missing(columns: Sequence[str], name: str, table: str) -> str:
    similar = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
    hint = f": did you mean '{similar[0]}'?" if similar else "."
    listed = ", ".join(column if len(column) <= 40 else f"{column[:39]}…" for column in columns[:20])
    headless = "" if similar else " If its first line is a row, add a line with the columns' names above it."
    return f"{table} has no column '{name}'{hint} It has {listed}.{headless} {NAME_COLUMNS}"


def _synonyms(columns: Sequence[str], role: str) -> list[str]:
    return [column for column in columns if normalized_name(column) in SYNONYMS[role]]


def suggest_columns(columns: Sequence[str], source: TableSource, modality: Modality, table: str) -> dict[str, str]:
    """Map roles whose standard name the table lacks to the column with a common other name.

    Raises InputError if more than one column may have the labels.
    """
    suggestions: dict[str, str] = {}
    for role, name, _ in _roles(source, modality):
        if role not in SYNONYMS or role in source.model_fields_set or find(columns, name):
            continue
        matches = [column for column in _synonyms(columns, role) if column not in suggestions.values()]
        if role == "image" and len(matches) > 1:
            matches = [column for column in matches if normalized_name(column) in {"file_name", "filename"}] or matches
        if len(matches) == 1:
            suggestions[role] = matches[0]
        elif role == "label" and matches:
            raise InputError(
                f"{table} has no column 'label', and {' and '.join(map(repr, matches))} may hold the labels. "
                f"{NAME_COLUMNS}"
            )
    return suggestions


def split_by_name(path: str) -> str | None:
    """Return the split in a file's name, or in its folder's name; None if a name has no split, or two.

    Examples: test.csv, data/train-00000-of-00002.parquet and dev/1.jsonl.
    """
    for part in reversed(path.replace("\\", "/").split("/")):
        words = re.sub(r"[^a-z]+", "_", normalized_name(part.rpartition(".")[0] or part)).strip("_")
        if words in SPLIT_NAMES:
            return SPLIT_NAMES[words]
        splits = {SPLIT_NAMES[word] for word in words.split("_") if word in SPLIT_NAMES}
        if splits:
            return splits.pop() if len(splits) == 1 else None
    return None
