"""Words: how one is mistyped, a letter for its neighbor on the keyboard, and how one is cased as another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBORS = {
    key: "".join(row[max(0, place - 1) : place] + row[place + 1 : place + 2])
    for row in KEYS
    for place, key in enumerate(row)
}


def mistyped(text: str, share: float, rng: np.random.Generator) -> str:
    """The text with typing errors in about `share` of its words, at least one; blanks are folded."""
    words = text.split()
    for _ in range(max(1, round(share * len(words)))):
        words = _one_error(words, rng)
    return " ".join(words)


def _one_error(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    """One letter becomes its neighbor on the keyboard; words with digits are left alone."""
    able = [
        place for place, word in enumerate(words) if word.isalpha() and any(one.lower() in NEIGHBORS for one in word)
    ]
    changed = list(words)
    if able:
        place = able[int(rng.integers(len(able)))]
        word = words[place]
        spots = [spot for spot, letter in enumerate(word) if letter.lower() in NEIGHBORS]
        spot = spots[int(rng.integers(len(spots)))]
        near = NEIGHBORS[word[spot].lower()]
        new = near[int(rng.integers(len(near)))]
        changed[place] = word[:spot] + (new.upper() if word[spot].isupper() else new) + word[spot + 1 :]
    return changed


def as_cased(word: str, like: str) -> str:
    """In capitals, or with one, where the other word is."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
