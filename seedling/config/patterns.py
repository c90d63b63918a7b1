"""Regular expressions from users, with a time limit for each search.

Python's `re` backtracks: `^(a+)+$` takes years on forty letters and blocks the interpreter meanwhile. The `regex`
package supports the same syntax, avoids most of this backtracking, and has a timeout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import regex

from seedling.errors import InputError

MAX_SECONDS_PER_SEARCH = 2.0  # CPU time of this process; a normal search takes microseconds
MAX_PATTERN_CHARACTERS = 1_000
MAX_QUOTED_CHARACTERS = 60

_max_seconds: ContextVar[float] = ContextVar("max_seconds", default=MAX_SECONDS_PER_SEARCH)


@contextmanager
def limiting_searches(seconds: float) -> Iterator[None]:
    """Limit each search in this thread to so many seconds within the block."""
    token = _max_seconds.set(seconds)
    try:
        yield
    finally:
        _max_seconds.reset(token)


class PatternTooSlow(InputError):
    """A search exceeded the time limit."""


def pattern_fault(pattern: str) -> str | None:
    """Describe what is wrong with a regular expression; None if it is valid."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return (
            f"has {len(pattern):,} characters, the limit is {MAX_PATTERN_CHARACTERS:,}: split it into several patterns"
        )
    try:
        re.compile(pattern)
        regex.compile(pattern, regex.V0)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    return None


class Pattern:
    """A compiled regular expression. Raises InputError if the expression is not valid."""

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        if fault := pattern_fault(pattern):
            raise InputError(f"'{pattern[:MAX_QUOTED_CHARACTERS]}' {fault}.")
        self.pattern = pattern
        self._compiled = regex.compile(pattern, regex.V0 | (regex.IGNORECASE if ignore_case else 0))

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self._compiled.groups)

    def search(self, text: str) -> Any:
        """Return the first match, as `re.search` does, or None. Raises PatternTooSlow."""
        return self._limited(self._compiled.search, text)

    def find_all(self, text: str) -> list[Any]:
        """Return all matches. Raises PatternTooSlow."""
        return list(
            self._limited(lambda *arguments, **options: list(self._compiled.finditer(*arguments, **options)), text)
        )

    def replace(self, replacement: str, text: str, *, count: int = 0) -> str:
        """Replace matches, as `re.sub` does. Raises PatternTooSlow."""
        return str(
            self._limited(
                lambda limited_text, timeout: self._compiled.sub(replacement, limited_text, count, timeout=timeout),
                text,
            )
        )

    def _limited(self, search: Any, text: str) -> Any:
        max_seconds = _max_seconds.get()
        try:
            return search(text, timeout=max_seconds)
        except TimeoutError:
            raise PatternTooSlow(
                f"The regular expression '{self.pattern[:MAX_QUOTED_CHARACTERS]}' takes more than "
                f"{max_seconds:g} seconds on a text of {len(text):,} characters that begins with "
                f"{text[:MAX_QUOTED_CHARACTERS]!r}: write it without nested repetitions such as (a+)+."
            ) from None
