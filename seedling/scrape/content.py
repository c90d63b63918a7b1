"""What a stranger's bytes are, by what they begin with, whatever their name and type say."""

from __future__ import annotations

import re

ARCHIVES = (b"PK\x03\x04", b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"%PDF")
# What fails so may come next time.
PASSING = re.compile(
    r"(page_)?(robots_)?(http_5..|http_429|rate_limited|timeout|connection_refused|no_such_host|truncated|.*lost.*|.*failed.*|browser_error|never_shown|graphql_errors)"
)
LOOKED_AT = 512  # bytes


def fault_of(content: bytes) -> str | None:
    """The reason why bytes that should be an image are refused unopened, or None: `empty`, `archive`, `error_page` (HTML, where a site says
    200 and shows words), `svg`, which is a program. Other bytes that give no image are validate's business.
    """
    begin = content[:LOOKED_AT].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not begin:
        return "empty"
    if content.startswith(ARCHIVES):
        return "archive"
    if begin.startswith(b"<svg") or (
        begin.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in content[:4096].lower()
    ):
        return "svg"
    if begin.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"<!--", b"{")):
        return "error_page"
    return None
