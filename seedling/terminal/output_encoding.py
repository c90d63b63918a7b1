"""The encodings of standard output and standard error: messages use any encoding, data uses UTF-8."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO


def replace_unwritable(*streams: TextIO) -> None:
    """Make the streams replace characters that their encoding (such as ASCII or cp1252) lacks, instead of failing."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and codecs.lookup(stream.encoding).name != "utf-8":
            reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def write_utf8(stream: TextIO) -> None:
    """Make the stream write UTF-8 in any terminal; for data, in which no character may be replaced."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
