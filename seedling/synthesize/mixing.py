"""Mixed images with a soft label: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from seedling.media.images import Pixels
from seedling.stats.randomness import generator

Partners = Literal["any", "same_class", "other_class"]
MIN_CUT_SHARE = 0.02  # of the area: a smaller rectangle is invisible, so its label cannot be learned


@dataclass(frozen=True, slots=True)
class Pair:
    """Two row ids of one fold, and the share of the first in the mixed image, 0.5 to 1."""

    first: str
    second: str
    share: float


def draw_pairs(  # noqa: PLR0913  (the rows, and the parameters of one method, most of them by name)
    ids: Sequence[str],
    folds: Sequence[int],
    per_row: float,
    alpha: float,
    seed: int,
    *,
    method: str = "mixup",
    labels: Sequence[str] = (),
    partners: Partners = "any",
) -> list[Pair]:
    """Draw `per_row` pairs per row on average, each with a partner of the same fold.

    A row mixed from two folds could be held out with neither, so pairs do not cross folds. share ~ Beta(alpha, alpha),
    mirrored to 0.5 or more. method: seeds the draws; labels: (n_rows,), for partners of the same or of another class.
    """
    fold_members: dict[int, list[int]] = {}
    for row, (_, fold) in sorted(enumerate(zip(ids, folds, strict=True)), key=lambda item: item[1]):
        fold_members.setdefault(fold, []).append(row)

    def may_pair(row: int, other: int) -> bool:
        return row != other and (partners == "any" or (labels[row] == labels[other]) == (partners == "same_class"))

    pairs = []
    for row, (row_id, fold) in enumerate(zip(ids, folds, strict=True)):
        rng = generator(seed, method, row_id)
        count = int(per_row) + int(rng.random() < per_row % 1)
        candidates = [other for other in fold_members[fold] if may_pair(row, other)] if count else []
        for _ in range(count if candidates else 0):
            share = float(rng.beta(alpha, alpha))
            partner = candidates[int(rng.integers(len(candidates)))]
            pairs.append(Pair(row_id, ids[partner], round(max(share, 1 - share), 4)))
    return pairs


def mix(first: Pixels, second: Pixels, share: float) -> Pixels:
    """Return share * first + (1 - share) * second, with the second resized to the first."""
    second = _resized_like(second, first)
    mixed = share * first.astype(np.float32) + (1 - share) * second.astype(np.float32)
    return np.rint(mixed).astype(np.uint8)


def cut_in(first: Pixels, second: Pixels, share: float, rng: np.random.Generator) -> tuple[Pixels, float, list[int]]:
    """Paste a rectangle of the second image into the first.

    The rectangle has the aspect ratio of the image, 1 - share of its area, and a random position; it comes from the
    same position of the second image, resized to the first. Returns the image, the exact share of the area that remains
    of the first, and the rectangle: top, left, height, width.
    """
    height, width = first.shape[:2]
    side = float(np.sqrt(1 - share))
    high, wide = max(1, round(height * side)), max(1, round(width * side))
    top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
    pasted = first.copy()
    pasted[top : top + high, left : left + wide] = _resized_like(second, first)[top : top + high, left : left + wide]
    return pasted, 1 - high * wide / (height * width), [top, left, high, wide]


def _resized_like(image: Pixels, reference: Pixels) -> Pixels:
    if image.shape == reference.shape:
        return image
    size = (reference.shape[1], reference.shape[0])
    resized: Pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return resized


def mixed_label(first: str, second: str, share: float, classes: Sequence[str]) -> list[float]:
    """Return the soft label in the order of `classes`: `share` for the first, 1 - `share` for the second."""
    return [share * (label == first) + (1 - share) * (label == second) for label in classes]
