"""Every mode of an image comes to 8 bits by one fixed scale, never by the image's own maximum; expected pixels by hand."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seedling.media import images

GRAY_16 = np.array([[0, 255, 256, 257], [4095, 32768, 65280, 65535]], np.uint16)
UPPER_BITS = [[0, 0, 1, 1], [15, 128, 255, 255]]  # 4,095 = 15 * 256 + 255


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, bits: int, color_type: int, rows: bytes, transparent: bytes = b"") -> bytes:
    """A PNG whose rows are given byte for byte, without filters, as Pillow cannot write it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    length = len(rows) // height
    lines = b"".join(b"\0" + rows[start : start + length] for start in range(0, len(rows), length))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))
    middle = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_16_bit_gray_keeps_its_upper_eight_bits_in_png_and_tiff(compression: str | None) -> None:
    """The same pixels, whatever the file's format, its byte order, and its brightest value."""
    files = [saved(Image.fromarray(GRAY_16), "PNG"), saved(Image.fromarray(GRAY_16), "TIFF", compression=compression)]
    files.append(png(4, 2, 16, 0, GRAY_16.astype(">u2").tobytes()))
    for encoded in files:
        pixels = images.decode(encoded)
        assert pixels.shape == (2, 4, 3)
        for channel in range(3):
            assert pixels[..., channel].tolist() == UPPER_BITS


def test_two_exposures_of_one_scene_stay_apart() -> None:
    """Half the counts are half the gray level; by its own maximum each would be the same image."""
    scene = np.arange(0, 16_000, 100, dtype=np.uint16).reshape(10, 16)
    half, full = (images.decode(saved(Image.fromarray(scene * factor), "PNG")).astype(int) for factor in (1, 2))
    assert half.max() == 62
    assert full.max() == 124
    assert (abs(full - 2 * half) <= 1).all()


def test_one_hot_pixel_does_not_change_the_others() -> None:
    """A dead pixel of a sensor at 65,535."""
    calm = np.full((9, 9), 20_000, np.uint16)
    hot = calm.copy()
    hot[3, 5] = 65_535
    pixels = images.decode(saved(Image.fromarray(hot), "PNG"))
    assert pixels[3, 5].tolist() == [255, 255, 255]
    assert pixels[0, 0].tolist() == images.decode(saved(Image.fromarray(calm), "PNG"))[0, 0].tolist() == [78, 78, 78]


def test_8_bit_images_that_were_widened_to_16_come_back_as_they_were() -> None:
    """By shifting (times 256) and by repeating the bits (times 257)."""
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for factor in (256, 257):
        assert (images.decode(saved(Image.fromarray(gray * factor), "PNG"))[..., 0] == gray).all()


def test_16_bit_color_and_alpha_keep_their_upper_eight_bits() -> None:
    """RGB, RGBA on white, and gray with alpha."""
    color = np.array([[0x1234, 0x80FF, 0xFFFF], [0x00FF, 0x0100, 0x7F00]], ">u2")
    assert images.decode(png(2, 1, 16, 2, color.tobytes()))[0].tolist() == [[0x12, 0x80, 0xFF], [0, 1, 0x7F]]
    with_alpha = np.array([[0x1234, 0x80FF, 0xFFFF, 0xFFFF], [0, 0, 0, 0]], ">u2")
    assert images.decode(png(2, 1, 16, 6, with_alpha.tobytes()))[0].tolist() == [[0x12, 0x80, 0xFF], [255, 255, 255]]
    gray = np.array([[0x3000, 0xFFFF], [0x3000, 0]], ">u2")
    assert images.decode(png(2, 1, 16, 4, gray.tobytes()))[0].tolist() == [[0x30] * 3, [255] * 3]


def test_a_transparent_value_of_16_bits_is_compared_with_all_its_bits() -> None:
    """0x1234 is transparent and 0x12FF is not; of colors the upper bits decide."""
    rows = np.array([0x1234, 0x12FF], ">u2").tobytes()
    assert images.decode(png(2, 1, 16, 0, rows, struct.pack(">H", 0x1234)))[0].tolist() == [[255] * 3, [0x12] * 3]
    color = np.array([0x1234, 0x1234, 0x1234, 0x3000, 0x4000, 0x5000], ">u2").tobytes()
    decoded = images.decode(png(2, 1, 16, 2, color, struct.pack(">HHH", 0x1234, 0x1234, 0x1234)))
    assert decoded[0].tolist() == [[255] * 3, [0x30, 0x40, 0x50]]


def test_floating_point_values_from_0_to_1_are_black_to_white() -> None:
    """0.5 * 255 = 127.5, rounded to even; a value that is no number is black."""
    values = np.array([[0, 0.25, 0.5, 1.0, np.nan]], np.float32)
    assert images.decode(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 64, 128, 255, 0]


def test_32_bit_integers_have_the_scale_of_16_bit_ones() -> None:
    """As arrays of whole numbers are stored by tools that know no unsigned 16 bits."""
    values = np.array([[0, 256, 65_535]], np.int32)
    assert images.decode(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0.0, 200.0]], np.float32),
        np.array([[-0.5, 0.5]], np.float32),
        np.array([[np.inf, 0.5]], np.float32),
        np.array([[0, 65_536]], np.int32),
        np.array([[-1, 5]], np.int32),
    ],
    ids=["float 200", "float -0.5", "infinite", "2**16", "negative"],
)
def test_values_without_a_fixed_scale_are_refused_with_a_reason(values: np.ndarray[Any, Any]) -> None:
    """Rather than stretched by their own maximum, or clipped without a word."""
    with pytest.raises(images.Undecodable, match=r"^values_out_of_range$"):
        images.decode(saved(Image.fromarray(values), "TIFF"))


def test_a_tiff_that_counts_from_white_is_turned_over() -> None:
    """PhotometricInterpretation 0, of 8 and of 16 bits; Pillow writes 8 bits turned over, and 16 bits as they are."""
    eight = saved(Image.fromarray(np.array([[0, 255]], np.uint8)), "TIFF", tiffinfo={262: 0})
    sixteen = saved(Image.fromarray(np.array([[0, 65_535]], np.uint16)), "TIFF", tiffinfo={262: 0})
    assert b"\xff\x00" in eight
    assert images.decode(eight)[0, :, 0].tolist() == [0, 255]
    assert b"\x00\x00\xff\xff" in sixteen
    assert images.decode(sixteen)[0, :, 0].tolist() == [255, 0]


def test_palettes_gray_with_alpha_one_bit_and_cmyk_are_brought_to_rgb() -> None:
    """Palette entries by their colors; half-transparent black on white is middle gray; ink without color is white."""
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 150, 100])
    palette.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF", "TIFF"):
        assert images.decode(saved(palette, kind))[0].tolist() == [[10, 20, 30], [200, 150, 100]]
    assert images.decode(saved(palette, "PNG", transparency=0))[0].tolist() == [[255] * 3, [200, 150, 100]]
    gray = Image.fromarray(np.array([[[0, 128], [60, 255]]], np.uint8), "LA")
    assert images.decode(saved(gray, "PNG"))[0].tolist() == [[127] * 3, [60] * 3]
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert images.decode(saved(bits, "PNG"))[0].tolist() == [[0] * 3, [255] * 3]
    ink = Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8), "CMYK")
    assert images.decode(saved(ink, "TIFF"))[0].tolist() == [[255] * 3, [0, 255, 255], [0, 0, 0]]
