"""Mixup: a new picture between two, with a soft label between theirs (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tasks.images import Pixels
from tasks.randomness import generator


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows of one fold and the first one's share of the mixture, 0.5 to 1."""

    first: str
    second: str
    share: float


def draw_pairs(ids: Sequence[str], folds: Sequence[int], a_row: float, alpha: float, seed: int) -> list[Pair]:
    """`a_row` mixtures for each row in the mean, each with a partner from its own fold.

    A mixture over two folds could be held out with neither, so there is none. alpha: of the Beta distribution.
    """
    members: dict[int, list[str]] = {}
    for one, fold in sorted(zip(ids, folds, strict=True)):
        members.setdefault(fold, []).append(one)
    pairs = []
    for one, fold in zip(ids, folds, strict=True):
        rng = generator(seed, "mixup", one)
        count = int(a_row) + int(rng.random() < a_row % 1)
        partners = [other for other in members[fold] if other != one] if count else []
        for _ in range(count if partners else 0):
            share = float(rng.beta(alpha, alpha))
            pairs.append(Pair(one, partners[int(rng.integers(len(partners)))], round(max(share, 1 - share), 4)))
    return pairs


def mix(first: Pixels, second: Pixels, share: float) -> Pixels:
    """Share × first + (1 − share) × second, the second brought to the first one's size."""
    height, width = first.shape[:2]
    if second.shape != first.shape:
        second = cv2.resize(second, (width, height), interpolation=cv2.INTER_AREA)
    mixed = share * first.astype(np.float32) + (1 - share) * second.astype(np.float32)
    return np.rint(mixed).astype(np.uint8)


def mixed_label(first: str, second: str, share: float, classes: Sequence[str]) -> list[float]:
    """The soft label in the order of `classes`."""
    return [share * (one == first) + (1 - share) * (one == second) for one in classes]
