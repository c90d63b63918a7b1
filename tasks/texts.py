"""Texts: normalisation, and what makes two of them the same or nearly so."""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SPACE = re.compile(r"\s+")
_OTHER = re.compile(r"[^\w\s]|_")


def clean(text: str) -> str:
    """NFC, line ends as newlines, no control characters, no blanks at the ends: the text that a row holds."""
    unified = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub("", unified).strip()


def content(text: str) -> bytes:
    """What the row's id is the hash of."""
    return clean(text).encode()


def normalised(text: str) -> str:
    """What near-duplicates share: NFKC, case, punctuation and blanks folded away."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _SPACE.sub(" ", _OTHER.sub(" ", folded)).strip()
    return words or _SPACE.sub(" ", folded).strip()  # a text of punctuation alone is not a duplicate of every other one
