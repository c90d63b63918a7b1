"""Read and remove the metadata of image files, without decoding or re-encoding a pixel.

Decoders reject images with damaged metadata. Pixels are therefore decoded from the file that `without_metadata`
returns. The orientation, which is the only metadata that changes pixels, is read here, and damaged metadata is ignored.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from seedling.media.gif_parts import gif_without_metadata
from seedling.media.image_parts import (
    GIF_SIGNATURES,
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    TIFF_SIGNATURES,
    Part,
    is_webp,
    jpeg_segments,
    png_chunks,
    webp_chunks,
)
from seedling.media.tiff_parts import tiff_without_metadata

ORIENTATION_TAG, GPS_TAG = 0x0112, 0x8825
GPS_PLACE_TAGS = frozenset({2, 4, 20, 22, 28})  # coordinates of the camera and of the destination, and the area's name
UPRIGHT = 1
MAX_EXIF_ENTRIES = 1_000
TEXT_KEYWORDS = (b"Raw profile type ", b"XML:com.adobe.xmp\0")
MAX_TEXTS = 20  # text chunks of a PNG that are decompressed
MAX_TEXT_BYTES = 2**20  # read from a compressed text chunk; real metadata is smaller
EXIF_HEADER, XMP_HEADER = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
FORMAT_OF_TYPE = {1: "B", 3: "H", 4: "I", 13: "I"}  # 13: offsets of directories
EXIF_HEADERS = re.compile(rb"(?:Exif\0\0)+")
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
XMP_LOCATION = re.compile(rb"exif:GPS(?:Latitude|Longitude)|Iptc4xmpCore:Location|photoshop:City")
JPEG_KEPT = frozenset({0xE0, 0xEE})  # JFIF and Adobe, which define the color space
JPEG_APPLICATION = frozenset(range(0xE0, 0xF0))
JPEG_COMMENT, JPEG_END = 0xFE, b"\xff\xd9"
PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
PNG_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
PNG_COLOR = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP", b"iCCP", b"sBIT", b"bKGD", b"pHYs"})
WEBP_METADATA = frozenset({b"EXIF", b"XMP "})
WEBP_EXIF_FLAG, WEBP_XMP_FLAG, WEBP_ICC_FLAG = 0x08, 0x04, 0x20
IPTC_LOCATION = re.compile(rb"\x1c\x02[\x5a\x5c\x5f\x64\x65]")  # city, sublocation, province, country code and name


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata blocks of a file, as they are stored: the TIFF block of EXIF, XMP, and IPTC; empty if absent."""

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8, from EXIF or else from XMP; 1, which is upright, if it is not valid."""
        tags = exif_tags(self.exif)
        if ORIENTATION_TAG in tags:
            value = tags[ORIENTATION_TAG]
            return value if value is not None and 1 <= value <= 8 else UPRIGHT
        match = XMP_ORIENTATION.search(self.xmp)
        return int(match[1]) if match and 1 <= int(match[1]) <= 8 else UPRIGHT

    @property
    def has_location(self) -> bool:
        """Whether the metadata seems to contain a location: GPS coordinates in EXIF, or a place in XMP or IPTC."""
        gps = exif_tags(self.exif).get(GPS_TAG)
        return (
            (gps is not None and not GPS_PLACE_TAGS.isdisjoint(exif_tags(self.exif, gps)))
            or XMP_LOCATION.search(self.xmp) is not None
            or IPTC_LOCATION.search(self.iptc) is not None
        )


def read_metadata(encoded: bytes) -> Metadata:
    """Read the metadata of a JPEG, PNG, WebP or TIFF file. Damaged parts are left out."""
    if encoded.startswith(JPEG_SIGNATURE):
        return _read_jpeg(encoded)
    if encoded.startswith(PNG_SIGNATURE):
        return _read_png(encoded)
    if is_webp(encoded):
        chunks = {part.kind: encoded[part.content : part.end] for part in webp_chunks(encoded)}
        return Metadata(_without_exif_header(chunks.get(b"EXIF", b"")), chunks.get(b"XMP ", b""))
    if encoded.startswith(TIFF_SIGNATURES):
        return Metadata(encoded)
    return Metadata()


def exif_tags(exif: bytes, offset: int | None = None) -> Mapping[int, int | None]:
    """The tags of a directory of a TIFF block, with the value if it is a single integer, else None.

    offset: of the directory; None: the first one.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return {}
    if offset is None:
        (offset,) = struct.unpack_from(f"{order}I", exif, 4)
    if offset + 2 > len(exif):
        return {}
    (count,) = struct.unpack_from(f"{order}H", exif, offset)
    tags: dict[int, int | None] = {}
    for number in range(min(count, MAX_EXIF_ENTRIES)):
        entry = offset + 2 + 12 * number
        if entry + 12 > len(exif):
            break
        tag, kind, values = struct.unpack_from(f"{order}HHI", exif, entry)
        is_integer = values == 1 and kind in FORMAT_OF_TYPE
        tags[tag] = struct.unpack_from(f"{order}{FORMAT_OF_TYPE[kind]}", exif, entry + 8)[0] if is_integer else None
    return tags


