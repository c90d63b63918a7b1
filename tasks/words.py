"""Texts changed by word-level operations (Wei & Zou 2019, "EDA"; typos by neighbouring keys)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    key: "".join(row[max(0, place - 1) : place] + row[place + 1 : place + 2])
    for row in KEYS
    for place, key in enumerate(row)
}


def change_words(text: str, operation: str, share: float, rng: np.random.Generator) -> str:
    """The text after one operation on about `share` of its words, at least one of them.

    operation: `swap` (two neighbouring words), `delete` (never the last word left) or `typo` (a neighbouring key).
    """
    words = text.split()
    changes = max(1, round(share * len(words)))
    for _ in range(changes):
        words = {"swap": swap, "delete": delete, "typo": typo}[operation](words, rng)
    return " ".join(words)


def swap(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Two neighbouring words change places."""
    changed = list(words)
    if len(changed) > 1:
        place = int(rng.integers(len(changed) - 1))
        changed[place], changed[place + 1] = changed[place + 1], changed[place]
    return changed


def delete(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    """One word goes; of two words or fewer none does."""
    if len(words) < 3:
        return list(words)
    gone = int(rng.integers(len(words)))
    return [word for place, word in enumerate(words) if place != gone]


def typo(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    """One letter becomes its neighbour on the keyboard; words with digits are left alone."""
    able = [
        place for place, word in enumerate(words) if word.isalpha() and any(one.lower() in NEIGHBOURS for one in word)
    ]
    changed = list(words)
    if able:
        place = able[int(rng.integers(len(able)))]
        word = words[place]
        spots = [spot for spot, letter in enumerate(word) if letter.lower() in NEIGHBOURS]
        spot = spots[int(rng.integers(len(spots)))]
        near = NEIGHBOURS[word[spot].lower()]
        new = near[int(rng.integers(len(near)))]
        changed[place] = word[:spot] + (new.upper() if word[spot].isupper() else new) + word[spot + 1 :]
    return changed
