"""Small files that hold a decoder for long are refused by their structure, before any pixel is decoded."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from seedling.media import images
from seedling.media.decoding import decode_here
from seedling.media.decoding_limits import MAX_SCANS, share_of_limit
from seedling.media.decoding_process import answer_of_process
from seedling.media.image_parts import jpeg_segments

PHOTO = np.random.default_rng(5).integers(0, 255, (40, 60, 3)).astype(np.uint8)
MAX_CPU_SECONDS = 8.0  # far above what a busy machine needs, and below what the attacks take without a limit


def progressive_jpeg(side: int, extra_scans: int, mode: str = "L") -> bytes:
    """A progressive JPEG of one gray level whose last scan is repeated."""
    buffer = io.BytesIO()
    Image.new(mode, (side, side), 128 if mode == "L" else (90, 120, 150)).save(buffer, "JPEG", progressive=True)
    encoded = buffer.getvalue()
    last = [segment for segment in jpeg_segments(encoded) if segment.kind == b"\xda"][-1]
    return encoded[: last.end] + encoded[last.start : last.end] * extra_scans + b"\xff\xd9"


def run_length_coded_bmp(side: int, code: bytes) -> bytes:
    """A BMP of 8 bits with run-length codes (BI_RLE8)."""
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(code), 2835, 2835, 256, 0)
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(code), 0, 0, offset) + info + palette + code


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "extra_scans", "mode"),
    [(4000, 1000, "L"), (1000, 1000, "L"), (64, 500, "L"), (7000, 40, "L"), (7900, 30, "RGB"), (2000, 300, "RGB")],
)
def test_a_progressive_jpeg_of_many_scans_is_refused_at_once(side: int, extra_scans: int, mode: str) -> None:
    """Many scans of few pixels, and few scans of many pixels: refused within a second of the processor's time."""
    encoded = progressive_jpeg(side, extra_scans, mode)
    began = time.process_time()
    with pytest.raises(images.Undecodable, match=r"^too_slow_to_decode$"):
        images.decode(encoded)
    assert time.process_time() - began < MAX_CPU_SECONDS


def test_scans_behind_misleading_bytes_are_counted() -> None:
    """Fill bytes, restart markers and segments whose content looks like a scan do not hide the others."""
    encoded = progressive_jpeg(64, MAX_SCANS)
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 6) + b"\xff\xd9\xff\xda\x00\x00"
    hidden = encoded[:2] + comment + b"\xff\xff\xff" + encoded[2:].replace(b"\xff\xda", b"\xff\xd0\xff\xff\xda")
    assert share_of_limit(hidden, 64) > 1
    assert share_of_limit(encoded[:2] + comment * (2 * MAX_SCANS) + progressive_jpeg(64, 0)[2:], 64) < 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_ordinary_progressive_jpegs_up_to_the_pixel_limit_are_decoded(mode: str) -> None:
    """The header of the largest image that is decoded at all, with the scans that encoders write, is within the limits."""
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(buffer, "JPEG", progressive=True, subsampling=0)
    encoded = bytearray(buffer.getvalue())
    assert images.decode(bytes(encoded)).shape == (40, 60, 3)
    frame = next(segment for segment in jpeg_segments(bytes(encoded)) if segment.kind == b"\xc2")
    encoded[frame.content + 1 : frame.content + 5] = struct.pack(">HH", 8000, 8000)
    assert share_of_limit(bytes(encoded), 64) < 1


def test_the_limit_follows_the_pixel_limit() -> None:
    """Who allows larger images allows their scans, too."""
    encoded = progressive_jpeg(7000, 40)
    assert share_of_limit(encoded, 64) > 1 > share_of_limit(encoded, 128)


def test_a_large_run_length_coded_bmp_is_refused_and_a_small_one_is_decoded() -> None:
    """Runs are decoded in Python, about a microsecond each."""
    code = (b"\x28\x07" + b"\x00\x00") * 40 + b"\x00\x01"
    assert (images.decode(run_length_coded_bmp(40, code)) == 7).all()
    for slow in (run_length_coded_bmp(7900, b"\x00\x00" * 7900), run_length_coded_bmp(4000, b"\x01\x07" * 3_000_000)):
        began = time.process_time()
        with pytest.raises(images.Undecodable, match=r"^too_slow_to_decode$"):
            images.decode(slow)
        assert time.process_time() - began < MAX_CPU_SECONDS


