"""Escapes untrusted names (classes, licenses, origins) for Markdown, so that they are only text."""

from __future__ import annotations

import re

from seedling.terminal.printable import printable

SPECIAL = re.compile(r"[\\`*\[\]<>&|~!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.|(?<=mailto):|@")
SPECIAL_AT_START = re.compile(r"[#+=:-]|\d+(?=[.)])")  # headings, lists, rules


def markdown_text(text: str) -> str:
    """The text on one line, with the special characters of Markdown and HTML as character references.

    It cannot become a link, image, tag, table or heading.
    """
    line = " ".join(printable(str(text), keep="\n\t").split())
    escaped = SPECIAL.sub(lambda match: f"&#{ord(match[0])};", line)
    start = SPECIAL_AT_START.match(escaped)
    if start is None or escaped.startswith("&#"):
        return escaped
    if start[0].isdigit():
        return f"{start[0]}&#{ord(escaped[start.end()])};{escaped[start.end() + 1 :]}"
    return f"&#{ord(start[0])};{escaped[1:]}"
