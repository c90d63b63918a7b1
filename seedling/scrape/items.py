"""Items: what each source yields, before any check of their content."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Required, TypedDict

JOINERS = frozenset("\u200c\u200d")
BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # fillers: letters by their Unicode category, but invisible


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a source: encoded bytes or text, or the reason why it has none.

    `load` reads the bytes only when the item is processed, so that a listing of a million files needs little memory.
    """

    origin: str
    load: Callable[[], bytes | str]
    split: str = "pool"
    label: str | None = None
    label_source: str | None = None
    weight: float = 1.0
    confidence: float = 1.0  # of the label
    license: str | None = None
    attribution: str | None = None
    group: str | None = None  # items that the source says belong together: a page, an original
    fields: Mapping[str, str] = field(default_factory=dict)  # that label rules read
    reason: str | None = None
    file: str | None = None  # the item's file, relative to data/; None for an item of a table or of the web


class FoundItem(TypedDict):
    """An item of a page or of an API, before its image is requested: Scrapy passes it from request to answer.

    origin: the item's own address; page: that of the page; license, attribution: None if nothing states them.
    """

    origin: str
    page: str
    fields: dict[str, str]
    license: str | None
    attribution: str | None


class CrawledItem(TypedDict, total=False):
    """An item as the crawl store has it in JSON: as found, and its text or the reason why it is rejected."""

    origin: Required[str]
    page: Required[str]
    fields: dict[str, str]
    license: str | None
    attribution: str | None
    text: str
    reason: str


def as_crawled(found: FoundItem, origin: str | None = None) -> CrawledItem:
    """Return the item without text and reason. origin: its own address, if it differs from the one that was found."""
    return {
        "origin": origin or found["origin"],
        "page": found["page"],
        "fields": found["fields"],
        "license": found["license"],
        "attribution": found["attribution"],
    }


def visible(text: str) -> str:
    """Return the text without invisible characters.

    These are controls, zero-width blanks, soft hyphens, and marks of byte order and direction. Joiners stay where a
    script or an emoji needs them, between characters beyond U+02FF.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for index, character in enumerate(text):
        if character in JOINERS:
            around = text[max(0, index - 1) : index] + text[index + 1 : index + 2]
            if len(around) == 2 and min(around) > "\u02ff":
                kept.append(character)
        elif character.isspace() or not (
            unicodedata.category(character) in {"Cc", "Cf"} and not "\U000e0020" <= character <= "\U000e007f"
        ):
            kept.append(" " if character in BLANKS else character)
    return "".join(kept)


@lru_cache(maxsize=1024)
def tidy_label(label: str | None) -> str | None:
    """Normalize a label: NFC, no invisible characters, full-width letters as ASCII, blanks folded; None if empty."""
    if not label:
        return None
    narrow = "".join(
        unicodedata.normalize("NFKC", character) if "\uff00" <= character <= "\uffef" else character
        for character in label
    )
    return " ".join(visible(unicodedata.normalize("NFC", narrow)).split()) or None


def storable(text: str) -> str:
    """Return the text with lone surrogates, which no file can store, as backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def has_lone_surrogate(text: str) -> bool:
    """Whether the text contains half of a surrogate pair, as a text that was cut within an emoji."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
