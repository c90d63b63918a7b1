"""Metadata never rejects an image: whatever it contains, the pixels are those of the same file without it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from pydantic import ValidationError

from seedling.config.params import ScrapeParams, WorkspaceConfig
from seedling.dataset.generation import payloads, read
from seedling.media import images
from seedling.media.image_metadata import UPRIGHT, read_metadata, without_metadata
from seedling.media.image_modes import color_of
from seedling.scrape import scrape

PHOTO = np.random.default_rng(5).integers(0, 255, (20, 30, 3)).astype(np.uint8)
TURNED = np.rot90(PHOTO, -1)  # orientation 6: a quarter turn, clockwise
ORIENTATION_6 = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
MEGABYTE = 2**20


def saved(kind: str, pixels: np.ndarray[Any, Any] = PHOTO, **options: Any) -> bytes:
    """The pixels encoded as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """The JPEG with one more segment after SOI."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def with_chunk(png: bytes, kind: bytes, content: bytes, *, at_the_end: bool = False) -> bytes:
    """The PNG with one more chunk after IHDR, or before IEND."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    offset = len(png) - 12 if at_the_end else 33
    return png[:offset] + chunk + png[offset:]


def exif(*entries: bytes, tail: bytes = b"", count: int | None = None) -> bytes:
    """A TIFF block with one directory."""
    number = struct.pack("<H", len(entries) if count is None else count)
    return b"II*\0\x08\0\0\0" + number + b"".join(entries) + bytes(4) + tail


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    """One entry of a directory."""
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


JPEG, PNG = saved("JPEG", quality=90), saved("PNG")
DAMAGED_EXIF = {
    "rational -1/0": exif(entry(0x011A, 10, 1, struct.pack("<I", 26)), tail=struct.pack("<ii", -1, 0)),
    "rational 1/0": exif(entry(0x011A, 5, 1, struct.pack("<I", 26)), tail=struct.pack("<II", 1, 0)),
    "cut": exif(ORIENTATION_6, entry(0x010F, 2, 400, struct.pack("<I", 60)))[:15],
    "leads nowhere": b"II*\0" + struct.pack("<I", 90_000),
    "orientation is a text": exif(entry(0x0112, 2, 4, b"six\0")),
    "two orientations": exif(entry(0x0112, 3, 2, struct.pack("<HH", 6, 6))),
    "orientation 9": exif(entry(0x0112, 3, 1, struct.pack("<H", 9))),
    "orientation 0": exif(entry(0x0112, 3, 1, struct.pack("<H", 0))),
    "unknown type": exif(entry(0x9286, 99, 7, b"\1")),
    "65,535 entries": exif(count=65_535),
    "directory in itself": exif(entry(0x8769, 4, 1, struct.pack("<I", 8)), entry(0x8825, 4, 1, struct.pack("<I", 8))),
    "nothing": b"",
    "junk": bytes(range(64)),
    "big-endian junk": b"MM\0*" + bytes([255]) * 60,
}


@pytest.mark.parametrize("block", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF.keys())
def test_damaged_exif_rejects_no_image(block: bytes) -> None:
    """In a JPEG, a PNG and a WebP, the pixels are those of the file without it."""
    webp = saved("WEBP", lossless=True, exif=b"Exif\0\0" + exif(ORIENTATION_6))
    length = len(read_metadata(webp).exif)
    patched = webp.replace(exif(ORIENTATION_6), block[:length].ljust(length, b"\0"))
    for plain, damaged in (
        (JPEG, with_segment(JPEG, 0xE1, b"Exif\0\0" + block)),
        (PNG, with_chunk(PNG, b"eXIf", block)),
        (saved("WEBP", lossless=True), patched),
    ):
        assert (images.decode(damaged) == images.decode(plain)).all()
        assert read_metadata(damaged).orientation == UPRIGHT


@pytest.mark.parametrize(
    "block",
    [
        exif(ORIENTATION_6, entry(0x011A, 10, 1, struct.pack("<I", 38)), tail=struct.pack("<ii", -1, 0)),
        b"Exif\0\0" + exif(ORIENTATION_6),
        exif(
            ORIENTATION_6,
            entry(0x8769, 4, 1, struct.pack("<I", 70_000)),
            entry(0x8825, 4, 1, struct.pack("<I", 80_000)),
        ),
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    ],
    ids=["rational -1/0", "header twice", "directories that lead nowhere", "big-endian"],
)
def test_the_orientation_is_read_despite_damaged_entries(block: bytes) -> None:
    """It is in an entry of its own."""
    assert (images.decode(with_chunk(PNG, b"eXIf", block)) == TURNED).all()
    assert images.decode(with_segment(JPEG, 0xE1, b"Exif\0\0" + block)).shape == (30, 20, 3)


