"""Detects content that is not an image from its first bytes, without trusting its name or its content type."""

from __future__ import annotations

import re

ARCHIVES = (b"PK\x03\x04", b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"%PDF")
# Reasons of temporary failures: the next visit requests these addresses again.
TEMPORARY_FAILURE = re.compile(
    r"(page_)?(robots_)?"
    r"(http_5..|http_429|rate_limited|timeout|connection_refused|no_such_host|truncated|.*lost.*|.*failed.*"
    r"|browser_error|never_shown|graphql_errors)"
)
HEAD_BYTES = 512


def fault_of(content: bytes) -> str | None:
    """Return why bytes are rejected as an image without being decoded, or None.

    Reasons: `empty`, `archive`, `error_page` (HTML, from a site that answers 200 with an error message), `svg` (a
    program). Other bytes that are not an image are left to validate.
    """
    begin = content[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
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
