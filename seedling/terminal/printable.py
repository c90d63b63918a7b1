"""Text of strangers (file names, ids, labels) as a terminal shows it: without escape sequences, and without marks that reorder a line."""

from __future__ import annotations

import logging
import unicodedata

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, formats, lone surrogates, line and paragraph separators
KEPT = frozenset("\u200c\u200d")  # joiners, which scripts and emoji need


def printable(text: str, keep: str = "") -> str:
    r"""The text with every character that is not seen written out, as in \x1b. keep: characters that stay as they are."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or character in KEPT or unicodedata.category(character) not in UNSEEN
        else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def make_printable(record: logging.LogRecord) -> bool:
    """A filter of loggers whose messages name what strangers named; lets every record pass."""
    message = record.getMessage()
    printable_message = printable(message, keep="\n\t")
    if printable_message != message:
        record.msg, record.args = printable_message, None
    return True