def test_the_orientation_is_read_from_xmp_and_from_text_chunks() -> None:
    """As in Pillow: from XMP if EXIF has none, and from ImageMagick's hexadecimal text."""
    xmp = b'<x tiff:Orientation="6"/>'
    assert images.decode(with_segment(JPEG, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)).shape == (30, 20, 3)
    in_text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    assert (images.decode(with_chunk(PNG, b"iTXt", in_text)) == TURNED).all()
    profile = b"\nexif\n      32\n" + (b"Exif\0\0" + exif(ORIENTATION_6)).hex().encode() + b"\n"
    for kind, content in ((b"tEXt", b"\0" + profile), (b"zTXt", b"\0\0" + zlib.compress(profile))):
        assert (images.decode(with_chunk(PNG, kind, b"Raw profile type exif" + content)) == TURNED).all()


def test_many_megabytes_of_metadata_reject_no_image() -> None:
    """Compressed texts of 20 MB, texts of 70 MB in total, XMP and a profile of megabytes, before and after the pixels."""
    bomb = zlib.compress(bytes(20 * MEGABYTE))
    for at_the_end in (False, True):
        for kind, content in (
            (b"zTXt", b"Comment\0\0" + bomb),
            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
            (b"iCCP", b"profile\0\0" + bomb),
            (b"tEXt", b"Comment\0" + b"x" * (2 * MEGABYTE)),
            (b"eXIf", b"II*\0\x08\0\0\0" + bytes(2 * MEGABYTE)),
        ):
            assert (images.decode(with_chunk(PNG, kind, content, at_the_end=at_the_end)) == PHOTO).all()
    text = with_chunk(PNG, b"tEXt", b"Comment\0" + b"x" * MEGABYTE)[33 : -len(PNG) + 33]
    assert (images.decode(PNG[:33] + 70 * text + PNG[33:]) == PHOTO).all()
    part = with_segment(JPEG, 0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000))[2 : -len(JPEG) + 2]
    assert (images.decode(JPEG[:2] + 200 * part + JPEG[2:]) == images.decode(JPEG)).all()


def test_broken_color_profiles_reject_no_image() -> None:
    """An invalid profile, an incomplete one, and a chunk with an unknown compression."""
    for content in (b"ICC_PROFILE\0\1\1junk", b"ICC_PROFILE\0\1\3" + bytes(100), b"ICC_PROFILE\0"):
        assert (images.decode(with_segment(JPEG, 0xE2, content)) == images.decode(JPEG)).all()
    for content in (b"profile\0\0junk", b"profile\0\7" + zlib.compress(b"junk"), b"profile", b""):
        assert (images.decode(with_chunk(PNG, b"iCCP", content)) == PHOTO).all()


def test_a_wrong_checksum_of_metadata_rejects_no_image() -> None:
    """A wrong checksum of pixels does."""
    damaged = bytearray(with_chunk(PNG, b"tEXt", b"Comment\0hello"))
    damaged[33 + 8 + 13] ^= 1
    assert (images.decode(bytes(damaged)) == PHOTO).all()
    pixels = bytearray(PNG)
    pixels[60] ^= 1
    with pytest.raises(images.Undecodable, match=r"^undecodable$"):
        images.decode(bytes(pixels))


def test_metadata_of_a_gif_a_webp_and_a_tiff_reject_no_image() -> None:
    """A comment of megabytes, invalid EXIF, and tags with rationals divided by zero."""
    gif = saved("GIF")
    start = gif.index(b",\0\0\0\0")
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 8_000 + b"\0"
    assert (images.decode(gif[:start] + comment + gif[start:]) == images.decode(gif)).all()
    webp = saved("WEBP", lossless=True, exif=b"Exif\0\0" + exif(ORIENTATION_6), xmp=b"<x/>")
    assert (images.decode(webp) == TURNED).all()
    tiff = saved("TIFF", tiffinfo={282: 72.0, 305: "camera", 34665: 7, 34853: 9})
    zero = tiff.replace(struct.pack("<II", 72, 1), struct.pack("<II", 72, 0))
    assert (images.decode(tiff) == PHOTO).all()
    assert (images.decode(zero) == PHOTO).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_file_without_metadata_is_unchanged(kind: str) -> None:
    """Byte for byte."""
    encoded = saved(kind)
    assert without_metadata(encoded, keep_color=True) == encoded


