"""Read the parts of an image file without decoding a pixel: the segments of a JPEG, the chunks of a PNG or a WebP.

Damage in a file ends the iteration early. The decoder reports the error.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

JPEG_SIGNATURE, PNG_SIGNATURE, GIF_SIGNATURES = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a")
TIFF_SIGNATURES = (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")  # the last two are BigTIFF
SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SOS_MARKER, EOI_MARKER = 0xDA, 0xD9
MARKERS_WITHOUT_LENGTH = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
NEXT_MARKER = re.compile(rb"\xff[^\x00\xff]")  # skips fill bytes and stuffed zeros before a segment
NEXT_MARKER_AFTER_SCAN = re.compile(
    rb"\xff[^\x00\xd0-\xd7\xff]"
)  # skips restart markers, which belong to the data of a scan


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a file: its kind, and the positions of its start, of its content and of its end."""

    kind: bytes
    start: int
    content: int
    end: int


def is_webp(encoded: bytes) -> bool:
    """Whether the bytes start like a WebP file."""
    return encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"


def jpeg_segments(encoded: bytes, *, up_to_first_scan: bool = False) -> Iterator[Part]:
    """Yield the segments between SOI and EOI; a segment's kind is the byte of its marker.

    The entropy-coded data of a scan belongs to its SOS segment. up_to_first_scan: whether to stop before the first
    scan.
    """
    position = 2
    while match := NEXT_MARKER.search(encoded, position):
        marker, content = encoded[match.end() - 1], match.end() + 2
        if marker in MARKERS_WITHOUT_LENGTH:
            position = match.end()
            continue
        if marker == EOI_MARKER or content > len(encoded) or (up_to_first_scan and marker == SOS_MARKER):
            return
        end = match.end() + max(2, int.from_bytes(encoded[match.end() : content], "big"))
        if marker == SOS_MARKER:
            next_marker = NEXT_MARKER_AFTER_SCAN.search(encoded, end)
            end = next_marker.start() if next_marker else len(encoded)
        yield Part(bytes([marker]), match.start(), content, min(end, len(encoded)))
        position = end


def png_chunks(encoded: bytes) -> Iterator[Part]:
    """Yield the chunks after the signature, up to IEND."""
    position = len(PNG_SIGNATURE)
    while position + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, position)
        end = position + 12 + length
        yield Part(kind, position, position + 8, min(end, len(encoded)))
        if kind == b"IEND":
            return
        position = end


def webp_chunks(encoded: bytes) -> Iterator[Part]:
    """Yield the chunks of the RIFF file."""
    position = 12
    while position + 8 <= len(encoded):
        kind, length = struct.unpack_from("<4sI", encoded, position)
        end = position + 8 + length + length % 2
        yield Part(kind, position, position + 8, min(end, len(encoded)))
        position = end
