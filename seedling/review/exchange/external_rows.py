"""Rows of another tool's file: what it says about a row, and where the row's id or content is."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from seedling.files.data_files import NotRead, read_bytes
from seedling.review.records import AnswerKind

ROW_ID = re.compile(r"(?<![0-9A-Fa-f])[0-9a-f]{32}(?![0-9A-Fa-f])")
DATA_URI = re.compile(r"data:[\w./+-]*;base64,", re.IGNORECASE)
MAX_IMAGE_BYTES = 512 * 2**20
MAX_PATH_CHARACTERS = 4_096
ANSWER_WORDS: dict[str, AnswerKind] = {  # further words that tools write
    "label": "label",
    "accept": "label",
    "reject": "reject",
    "none_of_these": "none_of_these",
    "none of these": "none_of_these",
    "bad": "bad",
    "bad data": "bad",
    "duplicate": "duplicate",
    "keep": "keep",
    "unsure": "unsure",
    "skip": "skip",
    "ignore": "skip",
    "flag": "flag",
}


@dataclass(frozen=True)
class ExternalAnswer:
    """What a person answered about a row in another tool.

    reviewer: the name in the file, None if it has none. annotation_id: of the tool, with the time of its last change,
    so that a later change is another answer. error_unless_class: raised if `label` is not a class, because it may be a
    misspelled answer. answered_at: milliseconds since 1970, 0 if unknown; milliseconds: the time
    that the person took.
    """

    answer: AnswerKind
    label: str | None = None
    asked_label: str | None = None
    reviewer: str | None = None
    annotation_id: str = ""
    answered_at: int = 0
    milliseconds: int = 0
    note: str | None = None
    error_unless_class: str | None = None


@dataclass(frozen=True)
class ExternalRow:
    """A row of another tool's file.

    position: where a person finds it, as `line 12`. row_ids: where the file may name Seedling's id, the likeliest
    first. contents: reads what may be the row's image file or text, for rows whose id the tool lost. predictions: how
    often the file has a label that a model gave, which is not an answer. unusable: reason → number of annotations that
    cannot be answers, such as `several_labels`. suggestion: the label of a model that the person saw.
    """

    position: str
    row_ids: tuple[str, ...] = ()
    contents: Callable[[], Iterable[bytes | str]] = tuple
    answers: tuple[ExternalAnswer, ...] = ()
    predictions: int = 0
    unusable: Mapping[str, int] = field(default_factory=dict)
    suggestion: str | None = None


def row_ids_in(*names: Any) -> tuple[str, ...]:
    """The row ids in these values: an id itself, or a file name that contains it."""
    row_ids = []
    for name in names:
        if isinstance(name, str) and len(name) <= MAX_PATH_CHARACTERS:
            row_ids += ROW_ID.findall(name.replace("\\", "/").rpartition("/")[2])
    return tuple(dict.fromkeys(row_ids))


def image_files(value: str, folder: Path) -> Iterator[bytes]:
    """Yield the image that a value names: a data URI, or a file inside the folder. Addresses are never requested."""
    if match := DATA_URI.match(value):
        try:
            yield base64.b64decode(value[match.end() :], validate=True)
        except (binascii.Error, ValueError):
            return
        return
    if not value or len(value) > MAX_PATH_CHARACTERS:
        return
    root = folder.resolve()
    for path in _candidate_paths(value, root):
        try:
            if path.is_file():
                yield read_bytes(path, root, MAX_IMAGE_BYTES)
                return
        except (NotRead, OSError, ValueError):
            continue


def _candidate_paths(value: str, root: Path) -> Iterator[Path]:
    """Yield paths below the root: the value as a path, and its ends, for a path of another machine or a server."""
    try:
        address = urlsplit(value)
    except ValueError:
        return
    names = [*parse_qs(address.query).get("d", []), unquote(address.path), value]
    for name in names:
        parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in {"/", "..", "."}]
        for start in range(len(parts)):
            yield root.joinpath(*parts[start:])


def milliseconds_of(value: Any) -> int:
    """Milliseconds since 1970 of an ISO 8601 time, in UTC unless it has a zone; 0 if it is none."""
    if not isinstance(value, str):
        return 0
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return 0
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0, round(zoned.timestamp() * 1_000))