def without_metadata(encoded: bytes, *, keep_color: bool = False) -> bytes:
    """Remove EXIF, XMP, IPTC, comments and times from the file. The pixels stay the same.

    Returns the same bytes if there is no metadata. Only the first image of a TIFF is kept.

    keep_color: whether to keep color profiles and all frames of an animation, as for a file that is exported; data
    after the end of the image, such as the video or the second image of a phone, is removed then. The decoder needs
    neither.

    Raises NotWalkable for a TIFF whose directory cannot be read.
    """
    if encoded.startswith(JPEG_SIGNATURE):
        return _jpeg_without(encoded, keep_color=keep_color)
    if encoded.startswith(PNG_SIGNATURE):
        kept = PNG_KEPT | PNG_ANIMATION | PNG_COLOR if keep_color else PNG_KEPT
        return _keep_parts(encoded, encoded[: len(PNG_SIGNATURE)], list(png_chunks(encoded)), kept)
    if is_webp(encoded):
        return _webp_without(encoded, keep_color=keep_color)
    if encoded.startswith(GIF_SIGNATURES):
        return gif_without_metadata(encoded, first_frame_alone=not keep_color)
    if encoded.startswith(TIFF_SIGNATURES):
        return tiff_without_metadata(encoded, keep_color=keep_color)
    return encoded


def _keep_parts(encoded: bytes, head: bytes, parts: list[Part], kept: frozenset[bytes]) -> bytes:
    if all(part.kind in kept for part in parts) and parts and parts[-1].end == len(encoded):
        return encoded
    return head + b"".join(encoded[part.start : part.end] for part in parts if part.kind in kept)


def _without_exif_header(exif: bytes) -> bytes:
    """The TIFF block of EXIF without its header, which some programs write twice."""
    headers = EXIF_HEADERS.match(exif)
    return exif[headers.end() :] if headers else exif


def _read_jpeg(encoded: bytes) -> Metadata:
    exif, xmp, iptc = list[bytes](), list[bytes](), list[bytes]()
    for segment in jpeg_segments(encoded, up_to_first_scan=True):
        if segment.kind == b"\xe1" and encoded.startswith(EXIF_HEADER, segment.content):
            exif.append(_without_exif_header(encoded[segment.content : segment.end]))
        elif segment.kind == b"\xe1" and encoded.startswith(XMP_HEADER, segment.content):
            xmp.append(encoded[segment.content + len(XMP_HEADER) : segment.end])
        elif segment.kind == b"\xed":
            iptc.append(encoded[segment.content : segment.end])
    return Metadata(b"".join(exif), b"".join(xmp), b"".join(iptc))


