"""Mask possible personal data in texts on pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from seedling.media.quality_metrics import CARD, IBAN, MAIL, PHONE, has_card_check_digit, has_iban_check_digits

MAX_MASKED_CHARACTERS = 2_000  # of a text; pages show fewer
LOCAL_PHONE = re.compile(r"(?<![\w.,-])\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?![\w-])")
IP_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)")
SOCIAL_SECURITY_NUMBER = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")

_shows_personal_data: ContextVar[bool] = ContextVar("shows_personal_data", default=False)


@contextmanager
def personal_data_shown(enabled: bool) -> Iterator[None]:
    """Let pages show texts as they are, or masked, within the block."""
    token = _shows_personal_data.set(enabled)
    try:
        yield
    finally:
        _shows_personal_data.reset(token)


def as_shown(text: str) -> str:
    """The text for a page, cut to MAX_MASKED_CHARACTERS and masked unless personal data is shown."""
    cut = text[:MAX_MASKED_CHARACTERS]
    return cut if _shows_personal_data.get() else masked(cut)


def masked(text: str) -> str:
    """Replace possible personal data with placeholders such as [e-mail].

    Patterns find e-mail addresses, telephone numbers, bank account and card numbers, social security numbers and IP
    addresses. They may miss some and match other texts.
    """
    text = MAIL.sub("[e-mail]", text)
    text = IBAN.sub(lambda match: "[account]" if has_iban_check_digits(match[0]) else match[0], text)
    text = CARD.sub(lambda match: "[card]" if has_card_check_digit(match[0]) else match[0], text)
    text = SOCIAL_SECURITY_NUMBER.sub("[number]", text)
    text = IP_ADDRESS.sub("[IP address]", text)
    for pattern in (PHONE, LOCAL_PHONE):
        text = pattern.sub("[phone]", text)
    return text
