"""What every source gives: items, as they come, before anything is judged."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

JOINERS = frozenset("\u200c\u200d")
BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # fillers: letters by their category, and nothing to be seen


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
    license: str | None = None
    attribution: str | None = None
    group: str | None = None  # what the source says belongs together: a page, an original
    fields: Mapping[str, str] = field(default_factory=dict)  # that label rules read
    reason: str | None = None
    file: str | None = None  # that it is read from, relative to data/; None where it lies in a table or on the web


def visible(text: str) -> str:
    """The text without characters that nobody sees: controls, zero-width blanks, soft hyphens, marks of byte order and direction.

    Joiners stay where a script or an emoji needs them, between characters beyond U+02FF.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for place, character in enumerate(text):
        if character in JOINERS:
            around = text[max(0, place - 1) : place] + text[place + 1 : place + 2]
            if len(around) == 2 and min(around) > "\u02ff":
                kept.append(character)
        elif character.isspace() or not (
            unicodedata.category(character) in {"Cc", "Cf"} and not "\U000e0020" <= character <= "\U000e007f"
        ):
            kept.append(" " if character in BLANKS else character)
    return "".join(kept)


@lru_cache(maxsize=1024)
def tidy_label(label: str | None) -> str | None:
    """NFC, without invisible characters, full-width letters as the usual ones, blanks folded; None where nothing is left."""
    if not label:
        return None
    narrow = "".join(
        unicodedata.normalize("NFKC", character) if "\uff00" <= character <= "\uffef" else character
        for character in label
    )
    return " ".join(visible(unicodedata.normalize("NFC", narrow)).split()) or None


def storable(text: str) -> str:
    """The text with lone surrogates, which no file can hold, written out by their numbers."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def has_lone_surrogate(text: str) -> bool:
    """Whether the text has half of a character, as a text has that was cut within an emoji."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