def _read_png(encoded: bytes) -> Metadata:
    exif, xmp, iptc, texts = b"", b"", b"", 0
    for chunk in png_chunks(encoded):
        if chunk.kind == b"eXIf":
            exif = _without_exif_header(encoded[chunk.content : chunk.end - 4])
        elif chunk.kind in {b"tEXt", b"zTXt", b"iTXt"} and encoded.startswith(TEXT_KEYWORDS, chunk.content):
            texts += 1
            for keyword, text in _read_text(encoded[chunk.content : chunk.end - 4], chunk.kind):
                if keyword in {b"Raw profile type exif", b"Raw profile type APP1"}:
                    exif = exif or _without_exif_header(_from_hex(text))
                elif keyword == b"Raw profile type iptc":
                    iptc = _from_hex(text)
                elif keyword == b"XML:com.adobe.xmp":
                    xmp = text
            if texts == MAX_TEXTS:
                break
    return Metadata(exif, xmp, iptc)


def _read_text(content: bytes, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keyword and the text of a text chunk; nothing if it cannot be decompressed."""
    keyword, _, text = content.partition(b"\0")
    if kind == b"tEXt":
        yield keyword, text[:MAX_TEXT_BYTES]
        return
    compressed = kind == b"zTXt"
    if kind == b"iTXt":
        compressed = text[:1] == b"\1"
        text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif compressed:
        text = text[1:]
    if not compressed:
        yield keyword, text[:MAX_TEXT_BYTES]
        return
    try:
        yield keyword, zlib.decompressobj().decompress(text, MAX_TEXT_BYTES)
    except zlib.error:
        return


def _from_hex(text: bytes) -> bytes:
    """Decode ImageMagick's format: three header lines, followed by hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return b""


def _jpeg_without(encoded: bytes, *, keep_color: bool) -> bytes:
    pieces, position, end = [], 0, 2
    for segment in jpeg_segments(encoded, up_to_first_scan=not keep_color):  # decoders ignore later segments
        marker, end = segment.kind[0], segment.end
        is_profile = keep_color and marker == 0xE2 and encoded.startswith(b"ICC_PROFILE\0", segment.content)
        is_application = marker in JPEG_APPLICATION - JPEG_KEPT and not is_profile
        if is_application or marker == JPEG_COMMENT or _is_thumbnail(encoded, segment):
            pieces.append(encoded[position : segment.start])
            position = segment.end
    if keep_color and encoded[end:] != JPEG_END:
        return b"".join([*pieces, encoded[position:end], JPEG_END])
    return b"".join([*pieces, encoded[position:]]) if pieces else encoded


def _is_thumbnail(encoded: bytes, segment: Part) -> bool:
    """Whether the segment is a JFIF extension, which may contain a thumbnail of the image before it was edited."""
    return segment.kind == b"\xe0" and encoded.startswith(b"JFXX\0", segment.content)


def _webp_without(encoded: bytes, *, keep_color: bool) -> bytes:
    dropped = WEBP_METADATA if keep_color else WEBP_METADATA | {b"ICCP"}
    end = 8 + int.from_bytes(encoded[4:8], "little")
    chunks = [chunk for chunk in webp_chunks(encoded) if chunk.start < end]
    if not any(chunk.kind in dropped for chunk in chunks) and (not keep_color or len(encoded) <= end + end % 2):
        return encoded
    flags = WEBP_EXIF_FLAG | WEBP_XMP_FLAG | (0 if keep_color else WEBP_ICC_FLAG)
    pieces = []
    for chunk in chunks:
        if chunk.kind == b"VP8X":
            changed = bytearray(encoded[chunk.start : chunk.end])
            changed[8] &= 0xFF ^ flags
            pieces.append(bytes(changed))
        elif chunk.kind not in dropped:
            pieces.append(encoded[chunk.start : chunk.end])
    body = b"WEBP" + b"".join(pieces)
    return b"RIFF" + struct.pack("<I", len(body)) + body
