"""Images: which are decoded, and which are rejected with which reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from seedling.media import images

RNG = np.random.default_rng(5)
PHOTO = RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF", "JPEG"])
def test_every_supported_format_is_decoded(kind: str) -> None:
    """The result is (height, width, 3), and lossless formats keep the pixels."""
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = images.decode(saved(Image.fromarray(PHOTO), kind, **options))
    assert pixels.shape == (20, 30, 3)
    if kind in {"PNG", "BMP", "WEBP"}:
        assert (pixels == PHOTO).all()


def test_the_same_pixels_are_the_same_content_in_any_lossless_format() -> None:
    """A PNG and a BMP of one image have the same content bytes."""
    decoded = [images.decode(saved(Image.fromarray(PHOTO), kind)) for kind in ("PNG", "BMP")]
    assert images.content(decoded[0]) == images.content(decoded[1])


def test_a_large_jpeg_for_a_small_view_is_decoded_at_half_its_size() -> None:
    """2,000 pixels for a view of 900: 1,000 are decoded, and the view differs by rounding; a PNG is decoded whole."""
    photograph = Image.linear_gradient("L").resize((2000, 1000)).convert("RGB")
    jpeg = saved(photograph, "JPEG")
    reduced = images.decode(jpeg, longest=900)
    assert reduced.shape == (500, 1000, 3)
    whole = images.shrunk(images.decode(jpeg), 900)
    assert np.abs(images.shrunk(reduced, 900).astype(int) - whole).max() <= 2
    assert images.decode(jpeg, longest=1100).shape == images.decode(jpeg, longest=9000).shape == (1000, 2000, 3)
    assert images.decode(saved(photograph, "PNG"), longest=900).shape == (1000, 2000, 3)


def test_a_gif_gives_its_first_frame() -> None:
    """The first frame is red, the second blue."""
    red, blue = Image.new("RGB", (9, 9), (255, 0, 0)), Image.new("RGB", (9, 9), (0, 0, 255))
    pixels = images.decode(saved(red, "GIF", save_all=True, append_images=[blue]))
    assert tuple(pixels[4, 4]) == (255, 0, 0)


def test_transparency_becomes_white() -> None:
    """A fully transparent image is white, not black."""
    pixels = images.decode(saved(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG"))
    assert (pixels == 255).all()


def test_the_exif_orientation_is_applied() -> None:
    """Orientation 6 rotates the stored image clockwise by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = images.decode(saved(Image.fromarray(PHOTO), "PNG", exif=exif))
    assert (pixels == np.rot90(PHOTO, -1)).all()


def test_sixteen_bit_gray_keeps_its_upper_eight_bits() -> None:
    """65,535 becomes white, whatever the brightest value of the image is: 30,000 = 117 * 256 + 48."""
    deep = np.tile(np.array([0, 30000, 60000], np.uint16), (9, 3))
    pixels = images.decode(saved(Image.fromarray(deep), "PNG"))
    assert pixels[0, :3, 0].tolist() == [0, 117, 234]


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty_file"),
        (b"no image at all", "undecodable"),
        (saved(Image.fromarray(PHOTO), "JPEG")[:200], "undecodable"),
        (saved(Image.new("1", (30_000, 30_000)), "PNG"), "too_many_pixels"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "undecodable"),
    ],
    ids=["empty", "text", "truncated", "bomb", "svg"],
)
def test_unusable_images_are_rejected_with_a_reason(encoded: bytes, reason: str) -> None:
    """A decompression bomb is rejected by its header, before any pixel is decoded."""
    with pytest.raises(images.Undecodable, match=f"^{reason}$"):
        images.decode(encoded)


def test_encoding_is_lossless() -> None:
    """Color and gray images keep their pixels."""
    for pixels in (PHOTO, np.repeat(PHOTO[..., :1], 3, axis=2)):
        assert (images.decode(images.encode(pixels)) == pixels).all()


def test_a_slightly_changed_image_has_a_near_hash_and_another_image_does_not() -> None:
    """A slightly brighter image changes at most 3 of 64 bits; another image changes more than 10."""
    smooth = np.asarray(Image.fromarray(PHOTO).resize((64, 64), Image.Resampling.BICUBIC))
    brighter = np.clip(smooth.astype(int) + 4, 0, 255).astype(np.uint8)
    other = np.ascontiguousarray(smooth[::-1, ::-1])
    base = images.perceptual_hash(smooth)
    assert (base ^ images.perceptual_hash(brighter)).bit_count() <= 3
    assert (base ^ images.perceptual_hash(other)).bit_count() > 10


def test_the_views_of_a_wide_image_by_hand() -> None:
    """112 rows, 224 columns: red, then blue at both ends, each an eighth of the width; green above and below.

    `whole` has all of it; `padded` has it on 4 of 8 rows, with the border repeated; `center` has 98 of its 112 rows and
    columns, so neither blue nor green.
    """
    image = np.zeros((112, 224, 3), np.uint8)
    image[:, :, 0] = 255
    image[:7] = image[-7:] = (0, 255, 0)
    image[:, :28] = image[:, -28:] = (0, 0, 255)
    whole, padded, center = (images.view_of(image, view, 112, 112) for view in ("whole", "padded", "center"))
    assert whole.shape == padded.shape == center.shape == (112, 112, 3)
    assert (
        (whole[:, :14, 2] == 255).all() and (whole[:7, 14:98, 1] == 255).all() and (whole[7:105, 14:98, 0] == 255).all()
    )
    np.testing.assert_array_equal(padded[28:84], images.resized(image, 112, 56))
    assert (padded[:28] == padded[28]).all() and (padded[84:] == padded[83]).all()
    assert (center == (255, 0, 0)).all()


@pytest.mark.parametrize("shape", [(1, 5_000), (5_000, 1), (1, 1), (3, 2), (224, 224)])
@pytest.mark.parametrize("view", ["whole", "padded", "center"])
def test_an_image_of_any_shape_has_each_view(view: images.View, shape: tuple[int, int]) -> None:
    """Also one that is a single row, a single column or a single pixel."""
    pixels = np.full((*shape, 3), 7, np.uint8)
    assert (images.view_of(pixels, view, 200, 224) == 7).all()
    assert images.view_of(pixels, view, 200, 224).shape == (224, 200, 3)
