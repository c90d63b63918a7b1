"""The encodings of standard output and standard error: messages are written in any, data in UTF-8."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO


def replace_unwritable(*streams: TextIO) -> None:
    """Lets the streams write a replacement for characters that their encoding lacks, such as ASCII or cp1252, where they would raise an error."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and codecs.lookup(stream.encoding).name != "utf-8":
            reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def write_utf8(stream: TextIO) -> None:
    """Makes the stream write UTF-8, whatever the terminal's encoding: for data, in which no character may be replaced."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
