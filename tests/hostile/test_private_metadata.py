"""Location, author and camera of a photograph are not published; personal data in texts is masked on pages."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from small_models import write_decision

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify
from seedling.export.dataset import export
from seedling.formats import DatasetForm
from seedling.media import images
from seedling.media.image_export import image_for_others
from seedling.media.image_metadata import read_metadata
from seedling.media.personal_data import masked, personal_data_shown
from seedling.report.pages import preview
from seedling.validate.checks import check_row
from seedling.validate.quality_flags import quality

PHOTO = np.random.default_rng(5).integers(0, 255, (20, 30, 3)).astype(np.uint8)
SECRETS = (b"Ada Author", b"SN-0451", b"Secret Street", b"hidden comment", b"\x30\x00\x00\x00\x01\x00\x00\x00")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int, *, has_location: bool = True) -> Image.Exif:
    """Author, camera, and 48 degrees north."""
    block = Image.Exif()
    block[0x0112], block[0x013B] = orientation, "Ada Author"
    block.get_ifd(0x8769)[0xA431] = "SN-0451"
    if has_location:
        block.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 0.0), 3: "E", 4: (11.0, 34.0, 0.0)})
    return block


def photograph(kind: str, orientation: int = 1, *, has_location: bool = True) -> bytes:
    """An image file with private metadata."""
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    xmp = b"<x photoshop:Credit='Secret Street'/>"
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(
        buffer,
        kind,
        exif=exif(orientation, has_location=has_location),
        xmp=xmp,
        icc_profile=PROFILE,
        comment=b"hidden comment",
        **options,
    )
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_a_shared_file_has_no_location_author_or_camera(kind: str) -> None:
    """Upright or rotated: the pixels are those that Seedling reads, Pillow reads no EXIF, and the bytes contain no
    secret.
    """
    for orientation in (1, 6):
        encoded = photograph(kind, orientation)
        handed = image_for_others(encoded, 64)
        assert any(secret in encoded for secret in SECRETS)
        assert not any(secret in handed for secret in SECRETS)
        image = Image.open(io.BytesIO(handed))
        assert (np.asarray(image.convert("RGB")) == images.decode(encoded)).all()
        assert not {0x0112, 0x013B, 0x8825, 0x8769} & set(image.getexif()) or image.getexif().get(0x0112) == 1
        assert not image.getexif().get_ifd(0x8825)
        assert "xmp" not in image.info
        if orientation == 1 and kind != "GIF":
            assert image.info["icc_profile"] == PROFILE


def test_data_behind_the_end_of_an_image_is_removed() -> None:
    """For example a phone's video or second photograph, with a location of its own."""
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        buffer = io.BytesIO()
        Image.fromarray(PHOTO).save(buffer, kind)
        assert image_for_others(buffer.getvalue() + photograph("JPEG"), 64) == buffer.getvalue()


def test_a_file_without_metadata_is_shared_unchanged() -> None:
    """Byte for byte, also one that Seedling wrote."""
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(PHOTO).save(buffer, kind)
        assert image_for_others(buffer.getvalue(), 64) == buffer.getvalue()
    assert image_for_others(images.encode(PHOTO), 64) == images.encode(PHOTO)


def workspace(folder: Path) -> Path:
    """Two training rows whose files have a location, one of them with a rotation tag."""
    (folder / "models/0").mkdir(parents=True)
    write_decision(folder / "models/0", accepted_round=0)
    source = "modality: image\nscrape:\n  sources:\n    - {kind: folder, path: .}\n"
    (folder / "params.yaml").write_text(source, encoding="utf-8")
    files = {"a": photograph("JPEG", 1), "b": photograph("JPEG", 6)}
    for stage in ("scrape", "validate"):
        with GenerationWriter(
            folder / "generations" / stage, stage=stage, modality="image", images=stage == "scrape"
        ) as writer:
            for label, encoded in files.items():
                payload = encoded if stage == "scrape" else None
                row = Row(
                    identify(label.encode()), "train", label=label, label_source="human", payload=payload, origin=label
                )
                writer.keep(row)
            writer.close(rows_in=2, classes=["a", "b"])
    return folder


