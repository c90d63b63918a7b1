"""New images between two, with a soft label between theirs: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from seedling.media.images import Pixels
from seedling.stats.randomness import generator

Partners = Literal["any", "same_class", "other_class"]
LEAST_CUT = 0.02  # share of the area: a smaller piece cannot be seen, and its label could not be learnt


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows of one fold and the first one's share of the mixture, 0.5 to 1."""

    first: str
    second: str
    share: float


def draw_pairs(
    ids: Sequence[str],
    folds: Sequence[int],
    a_row: float,
    alpha: float,
    seed: int,
    *,
    way: str = "mixup",
    labels: Sequence[str] = (),
    partners: Partners = "any",
) -> list[Pair]:
    """`a_row` mixtures for each row in the mean, each with a partner from its own fold.

    A mixture over two folds could be held out with neither, so there is none. alpha: of the Beta distribution; way: what the draws are for;
    labels: (n_rows,), for partners of the same class, or of another one.
    """
    members: dict[int, list[int]] = {}
    for row, (_, fold) in sorted(enumerate(zip(ids, folds, strict=True)), key=lambda one: one[1]):
        members.setdefault(fold, []).append(row)

    def fits(row: int, other: int) -> bool:
        return row != other and (partners == "any" or (labels[row] == labels[other]) == (partners == "same_class"))

    pairs = []
    for row, (one, fold) in enumerate(zip(ids, folds, strict=True)):
        rng = generator(seed, way, one)
        count = int(a_row) + int(rng.random() < a_row % 1)
        able = [other for other in members[fold] if fits(row, other)] if count else []
        for _ in range(count if able else 0):
            share = float(rng.beta(alpha, alpha))
            pairs.append(Pair(one, ids[able[int(rng.integers(len(able)))]], round(max(share, 1 - share), 4)))
    return pairs


def mix(first: Pixels, second: Pixels, share: float) -> Pixels:
    """Share × first + (1 − share) × second, the second brought to the first one's size."""
    second = _like(second, first)
    mixed = share * first.astype(np.float32) + (1 - share) * second.astype(np.float32)
    return np.rint(mixed).astype(np.uint8)


def cut_in(first: Pixels, second: Pixels, share: float, rng: np.random.Generator) -> tuple[Pixels, float, list[int]]:
    """The first with a rectangle of the second in it, the share of the area that is still the first one's, and where: top, left, height, width.

    The rectangle has the image's shape and (1 − share) of its area, and lies anywhere within it; it comes from the same place of the second, which is
    brought to the first one's size.
    """
    height, width = first.shape[:2]
    side = float(np.sqrt(1 - share))
    high, wide = max(1, round(height * side)), max(1, round(width * side))
    top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
    cut = first.copy()
    cut[top : top + high, left : left + wide] = _like(second, first)[top : top + high, left : left + wide]
    return cut, 1 - high * wide / (height * width), [top, left, high, wide]


def _like(image: Pixels, other: Pixels) -> Pixels:
    if image.shape == other.shape:
        return image
    size = (other.shape[1], other.shape[0])
    changed: Pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return changed


def mixed_label(first: str, second: str, share: float, classes: Sequence[str]) -> list[float]:
    """The soft label in the order of `classes`."""
    return [share * (one == first) + (1 - share) * (one == second) for one in classes]
