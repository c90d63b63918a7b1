"""Reject image files that take long to decode for their size, from their structure, before any pixel is decoded.

A progressive JPEG may process all pixels once per few bytes: 100 kB with 1,000 scans occupy a decoder for minutes. The
estimated work depends only on the file, so the same files are rejected on every machine and under any load.
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
MAX_SCANS = 100  # encoders write 10 to 20; libtiff also rejects JPEG streams with more than 100
# libjpeg's own scan script processes a color image at the pixel limit 14 times, and a CMYK image 24 times.
MAX_SCANNED_PIXELS_PER_PIXEL_ALLOWED = 28
ARITHMETIC_CODING_FACTOR = 4  # cost of a pass compared with Huffman codes
MAX_PARTS = 100_000  # chunks or segments, which decoders read in Python
MAX_RLE_WORK = 16_000_000  # pixels, plus weighted bytes, of a run-length coded BMP, which is decoded in Python
RLE_BYTE_WORK = 4
# None, CCITT, LZW, JPEG, deflate and PackBits, which decode in linear time.
TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
NO_COMPRESSION, JPEG_IN_TIFF = 1, 7
COMPRESSED_TIFF_SHARE = 0.5  # libtiff has many old decoders, so they run in a separate process


def share_of_limit(encoded: bytes, max_megapixels: float) -> float:
    """The work of decoding these bytes as a share of the limit; the image is rejected above 1.

    max_megapixels: the pixel limit of an image.
    """
    if encoded.startswith(JPEG_SIGNATURE):
        return _share_of_jpeg(encoded, max_megapixels)
    if encoded.startswith(PNG_SIGNATURE):
        return _share_of_parts(png_chunks(encoded))
    if is_webp(encoded):
        return _share_of_parts(webp_chunks(encoded))
    if encoded.startswith(TIFF_SIGNATURES):
        return _share_of_tiff(encoded)
    return _share_of_bmp(encoded) if encoded.startswith(b"BM") else 0.0


def _share_of_parts(parts: Iterable[Part]) -> float:
    return sum(1 for _ in islice(parts, MAX_PARTS + 1)) / MAX_PARTS


def _share_of_jpeg(encoded: bytes, max_megapixels: float) -> float:
    max_scanned_pixels = MAX_SCANNED_PIXELS_PER_PIXEL_ALLOWED * max_megapixels * 1e6
    samples: dict[int, float] = {}  # component → samples that one scan of it processes
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
        # Small images are fast however often they are scanned, so many scans alone do not require a process.
        share = max(scanned_pixels / max_scanned_pixels, 2.0 * (scans > MAX_SCANS), 2.0 * (number >= MAX_PARTS))
        if share > 1:
            break
    return share


def _samples(encoded: bytes, frame: Part, max_megapixels: float) -> dict[int, float]:
    content = encoded[frame.content : frame.end]
    if len(content) < 6:
        return {}
    height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    if height * width > max_megapixels * 1e6:  # rejected for its pixels, not for its scans
        return {}
    components = [content[start : start + 3] for start in range(6, len(content) - 2, 3)]
    sizes = {component[0]: (component[1] >> 4) * (component[1] & 15) for component in components}
    largest = max(sizes.values(), default=1) or 1
    return {identity: width * height * size / largest for identity, size in sizes.items()}


def _share_of_bmp(encoded: bytes) -> float:
    header = encoded[14:34]
    if len(header) < 20 or int.from_bytes(header[:4], "little") < 40:
        return 0.0
    width, height = (abs(int.from_bytes(header[start : start + 4], "little", signed=True)) for start in (4, 8))
    run_length_coded = int.from_bytes(header[16:20], "little") in {1, 2}
    return (width * height + RLE_BYTE_WORK * len(encoded)) / MAX_RLE_WORK if run_length_coded else 0.0


def _share_of_tiff(encoded: bytes) -> float:
    """Reject more strips or tiles than the image has room for, because they would be decoded repeatedly.

    A JPEG in a TIFF may have one scan per strip or tile, plus `MAX_SCANS`; in practice it is never progressive.
    """
    try:
        directory = Directory.of(encoded)
        compression = directory.number(COMPRESSION_TAG, NO_COMPRESSION)
        pieces, max_pieces = len(directory.pieces()), directory.max_pieces()
    except NotWalkable:
        return 0.0  # rejected as undecodable later
    too_slow = (
        pieces > max_pieces
        or compression not in TIFF_COMPRESSIONS
        or (compression == JPEG_IN_TIFF and encoded.count(b"\xff\xda") > pieces + MAX_SCANS)
    )
    return 2.0 if too_slow else COMPRESSED_TIFF_SHARE * (compression != NO_COMPRESSION)
