"""Small images in broken and in unusual forms, each with what becomes of it: `kept`, or the reason for which it is rejected.

python tests/hostile/image_corpus.py FOLDER      # writes FOLDER/labeled/{a,b}/<form>.<suffix> and FOLDER.json
"""

from __future__ import annotations

import io
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seedling.media import images
from seedling.media.image_parts import jpeg_segments

KEPT = "kept"
SIDE = 24
EXIF_6 = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
EXIF_BAD_RATIONAL = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x0a\0\x01\0\0\0\x1a\0\0\0\0\0\0\0" + struct.pack(
    "<ii", -1, 0
)


def pixels_of(seed: int, height: int = SIDE, width: int = SIDE) -> images.Pixels:
    """A smooth image that depends on the seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    return images.resized(coarse, width, height)


def saved(seed: int, kind: str, mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE), **options: Any) -> bytes:
    """The image of this seed as a file."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels_of(seed, size[1], size[0]))
    (image if mode == "RGB" else image.convert(mode)).save(buffer, kind, **options)
    return buffer.getvalue()


def saved_array(array: np.ndarray[Any, Any], kind: str, **options: Any) -> bytes:
    """The array as a file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG's chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, color_type: int, *chunks: bytes, interlace: int = 0) -> bytes:
    """A PNG of these chunks behind its header."""
    head = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def png_with(seed: int, kind: bytes, content: bytes) -> bytes:
    """A good PNG with one more chunk behind its header."""
    good = saved(seed, "PNG")
    return good[:33] + chunk(kind, content) + good[33:]


def jpeg_with(seed: int, marker: int, content: bytes) -> bytes:
    """A good JPEG with one more segment behind SOI."""
    good = saved(seed, "JPEG", quality=90)
    return good[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + good[2:]


def jpeg_of_size(seed: int, height: int, width: int) -> bytes:
    """A JPEG whose header claims another size."""
    good = bytearray(saved(seed, "JPEG"))
    frame = next(segment for segment in jpeg_segments(bytes(good)) if segment.kind == b"\xc0")
    good[frame.content + 1 : frame.content + 5] = struct.pack(">HH", height, width)
    return bytes(good)


def jpeg_without(seed: int, kind: bytes) -> bytes:
    """A JPEG that lacks one kind of segment."""
    good = saved(seed, "JPEG")
    for segment in reversed([segment for segment in jpeg_segments(good) if segment.kind == kind]):
        good = good[: segment.start] + good[segment.end :]
    return good


def jpeg_of_scans(seed: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    good = saved(seed, "JPEG", progressive=True)
    last = [segment for segment in jpeg_segments(good) if segment.kind == b"\xda"][-1]
    return good[: last.end] + good[last.start : last.end] * scans + b"\xff\xd9"


def bmp(seed: int, width: int, height: int, compression: int, code: bytes) -> bytes:
    """A BMP of 8 bits with a palette of its own."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(code), 2835, 2835, 256, 0)
    palette = np.random.default_rng(seed).integers(0, 255, 4 * 256).astype(np.uint8).tobytes()
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(code), 0, 0, offset) + info + palette + code


def changed(encoded: bytes, start: int, content: bytes) -> bytes:
    """The bytes with others from a place on."""
    return encoded[:start] + content + encoded[start + len(content) :]


def on_transparency(seed: int, level: int) -> bytes:
    """A bar of one gray level on a transparent background."""
    rgba = np.zeros((SIDE, SIDE, 4), np.uint8)
    rgba[4 + seed % 8 : 18, 3 : 10 + seed % 11] = (level, level, level, 255)
    return saved_array(rgba, "PNG")


def gray_16(seed: int, low: int = 0) -> np.ndarray[Any, Any]:
    """Sixteen bits of gray."""
    return pixels_of(seed)[..., 0].astype(np.uint16) * 257 + low


def forms() -> Iterator[tuple[str, str, bytes, str]]:
    """Each form: its name, the suffix of its file, its bytes, and the expected result."""
    yield from _jpegs()
    yield from _pngs()
    yield from _gifs_and_webps()
    yield from _bmps_and_tiffs()
    yield from _no_images()


