"""Minimal perturbation: the smallest change that flips a prediction. Images: DeepFool; texts: leaving out words.

DeepFool (Moosavi-Dezfooli et al. 2016) follows the gradients of a smooth surrogate of the model. Its step is then tried
on the model itself at several lengths, rounded to pixel levels. Each result is therefore a change that does flip the
prediction, and an upper bound of the smallest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch

from seedling.dataset.generation import Modality
from seedling.media import images
from seedling.models.gradients import MAX_RIVAL_CLASSES, FromPixels, step_to_nearest_class
from seedling.models.model import TrainedModel
from seedling.models.portable import Portable
from seedling.progress import Progress
from seedling.records.evaluation import MinimalPerturbationRecord
from seedling.stats.statistics import Floats

SHARE_OF_ROBUSTNESS_ROWS = 1 / 8  # a row costs about as much as ten rows that are corrupted in each way
MAX_ROWS = 100
MAX_FLOPS_BY_EFFORT = {"quick": 4e11, "normal": 1.2e12, "thorough": 1e13}  # of all gradients; limits the rows
DEEPFOOL_STEPS = 5
STEP_LENGTHS = 2.0 ** np.arange(-4, 5)  # multiples of DeepFool's step that are tried on the model itself
OVERSHOOT = 1.02
MIN_ROWS = 4
MAX_WORDS = 30  # per text, that are left out one by one

Rows = Iterable[tuple[str, bytes | str]]


def minimal_perturbation(  # noqa: PLR0913  (the limits come from the params, the effort and the caller)
    model: TrainedModel,
    rows: Rows,
    truth: Mapping[str, int],
    *,
    modality: Modality,
    effort: str,
    max_rows: int,
    max_megapixels: float,
    progress: Progress,
) -> MinimalPerturbationRecord | None:
    """Size of the minimal perturbation of the first rows that are right: number flipped, median and quartiles.

    Images: root mean square over pixels and channels, in gray levels from 0 to 255, `unit` "levels"; texts: share of
    words left out, `unit` "words". None if fewer than `MIN_ROWS` rows are right, or if `max_rows` is smaller.
    """
    if max_rows < MIN_ROWS:
        return None
    if modality == "image":
        pixels = FromPixels(Portable(model, smooth=True))
        flops_per_row = 3 * DEEPFOOL_STEPS * (1 + MAX_RIVAL_CLASSES) * pixels.flops()
        max_rows = max(MIN_ROWS, min(max_rows, int(MAX_FLOPS_BY_EFFORT[effort] / flops_per_row)))
    labeled = [(truth[row_id], payload) for row_id, payload in islice(rows, 3 * max_rows)]
    predicted = model.predict([payload for _, payload in labeled]).argmax(axis=1)
    right = [payload for (label, payload), index in zip(labeled, predicted, strict=True) if label == index][:max_rows]
    if len(right) < MIN_ROWS:
        return None
    if modality == "image":
        resized = [
            images.resized(images.decode(bytes(payload), max_megapixels), *pixels.size[::-1])  # type: ignore[arg-type]
            for payload in right
        ]
        sizes = deepfool(model, pixels, np.stack(resized), progress)
    else:
        sizes = fewest_words(model, [str(payload) for payload in right], progress)
    flipped = sizes[np.isfinite(sizes)]
    quartiles = np.quantile(flipped, [0.25, 0.5, 0.75]) if len(flipped) else [None] * 3
    low, value, high = (None if quartile is None else round(float(quartile), 6) for quartile in quartiles)
    return MinimalPerturbationRecord(
        unit="levels" if modality == "image" else "words",
        rows=len(right),
        flipped=len(flipped),
        median=value,
        quartiles=(low, high),
    )


def deepfool(model: TrainedModel, pixels: FromPixels, image_arrays: Any, progress: Progress) -> Floats:
    """(n,): root mean square, in levels, of the smallest step found that flips each prediction; inf if none does.

    image_arrays: (n, height, width, 3), 0 to 255, of the surrogate's input size.
    """
    total = DEEPFOOL_STEPS + len(STEP_LENGTHS)
    before = model.predict([images.encode(array) for array in image_arrays]).argmax(axis=1)
    start = torch.from_numpy(image_arrays.astype(np.float32))
    step = torch.zeros_like(start)
    for number in range(DEEPFOOL_STEPS):
        progress("minimal perturbations", number, total)
        step = step + step_to_nearest_class(pixels, start + step, torch.from_numpy(before))
    steps = OVERSHOOT * step.numpy()
    smallest = np.full(len(image_arrays), np.inf)
    for number, length in enumerate(STEP_LENGTHS):
        progress("minimal perturbations", DEEPFOOL_STEPS + number, total)
        remaining = np.flatnonzero(np.isinf(smallest))
        moved = np.clip(np.rint(image_arrays[remaining] + length * steps[remaining]), 0, 255).astype(np.uint8)
        if len(remaining) == 0:
            break
        predicted = model.predict([images.encode(array) for array in moved]).argmax(axis=1)
        size = np.sqrt(((moved.astype(np.float64) - image_arrays[remaining]) ** 2).mean(axis=(1, 2, 3)))
        flipped = predicted != before[remaining]
        smallest[remaining[flipped]] = size[flipped]
    return smallest


def fewest_words(model: TrainedModel, texts: list[str], progress: Progress) -> Floats:
    """(n,): share of a text's words that are left out when its prediction flips; inf if it never flips.

    Words are left out in the order of how much the probability of the predicted class falls without each of them. One
    word always stays.
    """
    before = model.predict(texts).argmax(axis=1)
    shares = np.full(len(texts), np.inf)
    for row, text in enumerate(texts):
        progress("minimal perturbations", row, len(texts))
        words = text.split()
        candidates = range(min(len(words), MAX_WORDS))
        if len(words) < 2:
            continue
        probabilities = model.predict([_without(words, {index}) for index in candidates])[:, before[row]]
        order = np.argsort(probabilities, kind="stable").tolist()
        max_left_out = min(len(order), len(words) - 1)
        shortened = [_without(words, set(order[:n_words])) for n_words in range(1, max_left_out + 1)]
        flipped = np.flatnonzero(model.predict(shortened).argmax(axis=1) != before[row])
        if len(flipped):
            shares[row] = (flipped[0] + 1) / len(words)
    return shares


def _without(words: list[str], indices: set[int]) -> str:
    return " ".join(word for index, word in enumerate(words) if index not in indices)
