"""Normalize texts, for storage and for the comparison of near-duplicates."""

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
    """The text as a row stores it: NFC, newlines as line ends, without control characters and surrounding blanks."""
    text = text.lstrip("\ufeff")  # byte order mark
    unified = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub("", unified).strip()


def content(text: str) -> bytes:
    """The bytes that a row's id is computed from."""
    return clean(text).encode()


def normalized(text: str) -> str:
    """The text for the comparison of near-duplicates: NFKC, without case, and with punctuation and blanks as one blank.

    Signs, decimal points and units of numbers are kept.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    other = _OTHER
    if _DIGIT.search(folded):  # -5 differs from 5, 1.5 from 15, and $7 from €7
        folded, other = _UNIT.sub(r" \g<0> ", folded), _OTHER_THAN_NUMBERS
    words = _SPACE.sub(" ", other.sub(" ", folded)).strip()
    return words or _SPACE.sub(" ", folded).strip()  # texts of punctuation only are not all equal
