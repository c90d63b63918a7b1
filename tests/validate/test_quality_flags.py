"""Quality metrics and flags, against hand calculations and constructed images."""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from seedling.media import images
from seedling.media import quality_metrics as metrics
from seedling.media.image_metadata import UPRIGHT, read_metadata
from seedling.validate.quality_flags import LIMITS, beyond, other_language, quality

RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_sides_brightness_and_entropy_by_hand() -> None:
    """Half black, half white: mean 127.5, one bit; 90 wide, 60 high."""
    half = np.zeros((60, 90, 3), np.uint8)
    half[:30] = 255
    measured = metrics.image_metrics(half)
    assert (measured["width"], measured["height"], measured["aspect"]) == (90, 60, 1.5)
    assert measured["brightness"] == 127.5
    assert measured["entropy"] == pytest.approx(1.0)
    assert measured["contrast"] == 255


def test_blur_rises_with_blurring_and_is_one_without_any_edge() -> None:
    """White noise is sharp, each Gaussian filter increases its blur, and a plain image has no edge."""
    gray = cv2.cvtColor(NOISE, cv2.COLOR_RGB2GRAY)
    rising = [metrics.blur(gray), *(metrics.blur(cv2.GaussianBlur(gray, (0, 0), sigma)) for sigma in (1, 2, 4))]
    assert rising == sorted(rising)
    assert rising[0] < 0.2 < 0.4 < rising[-1]
    assert metrics.blur(np.full((20, 20), 7, np.uint8)) == 1.0


def test_an_image_that_is_stored_rotated_is_detected() -> None:
    """EXIF orientation 6 is a rotation by 90 degrees; an image without EXIF is upright."""
    plain, rotated = io.BytesIO(), io.BytesIO()
    image = Image.fromarray(NOISE)
    image.save(plain, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(rotated, "JPEG", exif=exif)
    assert read_metadata(plain.getvalue()).orientation == UPRIGHT
    assert read_metadata(rotated.getvalue()).orientation != UPRIGHT
    assert images.decode(rotated.getvalue()).shape == (90, 60, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to anna.b@example.org", True),
        ("call +44 20 7946 0958 now", True),
        ("GB82 WEST 1234 5698 7654 32", True),
        ("GB82 WEST 1234 5698 7654 33", False),
        ("card 4111 1111 1111 1111", True),
        ("card 4111 1111 1111 1112", False),
        ("order 12345, 3.5 kg, 2024-05-06", False),
        ("0000 0000 0000 0000", False),
    ],
)
def test_patterns_of_personal_data(text: str, expected: bool) -> None:
    """Check digits matter: the example IBAN of ISO 13616 and a card number, and both with a wrong last digit."""
    assert metrics.personal_data(text) is expected


def test_markup_mojibake_letters_and_language() -> None:
    """One text of each kind, counted by hand."""
    assert metrics.text_metrics("a <br/> b")["markup"] and metrics.text_metrics("a &amp; b")["markup"]
    assert not metrics.text_metrics("1 < 2 and 3 > 2")["markup"]
    assert metrics.text_metrics("schÃ¶n")["mojibake"] > 0 == metrics.text_metrics("schön")["mojibake"]
    assert metrics.text_metrics("ab 12!")["non_letters"] == pytest.approx(3 / 5)
    assert metrics.text_metrics("Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter.")["language"] == "de"
    assert metrics.text_metrics("ok")["language"] is None


def test_a_value_is_flagged_as_an_outlier_or_by_an_absolute_limit() -> None:
    """A brightness of 40 is dark among images of about 150, but not in a dark collection; 5 is dark in both."""
    bright, dark = [150.0 + n % 9 for n in range(50)], [40.0 + n % 9 for n in range(50)]
    limit = LIMITS["dark"]
    assert beyond(np.array([*bright, 40.0, 5.0]), limit).tolist() == [False] * 50 + [True, True]
    assert beyond(np.array([*dark, 38.0, 5.0]), limit).tolist() == [False] * 51 + [True]


def test_what_many_rows_have_is_not_a_defect() -> None:
    """Nine of ten texts have markup: it is reported as usual in this collection."""
    codes, usual = quality(pd.DataFrame({"markup": [True] * 9 + [False], "personal_data": [True] + [False] * 9}))
    assert codes == [["personal_data"]] + [[]] * 9
    assert usual == {"markup": 9}


def test_another_language_needs_a_main_one() -> None:
    """Two German texts among eight English ones are flagged; with half of each there is no main language."""
    assert other_language(pd.Series(["en"] * 8 + ["de"] * 2 + [None])).tolist() == [False] * 8 + [True] * 2 + [False]
    assert not other_language(pd.Series(["en", "de"] * 4)).any()


def test_an_image_with_less_than_a_quarter_of_the_pixels_is_odd() -> None:
    """The minimum ratio is four: 100 × 100 among 256 × 256 is flagged, 200 × 200 is not."""
    sides = [256] * 20
    for other, odd in ((100, True), (200, False)):
        frame = pd.DataFrame({"width": [*sides, other], "height": [*sides, other], "aspect": 1.0})
        assert (quality(frame)[0][-1] == ["odd_size"]) is odd


def test_entropy_of_noise_is_near_its_bound() -> None:
    """The mean of three uniform channels has less entropy than the 8 bits of a uniform one, and more than 6."""
    assert 6 < metrics.image_metrics(NOISE)["entropy"] < 8 == math.log2(256)


def test_the_search_for_personal_data_is_linear_in_a_long_token() -> None:
    """A megabyte without a blank is searched quickly for e-mail addresses; one at the end is found."""
    assert not metrics.personal_data("a" * 1_000_000)
    assert metrics.personal_data("a" * 100_000 + " me@example.org")
