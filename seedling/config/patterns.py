"""Regular expressions that users write, with a limit on the time that one search takes.

Python's own engine tries every way to match: `^(a+)+$` takes years on forty letters, and holds the interpreter meanwhile. The `regex`
package reads the same language, needs no such detour for most of it, and stops when it is told to.
"""

from __future__ import annotations

import re
from typing import Any

import regex

from seedling.errors import InputError

MAX_SECONDS_PER_SEARCH = 2.0  # of this process's computing time; a search that ends takes microseconds
MAX_PATTERN_CHARACTERS = 1_000
SHOWN_CHARACTERS = 60


class PatternTooSlow(InputError):
    """A search that was given up."""


def fault_of_pattern(pattern: str) -> str | None:
    """What is wrong with a regular expression, or None."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"has {len(pattern):,} characters, and at most {MAX_PATTERN_CHARACTERS:,} are read: make several of it"
    try:
        re.compile(pattern)
        regex.compile(pattern, regex.V0)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    return None


class Pattern:
    """A compiled expression. Raises InputError for one that cannot be read."""

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        if fault := fault_of_pattern(pattern):
            raise InputError(f"'{pattern[:SHOWN_CHARACTERS]}' {fault}.")
        self.pattern = pattern
        self._compiled = regex.compile(pattern, regex.V0 | (regex.IGNORECASE if ignore_case else 0))

    @property
    def groups(self) -> int:
        """How many groups it has."""
        return int(self._compiled.groups)

    def search(self, text: str) -> Any:
        """The first match, as `re.search` gives it, or None. Raises PatternTooSlow."""
        return self._limited(self._compiled.search, text)

    def find_all(self, text: str) -> list[Any]:
        """All matches. Raises PatternTooSlow."""
        return list(self._limited(lambda *arguments, **named: list(self._compiled.finditer(*arguments, **named)), text))

    def replace(self, replacement: str, text: str, *, count: int = 0) -> str:
        """As `re.sub`. Raises PatternTooSlow."""
        return str(
            self._limited(
                lambda limited_text, timeout: self._compiled.sub(replacement, limited_text, count, timeout=timeout),
                text,
            )
        )

    def _limited(self, search: Any, text: str) -> Any:
        try:
            return search(text, timeout=MAX_SECONDS_PER_SEARCH)
        except TimeoutError:
            raise PatternTooSlow(
                f"The regular expression '{self.pattern[:SHOWN_CHARACTERS]}' takes more than {MAX_SECONDS_PER_SEARCH:g} seconds on a text of "
                f"{len(text):,} characters that begins with {text[:SHOWN_CHARACTERS]!r}: write it without repetitions within repetitions, such as (a+)+."
            ) from None
