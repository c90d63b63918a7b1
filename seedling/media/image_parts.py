"""Walks the parts of an image file without decoding a pixel: the segments of a JPEG, the chunks of a PNG or a WebP.

The walks are tolerant: a damaged file ends the walk early, and the decoder then says what is wrong with it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

JPEG_SIGNATURE, PNG_SIGNATURE, GIF_SIGNATURES = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a")
TIFF_SIGNATURES = (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")  # the latter two of BigTIFF
SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SOS_MARKER, EOI_MARKER = 0xDA, 0xD9
MARKERS_WITHOUT_LENGTH = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
NEXT_MARKER = re.compile(rb"\xff[^\x00\xff]")  # in front of a segment, fill bytes and stuffed zeros are skipped
NEXT_MARKER_OF_A_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # restart markers belong to a scan's own data


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a file: its kind, where it starts, where its content starts, and where it ends."""

    kind: bytes
    start: int
    content: int
    end: int


def is_webp(encoded: bytes) -> bool:
    """Whether the bytes begin like a WebP file."""
    return encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"


def jpeg_segments(encoded: bytes, *, up_to_first_scan: bool = False) -> Iterator[Part]:
    """The segments behind SOI up to EOI, each scan's entropy-coded data within its SOS segment; the kind is the marker's byte."""
    position = 2
    while found := NEXT_MARKER.search(encoded, position):
        marker, content = encoded[found.end() - 1], found.end() + 2
        if marker in MARKERS_WITHOUT_LENGTH:
            position = found.end()
            continue
        if marker == EOI_MARKER or content > len(encoded) or (up_to_first_scan and marker == SOS_MARKER):
            return
        end = found.end() + max(2, int.from_bytes(encoded[found.end() : content], "big"))
        if marker == SOS_MARKER:
            behind = NEXT_MARKER_OF_A_SCAN.search(encoded, end)
            end = behind.start() if behind else len(encoded)
        yield Part(bytes([marker]), found.start(), content, min(end, len(encoded)))
        position = end


def png_chunks(encoded: bytes) -> Iterator[Part]:
    """The chunks behind the signature, up to IEND."""
    position = len(PNG_SIGNATURE)
    while position + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, position)
        end = position + 12 + length
        yield Part(kind, position, position + 8, min(end, len(encoded)))
        if kind == b"IEND":
            return
        position = end


def webp_chunks(encoded: bytes) -> Iterator[Part]:
    """The chunks of the RIFF file."""
    position = 12
    while position + 8 <= len(encoded):
        kind, length = struct.unpack_from("<4sI", encoded, position)
        end = position + 8 + length + length % 2
        yield Part(kind, position, position + 8, min(end, len(encoded)))
        position = end
