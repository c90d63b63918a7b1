"""Masks what looks like personal data in texts that are shown on pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from seedling.media.quality_metrics import CARD, IBAN, MAIL, PHONE, has_card_check_digit, has_iban_check_digits

MAX_MASKED_CHARACTERS = 2_000  # of a text; pages show far fewer
LOCAL_PHONE = re.compile(r"(?<![\w.,-])\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?![\w-])")
IP_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)")
SOCIAL_SECURITY_NUMBER = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")

_shows_personal_data: ContextVar[bool] = ContextVar("shows_personal_data", default=False)


@contextmanager
def personal_data_shown(shown: bool) -> Iterator[None]:
    """Within the block pages show texts as they are, or masked."""
    before = _shows_personal_data.set(shown)
    try:
        yield
    finally:
        _shows_personal_data.reset(before)


def as_shown(text: str) -> str:
    """The text for a page, cut to MAX_MASKED_CHARACTERS: masked, unless personal data is to be shown."""
    cut = text[:MAX_MASKED_CHARACTERS]
    return cut if _shows_personal_data.get() else masked(cut)


def masked(text: str) -> str:
    """The text with signs such as [e-mail] in place of what looks like a mail address, a telephone, account, card or social security
    number, or an IP address: patterns, no proof.
    """
    text = MAIL.sub("[e-mail]", text)
    text = IBAN.sub(lambda found: "[account]" if has_iban_check_digits(found[0]) else found[0], text)
    text = CARD.sub(lambda found: "[card]" if has_card_check_digit(found[0]) else found[0], text)
    text = SOCIAL_SECURITY_NUMBER.sub("[number]", text)
    text = IP_ADDRESS.sub("[IP address]", text)
    for pattern in (PHONE, LOCAL_PHONE):
        text = pattern.sub("[phone]", text)
    return text
