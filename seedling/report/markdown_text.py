"""Names of strangers (classes, licenses, origins) as Markdown shows them: text, and nothing that acts."""

from __future__ import annotations

import re

from seedling.terminal.printable import printable

SPECIAL = re.compile(r"[\\`*\[\]<>&|~!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.|(?<=mailto):|@")
AT_THE_START = re.compile(r"[#+=:-]|\d+(?=[.)])")  # headings, lists, rules


def markdown_text(text: str) -> str:
    """The text with what Markdown or HTML would act on as character references: no link, image, tag, table or heading; on one line."""
    line = " ".join(printable(str(text), keep="\n\t").split())
    escaped = SPECIAL.sub(lambda match: f"&#{ord(match[0])};", line)
    start = AT_THE_START.match(escaped)
    if start is None or escaped.startswith("&#"):
        return escaped
    if start[0].isdigit():
        return f"{start[0]}&#{ord(escaped[start.end()])};{escaped[start.end() + 1 :]}"
    return f"&#{ord(start[0])};{escaped[1:]}"
