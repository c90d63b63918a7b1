"""What becomes of the accuracy where images are worse and texts are typed in haste: the same rows, changed and judged again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from seedling.config.params import EvaluateParams
from seedling.dataset.generation import Modality
from seedling.media import images
from seedling.media.images import Pixels
from seedling.media.typos import mistyped
from seedling.models.model import TrainedModel
from seedling.progress import Progress
from seedling.stats.randomness import generator
from seedling.stats.statistics import paired_difference

ROWS = {"quick": 100, "normal": 200, "thorough": 1_000}
NOISE = 25.0  # standard deviation in levels
BLUR = 0.02  # standard deviation as a share of the longer side
JPEG = 20  # quality
GLARE = 1 / 6  # standard deviation as a share of the longer side
LONGEST = 512  # pixels, to which images are brought before they are changed: changes are the same for all, and cost no more for large ones
AT_ONCE = 32
TYPING = 0.1  # share of the words with a typing error

Change = Callable[[Any, np.random.Generator], Any]
Rows = Callable[[], Iterable[tuple[str, bytes | str]]]  # (id, encoded image or text) of each, always in the same order


def _noisy(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.clip(pixels + rng.normal(scale=NOISE, size=pixels.shape), 0, 255).astype(np.uint8)


def _blurred(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(0.5, BLUR * max(pixels.shape[:2]))), dtype=np.uint8)


def _compressed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return images.decode(images.compressed(pixels, JPEG))


def _small(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    half = images.shrunk(pixels, max(1, max(pixels.shape[:2]) // 2))
    return np.asarray(cv2.resize(half, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _glaring(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A bright spot, round, of a sixth of the longer side, anywhere in the image."""
    height, width = pixels.shape[:2]
    down, across = np.mgrid[:height, :width]
    row, column = rng.uniform(0, height), rng.uniform(0, width)
    distance = ((down - row) ** 2 + (across - column) ** 2) / (GLARE * max(height, width)) ** 2
    brighter = pixels + 255 * np.exp(-distance / 2)[..., None]
    return np.asarray(np.clip(brighter, 0, 255), dtype=np.uint8)


IMAGES: Mapping[str, Change] = {
    "blurred": _blurred,
    "noisy": _noisy,
    "a spot of glare": _glaring,
    "half as bright": lambda pixels, rng: (pixels // 2).astype(np.uint8),
    "JPEG of low quality": _compressed,
    "half the size": _small,
}
TEXTS: Mapping[str, Change] = {
    "a typing error in ten words": lambda text, rng: mistyped(text, TYPING, rng),
    "a typing error in three words": lambda text, rng: mistyped(text, 1 / 3, rng),
    "without capitals": lambda text, rng: text.lower(),
    "the first half alone": lambda text, rng: " ".join(text.split()[: max(1, len(text.split()) // 2)]),
}


def robustness(
    model: TrainedModel,
    rows: Rows,
    truth: Mapping[str, int],
    groups: Mapping[str, str],
    params: EvaluateParams,
    *,
    modality: Modality,
    max_megapixels: float = 64.0,
    seed: int,
    progress: Progress,
) -> dict[str, Any] | None:
    """Accuracy on the rows as they are, images at most `LONGEST` pixels, and after each change with the paired difference; None
    without rows. A few lie in memory at a time.

    truth: a row's class number by its id; groups: its group.
    """
    if not truth:
        return None
    changes = TEXTS if modality == "text" else IMAGES
    order: list[str] = []
    whole = len(truth) * (len(changes) + 1)

    def changed(change: Change | None, name: str, before: int) -> Iterator[bytes | str]:
        order.clear()
        for one, payload in rows():
            order.append(one)
            progress("changed rows", before + len(order), whole)
            rng = generator(seed, "robustness", name, one)
            if isinstance(payload, str):
                yield payload if change is None else change(payload, rng)
            else:
                pixels = images.shrunk(images.decode(payload, max_megapixels), LONGEST)
                yield images.encode(pixels if change is None else change(pixels, rng))

    def right(change: Change | None, name: str, before: int) -> np.ndarray:
        said = model.predict(changed(change, name, before), batch_size=AT_ONCE).argmax(axis=1)
        return np.array(said == [truth[one] for one in order], dtype=np.float64)

    as_they_are = right(None, "", 0)
    found = []
    for place, (name, change) in enumerate(changes.items(), start=1):
        after = right(change, name, place * len(truth))
        difference = paired_difference(
            as_they_are,
            after,
            np.array([groups[one] for one in order]),
            larger_is_better=True,
            draws=params.bootstrap_draws,
            confidence=params.confidence,
            rng=generator(seed, "robustness"),
            wrong=1.0,
        )
        found.append({"change": name, "accuracy": round(float(after.mean()), 6), "difference": difference.rounded()})
    return {"rows": len(truth), "accuracy": round(float(as_they_are.mean()), 6), "changes": found}
