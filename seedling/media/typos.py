"""Typing errors, and the case of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBORS = {
    key: "".join(row[max(0, position - 1) : position] + row[position + 1 : position + 2])
    for row in KEYS
    for position, key in enumerate(row)
}


def mistyped(text: str, share: float, rng: np.random.Generator) -> str:
    """The text with typing errors in about `share` of its words, at least one. Blanks are merged."""
    words = text.split()
    for _ in range(max(1, round(share * len(words)))):
        words = _one_error(words, rng)
    return " ".join(words)


def _one_error(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Replace one letter with its neighbor on the keyboard. Words with digits are left as they are."""
    candidates = [
        index
        for index, word in enumerate(words)
        if word.isalpha() and any(letter.lower() in NEIGHBORS for letter in word)
    ]
    changed = list(words)
    if candidates:
        index = candidates[int(rng.integers(len(candidates)))]
        word = words[index]
        positions = [position for position, letter in enumerate(word) if letter.lower() in NEIGHBORS]
        position = positions[int(rng.integers(len(positions)))]
        neighbors = NEIGHBORS[word[position].lower()]
        letter = neighbors[int(rng.integers(len(neighbors)))]
        letter = letter.upper() if word[position].isupper() else letter
        changed[index] = word[:position] + letter + word[position + 1 :]
    return changed


def as_cased(word: str, like: str) -> str:
    """The word in capitals, or with a first capital, if `like` is."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