def test_pixels_are_the_same_without_metadata() -> None:
    """For every format, with profiles, comments and orientation."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.Exif()
    turned[0x0112], turned[0x013B] = 6, "Somebody"
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        for progressive in (False, True):
            encoded = saved(
                kind, exif=turned, icc_profile=profile, progressive=progressive, comment="hello", xmp=b"<x/>"
            )
            bare = without_metadata(encoded, keep_color=True)
            assert b"Somebody" not in bare
            stored = np.asarray(Image.open(io.BytesIO(bare)))
            assert (np.rot90(stored, -1 if kind != "TIFF" else 0) == images.decode(encoded)).all()
            assert Image.open(io.BytesIO(bare)).info.get("icc_profile") == profile


WHITE_ICON, BLACK_ICON, CLEAR = (np.zeros((24, 24, 4), np.uint8) for _ in range(3))
WHITE_ICON[6:18, 4:20] = 255
BLACK_ICON[6:18, 4:20, 3] = 255


def test_white_on_transparency_is_shown_on_black() -> None:
    """White and nearly white shapes are visible; black ones stay on white, and a completely transparent image is blank."""
    white = images.decode(saved("PNG", WHITE_ICON))
    assert white[12, 12].tolist() == [255] * 3
    assert white[0, 0].tolist() == [0] * 3
    assert not images.is_blank(white)
    nearly = WHITE_ICON.copy()
    nearly[6:18, 4:20, :3] = 248
    assert images.decode(saved("PNG", nearly))[0, 0].tolist() == [0] * 3
    black = images.decode(saved("PNG", BLACK_ICON))
    assert black[12, 12].tolist() == [0] * 3
    assert black[0, 0].tolist() == [255] * 3
    assert images.is_blank(images.decode(saved("PNG", CLEAR)))


@pytest.mark.parametrize(
    ("background", "color"),
    [("white", (255, 255, 255)), ("black", (0, 0, 0)), ("gray", (128, 128, 128)), ("#20a0ff", (0x20, 0xA0, 0xFF))],
)
def test_the_background_of_transparent_images_is_a_parameter(
    background: str, color: tuple[int, int, int], tmp_path: Path
) -> None:
    """Scrape composes them with it, and leaves all other images unchanged."""
    folder = tmp_path / "data" / "labeled" / "icon"
    folder.mkdir(parents=True)
    (folder / "icon.png").write_bytes(saved("PNG", BLACK_ICON))
    (folder / "photo.jpg").write_bytes(JPEG)
    params = {"sources": [{"kind": "folder", "path": "."}], "transparent_background": background}
    config = WorkspaceConfig(modality="image")
    scrape(ScrapeParams.model_validate(params), config, data=tmp_path / "data", output=tmp_path / "scrape")
    rows = read(tmp_path / "scrape", ["id", "origin"])
    payload_of: dict[str, Any] = dict(payloads([tmp_path / "scrape"], set(rows["id"])))
    by_name = {Path(origin).name: payload_of[row_id] for row_id, origin in zip(rows["id"], rows["origin"], strict=True)}
    assert by_name["photo.jpg"] == JPEG
    icon = images.decode(by_name["icon.png"])
    assert tuple(icon[0, 0]) == color
    assert tuple(icon[12, 12]) == (0, 0, 0)
    assert (images.decode(saved("PNG", BLACK_ICON), 64, color_of(background)) == icon).all()
    buffer = io.BytesIO()
    Image.fromarray(BLACK_ICON).save(buffer, "TIFF", compression="tiff_lzw")
    assert (images.decode(buffer.getvalue(), 64, color_of(background)) == icon).all()


def test_an_unknown_background_is_refused() -> None:
    """The error has the key and the value."""
    with pytest.raises(ValidationError, match="transparent_background"):
        ScrapeParams.model_validate({"sources": [{"kind": "folder", "path": "."}], "transparent_background": "glass"})
