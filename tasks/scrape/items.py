"""What every source gives: items, as they come, before anything is judged."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a source held: encoded bytes or text, or the reason why there are none.

    `load` reads the bytes when the item's turn comes, so that a listing of a million files costs no memory.
    """

    origin: str
    load: Callable[[], bytes | str]
    split: str = "pool"
    label: str | None = None
    label_source: str | None = None
    weight: float = 1.0
    confidence: float = 1.0  # of the label
    licence: str | None = None
    attribution: str | None = None
    group: str | None = None  # what the source says belongs together: a page, an original
    fields: Mapping[str, str] = field(default_factory=dict)  # that label rules read
    reason: str | None = None
    file: str | None = None  # that it is read from, relative to data/; None where it lies in a table or on the web


def tidy_label(label: str | None) -> str | None:
    """NFC, blanks folded; None where nothing is left."""
    return " ".join(unicodedata.normalize("NFC", label).split()) or None if label else None
