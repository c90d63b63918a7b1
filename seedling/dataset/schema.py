"""The columns of a row, its id, and its recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from seedling.records.manifest import Modality

SPLITS = ("train", "validation", "test", "pool", "out_of_scope")  # that users can set; mixin is the role of a source

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS: list[pa.Field[Any]] = [
    pa.field("id", pa.string()),
    pa.field("split", pa.string()),
    pa.field("fold", pa.int8()),
    pa.field("label", pa.string()),
    pa.field("label_probs", pa.list_(pa.float32())),
    pa.field("label_source", pa.string()),
    pa.field("weight", pa.float32()),
    pa.field("confidence", pa.float32()),
    pa.field("parent_ids", pa.list_(pa.string())),
    pa.field("recipe", pa.string()),
    pa.field("origin", pa.string()),
    pa.field("license", pa.string()),
    pa.field("attribution", pa.string()),
    pa.field("group", pa.string()),
]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the record.

    payload: the encoded image or the NFC text; extra: the stage's own columns.
    """

    id: str
    split: str = "pool"
    fold: int | None = None
    label: str | None = None
    label_probs: Sequence[float] | None = None
    label_source: str | None = None
    weight: float = 1.0
    confidence: float = 1.0
    parent_ids: Sequence[str] = ()
    recipe: str | None = None
    origin: str | None = None
    license: str | None = None
    attribution: str | None = None
    group: str | None = None
    payload: bytes | str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


REVIEW_SOURCE = "review"  # of labels that reviewers decided
HUMAN_SOURCES = frozenset({"human", REVIEW_SOURCE})


def is_human_label(label_source: str | None) -> bool:
    """Whether a person gave the label, in the data or in a review. Models are evaluated on such labels alone."""
    return label_source in HUMAN_SOURCES


def source_of(origin: str | None) -> str:
    """The host of a URL, the table of a table row, or the first folder of a file path."""
    location, separator, _ = (origin or "").partition("#")
    if "://" in location:
        try:
            return urlsplit(location).hostname or ""
        except ValueError:  # an invalid URL
            return ""
    return location if separator else location.partition("/")[0]


def identify(content: bytes, parents: Sequence[str] = (), recipe: str | None = None) -> str:
    """A row's id, 32 hexadecimal digits: the hash of its content (decoded pixels or NFC text), parents and recipe."""
    return identities(content, parents, recipe)[1]


def identities(content: bytes, parents: Sequence[str] = (), recipe: str | None = None) -> tuple[str, str]:
    """The hash of the content alone, which copies share whatever their parents and recipe, and the id of `identify`."""
    digest = hashlib.blake2b(content, digest_size=16)
    content_digest = digest.copy()
    content_digest.update(b"\x1f")
    for part in (*parents, recipe or ""):
        digest.update(b"\x1f" + part.encode())
    return content_digest.hexdigest(), digest.hexdigest()


def recipe_json(operation: str, **parameters: Any) -> str:
    """The canonical JSON of the recipe column, which is enough to create the row again from its parents."""
    return json.dumps({"operation": operation, **parameters}, sort_keys=True, separators=(",", ":"))


def schema(
    modality: Modality, *, images: bool = True, extra: Sequence[pa.Field[Any]] = (), reason: bool = False
) -> pa.Schema:
    """The Parquet schema. Its metadata contains the Hugging Face features, so that `datasets` decodes the images."""
    fields = list(COLUMNS)
    if modality == "text":
        fields.append(pa.field("text", pa.string()))
    elif images:
        fields.append(pa.field("image", IMAGE_TYPE))
    fields += [*extra, *([pa.field("reason", pa.string())] if reason else [])]
    features = {column.name: _feature(column.type) for column in fields}
    metadata = json.dumps({"info": {"features": features}}, sort_keys=True)
    return pa.schema(fields, metadata={b"huggingface": metadata.encode()})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE_TYPE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    return {"_type": "Value", "dtype": {"float": "float32", "double": "float64"}.get(str(kind), str(kind))}
