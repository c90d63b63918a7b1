"""Texts: normalization, and what makes two of them the same or nearly so."""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SPACE = re.compile(r"\s+")
_OTHER = re.compile(r"[^\w\s]|_")
_DIGIT = re.compile(r"\d")
_UNIT = re.compile("[$£¥€%‰°]")
_OTHER_THAN_NUMBERS = re.compile(r"(?!(?<=\d)[.,](?=\d))(?!(?<!\w)[-+−](?=[.\d]))(?![$£¥€%‰°])(?:[^\w\s]|_)")


def clean(text: str) -> str:
    """NFC, line ends as newlines, no control characters, no byte order mark, no blanks at the ends: the text that a row holds."""
    text = text.lstrip("\ufeff")  # a byte order mark, wherever the text came from
    unified = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub("", unified).strip()


def content(text: str) -> bytes:
    """What the row's id is the hash of."""
    return clean(text).encode()


def normalized(text: str) -> str:
    """What near-duplicates share: NFKC, case, blanks, and punctuation that is no number's, folded away."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    other = _OTHER
    if _DIGIT.search(folded):  # -5 is not 5, nor 1.5 15, nor $7 €7
        folded, other = _UNIT.sub(r" \g<0> ", folded), _OTHER_THAN_NUMBERS
    words = _SPACE.sub(" ", other.sub(" ", folded)).strip()
    return words or _SPACE.sub(" ", folded).strip()  # a text of punctuation alone is not a duplicate of every other one