def _jpegs() -> Iterator[tuple[str, str, bytes, str]]:
    yield "jpeg_progressive", "jpg", saved(100, "JPEG", progressive=True), KEPT
    yield "jpeg_cmyk", "jpg", saved(101, "JPEG", "CMYK"), KEPT
    yield "jpeg_gray", "jpg", saved(102, "JPEG", "L"), KEPT
    yield "jpeg_named_png", "png", saved(103, "JPEG"), KEPT
    yield "jpeg_cut_in_half", "jpg", saved(104, "JPEG")[:500], "undecodable"
    yield "jpeg_cut_in_its_header", "jpg", saved(105, "JPEG")[:60], "undecodable"
    yield "jpeg_of_500_scans", "jpg", jpeg_of_scans(106, 500), "too_slow_to_decode"
    yield "jpeg_of_4_gigapixels", "jpg", jpeg_of_size(107, 65_500, 65_500), "too_many_pixels"
    yield "jpeg_without_width", "jpg", jpeg_of_size(108, SIDE, 0), "undecodable"
    yield "jpeg_without_height", "jpg", jpeg_of_size(109, 0, SIDE), "undecodable"
    yield "jpeg_larger_than_its_data", "jpg", jpeg_of_size(110, 200, 200), KEPT
    yield "jpeg_without_quantization", "jpg", jpeg_without(111, b"\xdb"), "undecodable"
    yield "jpeg_without_frame", "jpg", jpeg_without(112, b"\xc0"), "undecodable"
    yield "jpeg_without_scan", "jpg", jpeg_without(113, b"\xda"), "undecodable"
    yield (
        "jpeg_of_12_bits",
        "jpg",
        saved(114, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        "undecodable",
    )
    yield "jpeg_with_a_film_behind_it", "jpg", saved(115, "JPEG") + b"\0\0\0\x18ftypmp42" + bytes(5_000), KEPT
    yield "jpeg_with_a_comment", "jpg", jpeg_with(116, 0xFE, b"\xff\xda\xff\xd9" * 99), KEPT
    yield "jpeg_stored_turned", "jpg", jpeg_with(117, 0xE1, EXIF_6), KEPT
    yield "jpeg_with_a_rational_by_zero", "jpg", jpeg_with(118, 0xE1, EXIF_BAD_RATIONAL), KEPT
    yield "jpeg_with_a_header_twice", "jpg", jpeg_with(119, 0xE1, b"Exif\0\0" + EXIF_6), KEPT
    yield "jpeg_with_half_a_color_profile", "jpg", jpeg_with(120, 0xE2, b"ICC_PROFILE\0\1\3" + bytes(99)), KEPT
    yield "jpeg_with_a_broken_photoshop_block", "jpg", jpeg_with(121, 0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff"), KEPT
    yield "jpeg_behind_html", "jpg", b"<html>" + saved(122, "JPEG"), "undecodable"


def _pngs() -> Iterator[tuple[str, str, bytes, str]]:
    rows = b"".join(b"\0" + row.tobytes() for row in pixels_of(200))
    data = chunk(b"IDAT", zlib.compress(rows))
    bomb = zlib.compress(bytes(3 * 2**20))
    yield "png_cut", "png", saved(201, "PNG")[:300], "undecodable"
    yield "png_without_end", "png", saved(202, "PNG")[:-12], KEPT
    yield "png_with_wrong_checksum_of_pixels", "png", changed(saved(203, "PNG"), 60, b"\0\1\2\3"), "undecodable"
    yield "png_with_wrong_checksum_of_its_header", "png", changed(saved(204, "PNG"), 29, b"\0\0\0\0"), "undecodable"
    yield "png_without_pixels", "png", png(SIDE, SIDE, 8, 2), "undecodable"
    yield "png_without_size", "png", png(0, 0, 8, 2, data), "undecodable"
    yield "png_of_2_gigapixels", "png", png(50_000, 50_000, 8, 2, data), "too_many_pixels"
    yield "png_of_color_type_5", "png", png(SIDE, SIDE, 8, 5, data), "undecodable"
    yield "png_of_7_bits", "png", png(SIDE, SIDE, 7, 2, data), "undecodable"
    yield (
        "png_with_more_data_than_pixels",
        "png",
        png(SIDE, SIDE, 8, 2, chunk(b"IDAT", zlib.compress(rows + bytes(10**6)))),
        KEPT,
    )
    yield (
        "png_with_less_data_than_pixels",
        "png",
        png(SIDE, SIDE, 8, 2, chunk(b"IDAT", zlib.compress(rows[:500]))),
        "undecodable",
    )
    yield "png_of_a_broken_stream", "png", png(SIDE, SIDE, 8, 2, chunk(b"IDAT", b"\x78\x9c" + bytes(99))), "undecodable"
    yield "png_with_line_ends_changed", "png", saved(205, "PNG").replace(b"\r\n", b"\n"), "undecodable"
    yield "png_of_palette_and_transparency", "png", saved(206, "PNG", "P", transparency=0), KEPT
    yield "png_gray_16", "png", saved_array(gray_16(207), "PNG"), KEPT
    yield "png_gray_16_dark", "png", saved_array(gray_16(208) // 8, "PNG"), KEPT
    yield "png_gray_and_alpha", "png", saved(209, "PNG", "LA"), KEPT
    yield "png_of_one_bit", "png", saved(210, "PNG", "1"), KEPT
    yield "png_animated", "png", saved(211, "PNG", save_all=True, append_images=[Image.fromarray(pixels_of(1))]), KEPT
    yield "png_with_a_text_bomb", "png", png_with(212, b"zTXt", b"Comment\0\0" + bomb), KEPT
    yield "png_with_a_profile_bomb", "png", png_with(213, b"iCCP", b"profile\0\0" + bomb), KEPT
    yield "png_with_2_megabytes_of_text", "png", png_with(214, b"tEXt", b"Comment\0" + b"x" * 2**21), KEPT
    yield "png_with_broken_exif", "png", png_with(215, b"eXIf", EXIF_BAD_RATIONAL[6:]), KEPT
    yield "png_with_a_chunk_of_a_bad_name", "png", png_with(216, b"\0\1\2\3", b"junk"), KEPT
    good = saved(217, "PNG")
    yield "png_of_200000_chunks", "png", good[:33] + chunk(b"tEXt", b"") * 200_000 + good[33:], "too_slow_to_decode"
    yield "png_white_on_transparency", "png", on_transparency(1, 255), KEPT
    yield "png_black_on_transparency", "png", on_transparency(2, 0), KEPT
    yield "png_clear", "png", saved_array(np.zeros((SIDE, SIDE, 4), np.uint8), "PNG"), "blank"
    yield "png_white", "png", saved_array(np.full((SIDE, SIDE, 3), 255, np.uint8), "PNG"), "blank"
    yield "png_of_one_pixel", "png", saved(218, "PNG", size=(1, 1)), "too_small"
    yield "png_of_7_by_30", "png", saved(219, "PNG", size=(30, 7)), "too_small"


def _gifs_and_webps() -> Iterator[tuple[str, str, bytes, str]]:
    gif = saved(300, "GIF")
    start = gif.index(b",\0\0\0\0")
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 5_000 + b"\0"
    yield "gif_with_a_megabyte_of_comment", "gif", gif[:start] + comment + gif[start:], KEPT
    yield "gif_animated", "gif", saved(301, "GIF", save_all=True, append_images=[Image.fromarray(pixels_of(2))]), KEPT
    yield "gif_without_frames", "gif", gif[:start] + b";", "undecodable"
    yield "gif_cut", "gif", saved(302, "GIF")[:-300], "undecodable"
    yield "gif_of_4_gigapixels", "gif", changed(saved(303, "GIF"), 6, b"\xff\xff\xff\xff"), "too_many_pixels"
    yield "webp_lossless_stored_turned", "webp", saved(304, "WEBP", lossless=True, exif=EXIF_6), KEPT
    yield (
        "webp_animated",
        "webp",
        saved(305, "WEBP", save_all=True, append_images=[Image.fromarray(pixels_of(3))]),
        KEPT,
    )
    yield "webp_cut", "webp", saved(306, "WEBP", lossless=True)[:-200], "undecodable"
    yield "webp_header_alone", "webp", saved(307, "WEBP")[:20], "undecodable"


def _bmps_and_tiffs() -> Iterator[tuple[str, str, bytes, str]]:
    levels = np.random.default_rng(400).integers(0, 255, (SIDE, SIDE)).astype(np.uint8)
    runs = b"".join(b"".join(bytes([1, level]) for level in row) + b"\0\0" for row in levels)
    yield "bmp_run_length_coded", "bmp", bmp(401, SIDE, SIDE, 1, runs + b"\0\1"), KEPT
    yield "bmp_run_length_coded_large", "bmp", bmp(402, 7_000, 7_000, 1, b"\0\0" * 7_000), "too_slow_to_decode"
    yield "bmp_top_down", "bmp", bmp(403, SIDE, -SIDE, 0, levels.tobytes()), KEPT
    yield "bmp_cut", "bmp", bmp(404, SIDE, SIDE, 0, levels.tobytes()[:100]), "undecodable"
    yield "bmp_of_4_gigapixels", "bmp", bmp(405, 65_000, 65_000, 0, levels.tobytes()), "too_many_pixels"
    yield "bmp_without_width", "bmp", bmp(406, 0, SIDE, 0, levels.tobytes()), "undecodable"
    tiff = saved(407, "TIFF")
    offset = struct.unpack_from("<I", tiff, 4)[0]
    entries = struct.unpack_from("<H", tiff, offset)[0]
    yield (
        "tiff_with_a_directory_in_itself",
        "tif",
        changed(tiff, offset + 2 + 12 * entries, struct.pack("<I", offset)),
        KEPT,
    )
    yield "tiff_cut", "tif", saved(408, "TIFF")[:-100], "undecodable"
    yield "tiff_gray_16", "tif", saved_array(gray_16(409), "TIFF", compression="tiff_lzw"), KEPT
    yield "tiff_float", "tif", saved_array(gray_16(410).astype(np.float32) / 65_535, "TIFF"), KEPT
    yield "tiff_float_to_65535", "tif", saved_array(gray_16(411).astype(np.float32), "TIFF"), "values_out_of_range"
    yield (
        "tiff_32_bits_negative",
        "tif",
        saved_array(gray_16(412).astype(np.int32) - 40_000, "TIFF"),
        "values_out_of_range",
    )
    yield "tiff_cmyk", "tif", saved(413, "TIFF", "CMYK", compression="tiff_deflate"), KEPT
    yield "tiff_of_jpeg", "tif", saved(414, "TIFF", compression="jpeg"), KEPT
    yield "tiff_of_lzma", "tif", saved(415, "TIFF", compression="lzma"), "too_slow_to_decode"
    yield "tiff_of_pages", "tif", saved(416, "TIFF", save_all=True, append_images=[Image.fromarray(pixels_of(4))]), KEPT
    yield "tiff_header_alone", "tif", b"II*\0\x08\0\0\0", "undecodable"
    yield "tiff_whose_directory_is_far", "tif", b"II*\0" + struct.pack("<I", 2**31) + bytes(99), "undecodable"


def _no_images() -> Iterator[tuple[str, str, bytes, str]]:
    yield "nothing", "png", b"", "empty_file"
    yield "a_text", "jpg", b"not an image", "undecodable"
    yield "a_web_page", "jpg", b"<!doctype html><title>404</title>", "undecodable"
    yield "a_program", "png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "undecodable"
    yield "an_archive", "png", b"PK\x03\x04" + bytes(99), "undecodable"
    yield "a_document", "png", b"%PDF-1.7\n" + bytes(99), "undecodable"
    yield "an_apple_photograph", "jpg", b"\0\0\0\x18ftypheic" + bytes(99), "undecodable"
    yield "zeros", "png", bytes(5_000), "undecodable"
    yield "a_signature_alone", "png", b"\x89PNG\r\n\x1a\n", "undecodable"


def write_corpus(folder: Path) -> dict[str, str]:
    """Writes each form to the class folders a and b, in turn; by the path below `folder`, what becomes of it."""
    expected: dict[str, str] = {}
    for number, (name, suffix, encoded, outcome) in enumerate(forms()):
        path = folder / "labeled" / "ab"[number % 2] / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
        expected[path.relative_to(folder).as_posix()] = outcome
    return expected


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.with_suffix(".json").write_text(json.dumps(write_corpus(target), indent=1), encoding="utf-8")
