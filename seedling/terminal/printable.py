"""Escapes untrusted text (file names, ids, labels) for the terminal: control sequences and bidirectional marks."""

from __future__ import annotations

import logging
import unicodedata

# Unicode categories: controls, formats, lone surrogates, line and paragraph separators.
INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
JOINERS = frozenset("\u200c\u200d")  # not escaped, since scripts and emoji need them


def printable(text: str, keep: str = "") -> str:
    r"""Return the text with each invisible character escaped, as in \x1b. keep: characters that are not escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or character in JOINERS or unicodedata.category(character) not in INVISIBLE_CATEGORIES
        else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def make_printable(record: logging.LogRecord) -> bool:
    """Escape invisible characters in a log record; a logging filter that never drops a record."""
    message = record.getMessage()
    printable_message = printable(message, keep="\n\t")
    if printable_message != message:
        record.msg, record.args = printable_message, None
    return True
