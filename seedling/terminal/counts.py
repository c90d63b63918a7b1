"""Counts in sentences of the terminal."""

from __future__ import annotations


def counted_noun(count: int, noun: str) -> str:
    """1 row, 2 rows, 1,000 rows."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