@pytest.mark.parametrize("form", list(DatasetForm))
def test_exported_files_have_no_location_unless_requested(form: DatasetForm, tmp_path: Path) -> None:
    """As folders, as a table and for the Hub; --keep-metadata exports the original files."""
    source_workspace = workspace(tmp_path / "ws")
    for keep in (False, True):
        folder = tmp_path / f"{form}{keep}"
        export(
            source_workspace,
            folder,
            form=form,
            splits=["train"],
            include=[],
            license_name="unknown",
            keep_metadata=keep,
        )
        if form is DatasetForm.huggingface:
            from datasets import load_dataset

            rows = load_dataset("parquet", data_files=str(folder / "data" / "*.parquet"))["train"].to_list()
            files = [row["image"]["bytes"] for row in rows]
        else:
            files = [path.read_bytes() for path in folder.rglob("*.*") if path.suffix in {".png", ".jpg"}]
        assert len(files) == 2
        assert all((b"Ada Author" in encoded) is keep for encoded in files)
        sizes = sorted(Image.open(io.BytesIO(encoded)).size for encoded in files)
        assert sizes == ([(30, 20), (30, 20)] if keep else [(20, 30), (30, 20)])


def test_location_metadata_is_detected_and_reported_for_every_row() -> None:
    """In EXIF, XMP and IPTC, but not for author and camera alone or an empty GPS block.

    The code is reported even if most rows have it.
    """

    def has_location(encoded: bytes) -> bool:
        row = Row("1", "train", payload=encoded, origin="1")
        signals = check_row(row, params=ValidateParams(), config=WorkspaceConfig(modality="image")).signals
        return bool(signals["location_metadata"])

    jpeg = photograph("JPEG", has_location=False)
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x exif:GPSLatitude='48,8N'/>"
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0b\x1c\x02\x5a\0\x06Munich\0"
    empty = Image.Exif()
    empty.get_ifd(0x8825)[0] = b"\2\2\0\0"
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "JPEG", exif=empty)
    assert not has_location(jpeg)
    assert not has_location(buffer.getvalue())
    for kind in ("JPEG", "PNG", "WEBP"):
        assert has_location(photograph(kind, 6))
    assert read_metadata(exif(1).tobytes().removeprefix(b"Exif\0\0")).has_location  # as it stands in a TIFF
    for marker, content in ((b"\xff\xe1", xmp), (b"\xff\xed", iptc)):
        assert has_location(jpeg[:2] + marker + struct.pack(">H", len(content) + 2) + content + jpeg[2:])
    import pandas as pd

    codes, usual = quality(pd.DataFrame({"location_metadata": [True, True, False]}))
    assert codes == [["location_metadata"], ["location_metadata"], []]
    assert usual == {}
    assert read_metadata(b"") == read_metadata(images.encode(PHOTO))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to anna.b@example.org now", "write to [e-mail] now"),
        ("call +44 20 7946 0958 now", "call [phone] now"),
        ("call (555) 010-4477 or 555-010-4477.", "call [phone] or [phone]."),
        ("pay to GB82 WEST 1234 5698 7654 32", "pay to [account]"),
        ("card 4111 1111 1111 1111!", "card [card]!"),
        ("SSN 078-05-1120", "SSN [number]"),
        ("from 192.168.10.25", "from [IP address]"),
        ("order 12345, 3.5 kg, 2024-05-06, 1,000,000.00, version 1.2.3", None),
        ("GB82 WEST 1234 5698 7654 33", None),
    ],
)
def test_personal_data_is_masked_on_pages_unless_requested(text: str, expected: str | None) -> None:
    """Other text is unchanged."""
    assert masked(text) == (expected or text)
    assert preview(text) == {"text": expected or text}
    with personal_data_shown(True):
        assert preview(text) == {"text": text}


@pytest.mark.parametrize("where", ["in the frame", "in front of the frame"])
def test_a_damaged_gif_is_shared_with_its_pixels_and_without_its_comment(where: str) -> None:
    """A stray zero byte ends a block for a parser, while Pillow skips it; the shared file must have the frame."""
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert("P").save(buffer, "GIF", comment=b"by A. Author")
    whole = buffer.getvalue()
    frame = whole.index(b"\x2c\x00\x00\x00\x00", whole.index(b"Author"))
    offset = frame if where == "in front of the frame" else frame + 11  # behind the size of its codes
    damaged = whole[:offset] + b"\x00" + whole[offset:]
    pixels = images.decode(damaged, 64)
    assert np.array_equal(pixels, images.decode(whole, 64))
    handed = image_for_others(damaged, 64)
    assert np.array_equal(images.decode(handed, 64), pixels) and b"Author" not in handed
