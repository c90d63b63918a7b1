"""What can be measured in one row by itself: columns that gates may ask for, and by which a row's health is judged."""

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

LONGEST = 512  # pixels: larger images are brought down before they are measured, so that blur means the same in all
SPAN = 11  # pixels of the box with which an image is blurred once more
ENOUGH_LETTERS = 20  # below, no language is guessed
SURE = 0.99  # of a language: langid is often sure and wrong where a text is short
FIRST_CHARACTERS = 1_000  # of a text are enough to guess its language

_TAG = re.compile(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>|&(?:[a-z]{2,8}|#\d{2,6});", re.IGNORECASE)
MAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{0,190}[a-z]{2}", re.IGNORECASE
)  # bounded: long tokens cost no more
PHONE = re.compile(r"(?<![\w.,])\+\d[\d ()./-]{7,17}\d(?!\w)|(?<![\w.,])0\d{2,4}[ /-]\d{5,9}(?!\w)")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")


def of_image(pixels: Pixels) -> dict[str, float]:
    """`PICTURE`: sides in pixels, width over height, mean gray level and range of levels (0 to 255), blur (0 sharp to 1
    blurred), and the entropy of the gray levels (0 to 8 bits).
    """
    height, width = pixels.shape[:2]
    gray = cv2.cvtColor(images.shrunk(pixels, LONGEST), cv2.COLOR_RGB2GRAY)
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
    """0 (sharp) to 1 (blurred): how little an image's differences between neighbors lose when it is blurred once more
    (Crété-Roffet et al. 2007); the worse of both directions. 1 of an image without any difference. gray: (height, width).
    """
    found = 0.0
    image = gray.astype(np.float32)
    for axis, box in ((0, (1, SPAN)), (1, (SPAN, 1))):
        if image.shape[axis] < 2:
            continue
        softer = cv2.blur(image, box, borderType=cv2.BORDER_REFLECT)
        before, after = np.abs(np.diff(image, axis=axis)), np.abs(np.diff(softer, axis=axis))
        whole = float(before.sum(dtype=np.float64))
        lost = float(np.maximum(before - after, 0).sum(dtype=np.float64))
        found = max(found, (whole - lost) / whole if whole else 1.0)
    return found


def of_text(text: str) -> dict[str, Any]:
    """`TEXT`: lengths, the share of characters that are neither letters nor blanks, broken encodings for each character
    (mojibake), the language's ISO 639 code (None where too little is said to tell), and whether markup or a pattern of
    personal data (mail address, telephone, bank account or card number) is in it.
    """
    from ftfy.badness import badness

    letters = sum(one.isalpha() for one in text)
    blanks = sum(one.isspace() for one in text)
    return {
        **lengths(text),
        "non_letters": (len(text) - letters - blanks) / max(1, len(text) - blanks),
        "mojibake": badness(text) / max(1, len(text)),
        "language": language(text) if letters >= ENOUGH_LETTERS else None,
        "markup": _TAG.search(text) is not None,
        "personal_data": personal_data(text),
    }


def lengths(text: str) -> dict[str, int]:
    """Of a text, in characters and in words."""
    return {"characters": len(text), "words": len(text.split())}


def language(text: str) -> str | None:
    """The ISO 639 code of the language that the text is surely in (langid, Lui and Baldwin 2012); None where it is not sure."""
    code, sure = _identifier().classify(text[:FIRST_CHARACTERS])
    return str(code) if sure >= SURE else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def personal_data(text: str) -> bool:
    """Whether a mail address, a telephone number, a bank account's or a card's number seems to be in it: a pattern, no proof."""
    if MAIL.search(text) or PHONE.search(text):
        return True
    if any(has_iban_check_digits(one.group()) for one in IBAN.finditer(text)):
        return True
    return any(has_card_check_digit(one.group()) for one in CARD.finditer(text))


def has_iban_check_digits(found: str) -> bool:
    """Whether an IBAN's check digits are right (ISO 13616): moved behind, letters as numbers from 10, the rest by 97 is 1."""
    account = found.replace(" ", "")
    return int("".join(str(int(one, 36)) for one in account[4:] + account[:4])) % 97 == 1


def has_card_check_digit(found: str) -> bool:
    """Whether a card number's check digit is right (ISO/IEC 7812): every second digit doubled, its digits summed, divisible by 10."""
    digits = re.sub(r"\D", "", found)
    turned = [int(one) for one in reversed(digits)]
    doubled = [sum(divmod(2 * one, 10)) for one in turned[1::2]]
    return len(set(digits)) > 1 and (sum(turned[::2]) + sum(doubled)) % 10 == 0
