"""Which column of a table is what: names are compared without case, blanks and invisible characters around them."""

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

NAME_COLUMNS = (
    "Name the columns in params.yaml, scrape.sources."  # remedies, for which commands without a params.yaml have others
)
# Names that `seedling init` takes where a table has none of the standard name, and just one of these.
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
# Beside the columns that a reader needs, what `seedling export` writes of each row; a table with all of them is such an export.
EXPORTED = ("id", "label_source", "weight", "confidence", "origin", "attribution", "stage")

PACKED_FILES = "packed/part-*.parquet"  # that `seedling init --pack` writes
PACKED_COLUMNS = ("label", "split", "id")  # of them, beside the content


@dataclass(frozen=True, slots=True)
class Columns:
    """A table's own names of the columns that are read; None where there is none."""

    content: str
    label: str | None = None
    split: str | None = None
    id: str | None = None
    group: str | None = None
    exported: bool = False
    class_names: bool = False  # whether the labels are names of classes, to be taken as they are

    def used(self) -> dict[str, str]:
        """Role → the column's name, of those that are there."""
        roles = {name: getattr(self, name) for name in ("content", "label", "split", "id", "group")}
        return {role: name for role, name in roles.items() if name is not None}


@lru_cache(maxsize=1024)
def folded(name: str) -> str:
    """A column's name as it is compared."""
    plain = visible(unicodedata.normalize("NFKC", str(name))).strip().strip("\"'").casefold()
    return re.sub(r"[\s_-]+", "_", plain.strip())


def content_of(source: TableSource, modality: Modality) -> str:
    """What the column of texts or images is called, as it is set."""
    return source.text if modality == "text" else source.image


def find(columns: Sequence[str], wanted: str, *, exactly: bool = False) -> list[str]:
    """The columns that the name may mean: the one that is written just so, where `exactly`, else all that read alike."""
    if exactly and wanted in columns:
        return [wanted]
    name = folded(wanted)
    return list(dict.fromkeys(column for column in columns if name and folded(column) == name))


def rank(columns: Sequence[str], source: TableSource, modality: Modality) -> int:
    """How well the columns suit the source: 10 for the content, 3 where a synonym of it is there, 1 for each other one."""
    wanted = content_of(source, modality)
    others = [source.label, source.split, source.id, *([source.group] if source.group else [])]
    named = 10 if find(columns, wanted) else 3 if _synonyms(columns, "text" if modality == "text" else "image") else 0
    return named + sum(bool(find(columns, other)) for other in others)


def resolve(columns: Sequence[str], source: TableSource, modality: Modality, where: str) -> Columns:
    """The table's own columns. Raises InputError where one is missing that must be there, or where a name means two. where: the table."""
    if not any(columns):
        raise MissingColumn(f"{where} is empty: it needs a first line with the columns' names, and rows.")
    if any("\0" in column for column in columns):
        raise InputError(
            f"{where}: its first line holds NUL characters, so its encoding may be utf-16: set `encoding: utf-16-le` (or utf-16-be) for this "
            "source in params.yaml, or save it as UTF-8."
        )
    check_duplicates(columns, where)
    found: dict[str, str | None] = {}
    for role, wanted, required in _wanted(source, modality):
        set_by_user = role in source.model_fields_set
        fits = find(columns, wanted, exactly=set_by_user)
        if len(fits) > 1:
            raise InputError(
                f"{where} has the columns {' and '.join(map(repr, fits))}, and both read '{wanted}': rename one of them, or "
                f"say which one it is. {NAME_COLUMNS}"
            )
        if not fits and required:
            raise MissingColumn(_missing(columns, wanted, where))
        found["content" if role in {"text", "image"} else role] = fits[0] if fits else None
    readable = {folded(column) for column in columns}
    exported = readable.issuperset(EXPORTED)
    is_packed = PurePath(where).match(PACKED_FILES) and tuple(columns[1:]) == PACKED_COLUMNS
    class_names = exported or is_packed
    return Columns(**found, exported=exported, class_names=class_names)  # type: ignore[arg-type]


def _wanted(source: TableSource, modality: Modality) -> list[tuple[str, str, bool]]:
    """(role, name, whether it must be there); what a person named must be."""
    roles = [("text" if modality == "text" else "image", content_of(source, modality), True)]
    roles += [(role, getattr(source, role), role in source.model_fields_set) for role in ("label", "split", "id")]
    return [*roles, ("group", source.group, True)] if source.group else roles


def check_duplicates(columns: Sequence[str], where: str) -> None:
    """Raises InputError where two columns have one name: which of them is meant is unknown."""
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        places = [str(number) for number, name in enumerate(columns, start=1) if name == twice[0]]
        raise InputError(
            f"{where} has {len(places)} columns named '{twice[0]}' (columns {', '.join(places)}): rename or remove all but one."
        )


def _missing(columns: Sequence[str], wanted: str, where: str) -> str:
    near = difflib.get_close_matches(wanted, columns, n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else "."
    shown = ", ".join(column if len(column) <= 40 else f"{column[:39]}…" for column in columns[:20])
    headless = "" if near else " If its first line is a row, add a line with the columns' names above it."
    return f"{where} has no column '{wanted}'{hint} It has {shown}.{headless} {NAME_COLUMNS}"


def _synonyms(columns: Sequence[str], role: str) -> list[str]:
    return [column for column in columns if folded(column) in SYNONYMS[role]]


def suggested(columns: Sequence[str], source: TableSource, modality: Modality, where: str) -> dict[str, str]:
    """Role → column, for roles whose standard name the table lacks, by the usual other names.

    Raises InputError where the labels may stand in more than one column.
    """
    suggestions: dict[str, str] = {}
    for role, wanted, _ in _wanted(source, modality):
        if role not in SYNONYMS or role in source.model_fields_set or find(columns, wanted):
            continue
        fits = [column for column in _synonyms(columns, role) if column not in suggestions.values()]
        if role == "image" and len(fits) > 1:
            fits = [column for column in fits if folded(column) in {"file_name", "filename"}] or fits
        if len(fits) == 1:
            suggestions[role] = fits[0]
        elif role == "label" and fits:
            raise InputError(
                f"{where} has no column 'label', and {' and '.join(map(repr, fits))} may hold the labels. {NAME_COLUMNS}"
            )
    return suggestions


def split_by_name(path: str) -> str | None:
    """The split that a file's name, or else its folder's, stands for, as in test.csv, data/train-00000-of-00002.parquet and dev/1.jsonl; None
    where it names none, or two.
    """
    for part in reversed(path.replace("\\", "/").split("/")):
        words = re.sub(r"[^a-z]+", "_", folded(part.rpartition(".")[0] or part)).strip("_")
        if words in SPLIT_NAMES:
            return SPLIT_NAMES[words]
        named = {SPLIT_NAMES[word] for word in words.split("_") if word in SPLIT_NAMES}
        if named:
            return named.pop() if len(named) == 1 else None
    return None
