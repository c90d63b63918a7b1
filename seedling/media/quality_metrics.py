"""Quality metrics of a single row. Gates can name them as columns, and validate derives quality flags from them."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import cv2
import numpy as np

from seedling.media import images
from seedling.media.images import Pixels

IMAGE = ("width", "height", "aspect", "brightness", "contrast", "blur", "entropy")
TEXT = ("characters", "words", "non_letters", "mojibake", "language", "markup", "personal_data")

MAX_MEASURED_SIDE = 512  # pixels; larger images are reduced first, so that blur is comparable between sizes
BLUR_BOX_PIXELS = 11  # side of the box filter that blurs an image again
MIN_LETTERS = 20  # for language identification
MIN_LANGUAGE_PROBABILITY = 0.99  # langid is often confident and wrong on short texts
MAX_LANGUAGE_CHARACTERS = 1_000  # used for language identification

_TAG = re.compile(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>|&(?:[a-z]{2,8}|#\d{2,6});", re.IGNORECASE)
# Bounded repetitions keep the search linear in long tokens.
MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{0,190}[a-z]{2}", re.IGNORECASE)
PHONE = re.compile(r"(?<![\w.,])\+\d[\d ()./-]{7,17}\d(?!\w)|(?<![\w.,])0\d{2,4}[ /-]\d{5,9}(?!\w)")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")


def image_metrics(pixels: Pixels) -> dict[str, float]:
    """The metrics in `IMAGE`.

    width and height in pixels; aspect: width / height; brightness: mean gray level, 0 to 255; contrast: range of
    levels, 0 to 255; blur: 0 (sharp) to 1 (blurred); entropy of the gray levels: -sum p log2 p, 0 to 8 bits.
    """
    height, width = pixels.shape[:2]
    gray = cv2.cvtColor(images.shrunk(pixels, MAX_MEASURED_SIDE), cv2.COLOR_RGB2GRAY)
    levels = np.bincount(gray.ravel(), minlength=256) / gray.size
    levels = levels[levels > 0]
    return {
        "width": width,
        "height": height,
        "aspect": width / height,
        "brightness": float(gray.mean()),
        "contrast": images.contrast(pixels),
        "blur": blur(gray),
        "entropy": max(0.0, float(-(levels * np.log2(levels)).sum())),
    }


def blur(gray: Any) -> float:
    """The blur of an image, 0 (sharp) to 1 (blurred), by Crété-Roffet et al. (2007).

    With the differences d between neighboring pixels, and d' after the image is blurred again, it is
    1 - sum max(0, |d| - |d'|) / sum |d|: blurring an image that is already blurred removes little. The larger value of
    the two directions counts. An image without differences has a blur of 1.

    gray: (height, width).
    """
    result = 0.0
    image = gray.astype(np.float32)
    for axis, box in ((0, (1, BLUR_BOX_PIXELS)), (1, (BLUR_BOX_PIXELS, 1))):
        if image.shape[axis] < 2:
            continue
        blurred = cv2.blur(image, box, borderType=cv2.BORDER_REFLECT)
        before, after = np.abs(np.diff(image, axis=axis)), np.abs(np.diff(blurred, axis=axis))
        total = float(before.sum(dtype=np.float64))
        lost = float(np.maximum(before - after, 0).sum(dtype=np.float64))
        result = max(result, (total - lost) / total if total else 1.0)
    return result


def text_metrics(text: str) -> dict[str, Any]:
    """The metrics in `TEXT`.

    characters, words: the lengths; non_letters: the share of non-blank characters that are not letters; mojibake:
    broken encodings per character; language: ISO 639 code, None if the text is too short; markup, personal_data:
    whether the text contains markup, or a pattern of an e-mail address, a telephone, a bank account or a card number.
    """
    from ftfy.badness import badness

    letters = sum(character.isalpha() for character in text)
    blanks = sum(character.isspace() for character in text)
    return {
        **lengths(text),
        "non_letters": (len(text) - letters - blanks) / max(1, len(text) - blanks),
        "mojibake": badness(text) / max(1, len(text)),
        "language": language(text) if letters >= MIN_LETTERS else None,
        "markup": _TAG.search(text) is not None,
        "personal_data": personal_data(text),
    }


def lengths(text: str) -> dict[str, int]:
    """The lengths of a text in characters and in words."""
    return {"characters": len(text), "words": len(text.split())}


def language(text: str) -> str | None:
    """The ISO 639 code of the text's language (langid, Lui and Baldwin 2012); None if its probability is too small."""
    code, probability = _identifier().classify(text[:MAX_LANGUAGE_CHARACTERS])
    return str(code) if probability >= MIN_LANGUAGE_PROBABILITY else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def personal_data(text: str) -> bool:
    """Whether the text matches a pattern of an e-mail address, a telephone, a bank account or a card number."""
    if MAIL.search(text) or PHONE.search(text):
        return True
    if any(has_iban_check_digits(match.group()) for match in IBAN.finditer(text)):
        return True
    return any(has_card_check_digit(match.group()) for match in CARD.finditer(text))


def has_iban_check_digits(candidate: str) -> bool:
    """Whether the check digits of an IBAN are valid (ISO 13616).

    The first four characters move to the end, letters become numbers from 10 (A) to 35 (Z), and the result modulo 97 is
    1.
    """
    account = candidate.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1


def has_card_check_digit(candidate: str) -> bool:
    """Whether the check digit of a card number is valid (ISO/IEC 7812).

    From the right, every second digit is doubled and replaced by the sum of its digits; the total is divisible by 10.
    """
    digits = re.sub(r"\D", "", candidate)
    from_right = [int(digit) for digit in reversed(digits)]
    doubled = [sum(divmod(2 * digit, 10)) for digit in from_right[1::2]]
    return len(set(digits)) > 1 and (sum(from_right[::2]) + sum(doubled)) % 10 == 0