def test_a_png_of_millions_of_empty_chunks_is_refused_at_once() -> None:
    """Each costs twelve bytes and a turn of a loop."""
    png = images.encode(PHOTO)
    hostile = png[:33] + png_chunk(b"tEXt", b"") * 1_000_000 + png[33:]
    began = time.process_time()
    with pytest.raises(images.Undecodable, match=r"^too_slow_to_decode$"):
        images.decode(hostile)
    assert time.process_time() - began < MAX_CPU_SECONDS


@pytest.mark.slow
def test_what_takes_much_of_the_processors_time_is_ended() -> None:
    """A large image within the limits takes more than the second that it may have here; the next one is decoded all the same."""
    assert (
        answer_of_process("seedling.media.decoding", progressive_jpeg(7000, 12), 64, max_cpu_seconds=0)
        == "too_slow_to_decode"
    )
    answer = answer_of_process("seedling.media.decoding", images.encode(PHOTO), 64)
    assert not isinstance(answer, str)
    assert (answer == PHOTO).all()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_tiffs_are_decoded_in_a_process_as_they_are_here(compression: str) -> None:
    """The decoders of libtiff are kept apart; the pixels are the same, and so are the reasons."""
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "TIFF", compression=compression)
    encoded = buffer.getvalue()
    assert (images.decode(encoded) == decode_here(encoded, 64)).all()
    with pytest.raises(images.Undecodable, match=r"^too_many_pixels$"):
        images.decode(encoded, max_megapixels=0.001)


def test_a_tiff_of_an_unusual_compression_or_of_many_scans_is_refused() -> None:
    """Only what costs no more than its bytes and pixels say is decoded."""
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "TIFF", compression="lzma")
    assert share_of_limit(buffer.getvalue(), 64) > 1
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "TIFF", compression="jpeg")
    assert share_of_limit(buffer.getvalue() + b"\xff\xda" * 1000, 64) > 1 > share_of_limit(buffer.getvalue(), 64)


def tiff_of_strips(strips: int, side: int = 2_000) -> bytes:
    """A TIFF of one bit whose strips are each the whole image, all at one place."""
    data = bytes(side * side // 8)
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 1), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [
        (273, 4, strips, 8 + len(data)),
        (277, 3, 1, 1),
        (278, 4, 1, side),
        (279, 4, strips, 8 + len(data) + 4 * strips),
    ]
    offsets, sizes = struct.pack("<I", 8) * strips, struct.pack("<I", len(data)) * strips
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data) + 8 * strips) + data + offsets + sizes + directory


def test_a_tiff_of_strips_upon_one_another_is_refused_at_once() -> None:
    """As many strips as the image has room for are decoded."""
    began = time.process_time()
    with pytest.raises(images.Undecodable, match=r"^too_slow_to_decode$"):
        images.decode(tiff_of_strips(90_000))
    assert time.process_time() - began < MAX_CPU_SECONDS


@pytest.mark.slow
def test_reading_metadata_takes_no_longer_than_its_bytes() -> None:
    """Many texts that unpack to a megabyte each, headers one behind the other, and EXIF in many pieces."""
    png, jpeg = images.encode(PHOTO), progressive_jpeg(16, 0)
    text = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(2**20)))
    other = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20)))
    headers = b"\xff\xe1" + struct.pack(">H", 2 + 60_000) + b"Exif\0\0" * 10_000
    pieces = b"\xff\xe1" + struct.pack(">H", 2 + 106) + b"Exif\0\0" + bytes(100)
    for hostile in (
        png[:33] + 2_000 * text + png[33:],
        png[:33] + 2_000 * other + png[33:],
        jpeg[:2] + 100 * headers + jpeg[2:],
        jpeg[:2] + 90_000 * pieces + jpeg[2:],
    ):
        began = time.process_time()
        assert images.decode(hostile).shape[2] == 3
        assert time.process_time() - began < MAX_CPU_SECONDS
