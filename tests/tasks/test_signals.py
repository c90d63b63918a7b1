"""What is measured in a row, against hand calculations and images made to be so."""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from seedling.media import images
from seedling.media import quality_metrics as signals
from seedling.validate.quality_flags import LIMITS, beyond, other_language, quality

RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_sides_brightness_and_entropy_by_hand() -> None:
    """Half black, half white: mean 127.5, one bit; 90 wide, 60 high."""
    half = np.zeros((60, 90, 3), np.uint8)
    half[:30] = 255
    found = signals.of_image(half)
    assert (found["width"], found["height"], found["aspect"]) == (90, 60, 1.5)
    assert found["brightness"] == 127.5
    assert found["entropy"] == pytest.approx(1.0)
    assert found["contrast"] == 255


def test_blur_rises_with_blurring_and_is_one_without_any_edge() -> None:
    """White noise is sharp; each Gaussian makes it more blurred; a plain image has no edge at all."""
    gray = cv2.cvtColor(NOISE, cv2.COLOR_RGB2GRAY)
    rising = [signals.blur(gray), *(signals.blur(cv2.GaussianBlur(gray, (0, 0), sigma)) for sigma in (1, 2, 4))]
    assert rising == sorted(rising)
    assert rising[0] < 0.2 < 0.4 < rising[-1]
    assert signals.blur(np.full((20, 20), 7, np.uint8)) == 1.0


def test_a_image_that_is_stored_turned_is_known() -> None:
    """EXIF orientation 6 is a quarter turn; an image without EXIF is as it lies."""
    plain, turned = io.BytesIO(), io.BytesIO()
    image = Image.fromarray(NOISE)
    image.save(plain, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(turned, "JPEG", exif=exif)
    assert not images.rotated_by_exif(plain.getvalue())
    assert images.rotated_by_exif(turned.getvalue())
    assert images.decode(turned.getvalue()).shape == (90, 60, 3)


@pytest.mark.parametrize(
    ("text", "found"),
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
def test_patterns_of_personal_data(text: str, found: bool) -> None:
    """Check digits count: the IBAN of ISO 13616's example and a card number of Luhn's, and both with a wrong last digit."""
    assert signals.personal_data(text) is found


def test_markup_mojibake_letters_and_language() -> None:
    """One text of each, counted by hand."""
    assert signals.of_text("a <br/> b")["markup"] and signals.of_text("a &amp; b")["markup"]
    assert not signals.of_text("1 < 2 and 3 > 2")["markup"]
    assert signals.of_text("schÃ¶n")["mojibake"] > 0 == signals.of_text("schön")["mojibake"]
    assert signals.of_text("ab 12!")["non_letters"] == pytest.approx(3 / 5)
    assert signals.of_text("Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter.")["language"] == "de"
    assert signals.of_text("ok")["language"] is None


def test_far_out_is_judged_beside_the_others_and_by_an_absolute_limit() -> None:
    """In images of about 150 one of 40 is dark; in a dark collection it is not; one of 5 is dark in both."""
    bright, dark = [150.0 + n % 9 for n in range(50)], [40.0 + n % 9 for n in range(50)]
    limit = LIMITS["dark"]
    assert beyond(np.array([*bright, 40.0, 5.0]), limit).tolist() == [False] * 50 + [True, True]
    assert beyond(np.array([*dark, 38.0, 5.0]), limit).tolist() == [False] * 51 + [True]


def test_what_many_rows_have_is_no_defect() -> None:
    """Nine of ten texts with markup: it is the collection's nature, and said so."""
    codes, usual = quality(pd.DataFrame({"markup": [True] * 9 + [False], "personal_data": [True] + [False] * 9}))
    assert codes == [["personal_data"]] + [[]] * 9
    assert usual == {"markup": 9}


def test_another_language_needs_a_main_one() -> None:
    """Two German texts among eight English ones stand out; half and half has no main language."""
    assert other_language(pd.Series(["en"] * 8 + ["de"] * 2 + [None])).tolist() == [False] * 8 + [True] * 2 + [False]
    assert not other_language(pd.Series(["en", "de"] * 4)).any()


def test_a_image_a_quarter_as_large_is_odd_and_equal_sizes_are_not() -> None:
    """Fourfold is the least: 100 × 100 among 256 × 256 stands out, 200 × 200 does not."""
    sides = [256] * 20
    for other, odd in ((100, True), (200, False)):
        frame = pd.DataFrame({"width": [*sides, other], "height": [*sides, other], "aspect": 1.0})
        assert (quality(frame)[0][-1] == ["odd_size"]) is odd


def test_entropy_of_noise_is_near_its_bound() -> None:
    """Gray levels of the mean of three uniform channels have less than the 8 bits of a uniform one, and more than 6."""
    assert 6 < signals.of_image(NOISE)["entropy"] < 8 == math.log2(256)


def test_a_long_token_costs_no_more_than_its_length() -> None:
    """A megabyte without a blank is searched for mail addresses in a moment; one at its end is found."""
    assert not signals.personal_data("a" * 1_000_000)
    assert signals.personal_data("a" * 100_000 + " me@example.org")
