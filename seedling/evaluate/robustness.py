"""Robustness to corruptions: accuracy on the same rows after blur, noise, typing errors and other changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from seedling.config.params import EvaluateParams
from seedling.dataset.generation import Modality
from seedling.media import images
from seedling.media.decoded_images import DecodedImages
from seedling.media.images import Pixels
from seedling.media.typos import mistyped
from seedling.models.model import TrainedModel
from seedling.progress import Progress
from seedling.records.evaluation import CorruptionRecord, RobustnessRecord
from seedling.records.intervals import DifferenceRecord
from seedling.stats.randomness import generator
from seedling.stats.statistics import paired_difference

ROWS_BY_EFFORT = {"quick": 20, "normal": 30, "thorough": 1_000}  # the first two keep this below 15 % of a run
NOISE_LEVELS = 25.0  # standard deviation in gray levels
BLUR_SHARE = 0.02  # standard deviation as a share of the longer side
JPEG_QUALITY = 20
GLARE_SHARE = 1 / 6  # standard deviation as a share of the longer side
MAX_SIDE_PIXELS = 512  # images are resized to this before a change, so that it has the same strength and cost for all
ROWS_PER_BATCH = 32
TYPO_SHARE = 0.1  # share of words with a typing error

Change = Callable[[Any, np.random.Generator], Any]
Rows = Callable[[], Iterable[tuple[str, bytes | str]]]  # (id, encoded image or text), always in the same order


def _noisy(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.clip(pixels + rng.normal(scale=NOISE_LEVELS, size=pixels.shape), 0, 255).astype(np.uint8)


def _blurred(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(0.5, BLUR_SHARE * max(pixels.shape[:2]))), dtype=np.uint8)


def _compressed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return images.decode(images.compressed(pixels, JPEG_QUALITY))


def _small(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    half = images.shrunk(pixels, max(1, max(pixels.shape[:2]) // 2))
    return np.asarray(cv2.resize(half, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _glaring(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A round bright spot at a random position."""
    height, width = pixels.shape[:2]
    down, across = np.mgrid[:height, :width]
    row, column = rng.uniform(0, height), rng.uniform(0, width)
    distance = ((down - row) ** 2 + (across - column) ** 2) / (GLARE_SHARE * max(height, width)) ** 2
    brighter = pixels + 255 * np.exp(-distance / 2)[..., None]
    return np.asarray(np.clip(brighter, 0, 255), dtype=np.uint8)


IMAGE_CHANGES: Mapping[str, Change] = {
    "blurred": _blurred,
    "noisy": _noisy,
    "a spot of glare": _glaring,
    "half as bright": lambda pixels, rng: (pixels // 2).astype(np.uint8),
    "JPEG of low quality": _compressed,
    "half the size": _small,
}
TEXT_CHANGES: Mapping[str, Change] = {
    "a typing error in ten words": lambda text, rng: mistyped(text, TYPO_SHARE, rng),
    "a typing error in three words": lambda text, rng: mistyped(text, 1 / 3, rng),
    "without capitals": lambda text, rng: text.lower(),
    "the first half alone": lambda text, rng: " ".join(text.split()[: max(1, len(text.split()) // 2)]),
}


def robustness(  # noqa: PLR0913  (the model, the rows, and the settings by name)
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
    predicted: Mapping[str, int] = MappingProxyType({}),
) -> RobustnessRecord | None:
    """Accuracy on the unchanged rows, and after each change with the paired difference; None without rows.

    Images are resized to at most `MAX_SIDE_PIXELS` first. Few rows are in memory at a time.

    truth: class index by row id; groups: near-duplicate group by row id; predicted: class index of each unchanged row,
    if it is known. Only texts use it: images are resized first.
    """
    if not truth:
        return None
    changes = TEXT_CHANGES if modality == "text" else IMAGE_CHANGES
    order: list[str] = []
    decode = DecodedImages(max_megapixels, max_side=MAX_SIDE_PIXELS)
    total = len(truth) * (len(changes) + 1)

    def changed_rows(change: Change | None, name: str, n_done: int) -> Iterator[bytes | str]:
        order.clear()
        for row_id, payload in rows():
            order.append(row_id)
            progress("robustness test", n_done + len(order), total)
            rng = generator(seed, "robustness", name, row_id)
            if isinstance(payload, str):
                yield payload if change is None else change(payload, rng)
            else:
                pixels = decode(payload)
                yield images.encode(pixels if change is None else change(pixels, rng))

    def is_right(change: Change | None, name: str, n_done: int) -> np.ndarray:
        predicted = model.predict(changed_rows(change, name, n_done), batch_size=ROWS_PER_BATCH).argmax(axis=1)
        return np.array(predicted == [truth[row_id] for row_id in order], dtype=np.float64)

    if modality == "text" and predicted:
        order = [row_id for row_id, _ in rows()]
        unchanged = np.array([predicted[row_id] == truth[row_id] for row_id in order], dtype=np.float64)
    else:
        unchanged = is_right(None, "", 0)
    results = []
    for number, (name, change) in enumerate(changes.items(), start=1):
        changed = is_right(change, name, number * len(truth))
        difference = paired_difference(
            unchanged,
            changed,
            np.array([groups[row_id] for row_id in order]),
            larger_is_better=True,
            draws=params.bootstrap_draws,
            confidence=params.confidence,
            rng=generator(seed, "robustness"),
            wrong=1.0,
        )
        accuracy = round(float(changed.mean()), 6)
        results.append(CorruptionRecord(change=name, accuracy=accuracy, difference=DifferenceRecord.of(difference)))
    return RobustnessRecord(rows=len(truth), accuracy=round(float(unchanged.mean()), 6), changes=tuple(results))
