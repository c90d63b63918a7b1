"""Refuses image files whose decoding takes long for their size, by reading their structure before any pixel is decoded.

A progressive JPEG may go over all pixels once for every few bytes: 100 kB with 1,000 scans hold a decoder for minutes. What an
image may cost is a number of the file alone, so that the same file is refused on every machine and under any load.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from seedling.media.image_parts import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    SOF_MARKERS,
    SOS_MARKER,
    TIFF_SIGNATURES,
    Part,
    is_webp,
    jpeg_segments,
    png_chunks,
    webp_chunks,
)
from seedling.media.tiff_parts import COMPRESSION_TAG, Directory, NotWalkable

TOO_SLOW = "too_slow_to_decode"
MAX_SCANS = 100  # encoders write 10 to 20; libtiff refuses JPEG streams beyond 100, too
# At the pixel limit a color image takes 14 in libjpeg's own scan script, CMYK 24.
MAX_SCANNED_PIXELS_PER_PIXEL_ALLOWED = 28
ARITHMETIC_CODING_FACTOR = 4  # each pass costs about so much more than with Huffman codes
MAX_PARTS = 100_000  # chunks or segments: decoders walk them in Python
MAX_RLE_WORK = 16_000_000  # pixels and coded bytes of a run-length coded BMP, which is decoded in Python
RLE_BYTE_WORK = 4
TIFF_COMPRESSIONS = frozenset(
    {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
)  # none, CCITT, LZW, JPEG, deflate, PackBits: linear in their bytes
NO_COMPRESSION, JPEG_IN_TIFF = 1, 7
COMPRESSED_TIFF_SHARE = 0.5  # libtiff's decoders are many and old: they work in a process of their own


def share_of_limit(encoded: bytes, max_megapixels: float) -> float:
    """How much of the work that an image may cost decoding these bytes takes; above 1 it is refused. max_megapixels: of a whole image."""
    if encoded.startswith(JPEG_SIGNATURE):
        return _of_jpeg(encoded, max_megapixels)
    if encoded.startswith(PNG_SIGNATURE):
        return _of_parts(png_chunks(encoded))
    if is_webp(encoded):
        return _of_parts(webp_chunks(encoded))
    if encoded.startswith(TIFF_SIGNATURES):
        return _of_tiff(encoded)
    return _of_bmp(encoded) if encoded.startswith(b"BM") else 0.0


def _of_parts(parts: Iterable[Part]) -> float:
    return sum(1 for _ in islice(parts, MAX_PARTS + 1)) / MAX_PARTS


def _of_jpeg(encoded: bytes, max_megapixels: float) -> float:
    max_scanned_pixels = MAX_SCANNED_PIXELS_PER_PIXEL_ALLOWED * max_megapixels * 1e6
    samples: dict[int, float] = {}  # by component: how many samples one scan of it goes over
    scans, scanned_pixels, factor, share = 0, 0.0, 1, 0.0
    for number, segment in enumerate(jpeg_segments(encoded)):
        marker = segment.kind[0]
        if marker in SOF_MARKERS and not samples:
            samples = _samples(encoded, segment, max_megapixels)
            factor = ARITHMETIC_CODING_FACTOR if marker >= 0xC9 else 1
        elif marker == SOS_MARKER:
            scans += 1
            header = encoded[segment.content : segment.end]
            components = header[1 : 1 + 2 * header[0] : 2] if header else b""
            scanned_pixels += factor * sum(samples.get(component, 0.0) for component in components)
        # Few pixels are quick however often they are scanned, so scans alone call for no process.
        share = max(scanned_pixels / max_scanned_pixels, 2.0 * (scans > MAX_SCANS), 2.0 * (number >= MAX_PARTS))
        if share > 1:
            break
    return share


def _samples(encoded: bytes, frame: Part, max_megapixels: float) -> dict[int, float]:
    content = encoded[frame.content : frame.end]
    if len(content) < 6:
        return {}
    height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    if height * width > max_megapixels * 1e6:  # refused for its pixels, not for its scans
        return {}
    components = [content[start : start + 3] for start in range(6, len(content) - 2, 3)]
    sizes = {component[0]: (component[1] >> 4) * (component[1] & 15) for component in components}
    largest = max(sizes.values(), default=1) or 1
    return {identity: width * height * size / largest for identity, size in sizes.items()}


def _of_bmp(encoded: bytes) -> float:
    header = encoded[14:34]
    if len(header) < 20 or int.from_bytes(header[:4], "little") < 40:
        return 0.0
    width, height = (abs(int.from_bytes(header[start : start + 4], "little", signed=True)) for start in (4, 8))
    run_length_coded = int.from_bytes(header[16:20], "little") in {1, 2}
    return (width * height + RLE_BYTE_WORK * len(encoded)) / MAX_RLE_WORK if run_length_coded else 0.0


def _of_tiff(encoded: bytes) -> float:
    """More strips or tiles than the image has room for would be decoded one upon the other. A JPEG within a TIFF is to have as many scans as it
    has strips or tiles, and a few: it is never progressive in practice.
    """
    try:
        directory = Directory.of(encoded)
        compression = directory.number(COMPRESSION_TAG, NO_COMPRESSION)
        pieces, most_pieces = len(directory.pieces()), directory.most_pieces()
    except NotWalkable:
        return 0.0  # which is undecodable
    too_slow = (
        pieces > most_pieces
        or compression not in TIFF_COMPRESSIONS
        or (compression == JPEG_IN_TIFF and encoded.count(b"\xff\xda") > pieces + MAX_SCANS)
    )
    return 2.0 if too_slow else COMPRESSED_TIFF_SHARE * (compression != NO_COMPRESSION)
