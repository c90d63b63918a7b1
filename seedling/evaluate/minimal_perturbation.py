"""How little must be changed in a row before the answer is another one: in pixels by DeepFool, in words by leaving them out.

DeepFool (Moosavi-Dezfooli et al. 2016) follows the slopes of the model's smooth stand-in; what it found is then tried on the
model itself at several lengths, in whole levels. So each number is a step that was seen to work, and the smallest there is
may be smaller.
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
from seedling.stats.statistics import Floats

ROWS = {"quick": 8, "normal": 16, "thorough": 100}
FLOPS = {
    "quick": 4e11,
    "normal": 1.2e12,
    "thorough": 1e13,
}  # that the slopes of all rows may cost: more shrinks the rows
STEPS = 5
LENGTHS = 2.0 ** np.arange(-4, 5)  # of DeepFool's step, which are tried on the model itself
OVERSHOOT = 1.02
FEWEST = 4  # rows that say anything
MOST_WORDS = 30  # of a text, that are left out one by one

Rows = Iterable[tuple[str, bytes | str]]


def minimal_perturbation(
    model: TrainedModel,
    rows: Rows,
    truth: Mapping[str, int],
    *,
    modality: Modality,
    effort: str,
    max_megapixels: float,
    progress: Progress,
) -> dict[str, Any] | None:
    """Of the first rows that are right: how many were turned, and the step's median and quartiles over those that were.

    Images: root mean square over pixels and channels, in levels of 255, `unit` "levels"; texts: the share of words that are
    left out, `unit` "words". None where fewer than `FEWEST` rows are right.
    """
    most = ROWS[effort]
    if modality == "image":
        pixels = FromPixels(Portable(model, smooth=True))
        most = max(FEWEST, min(most, int(FLOPS[effort] / (3 * STEPS * (1 + MAX_RIVAL_CLASSES) * pixels.flops()))))
    known = [(truth[one], payload) for one, payload in islice(rows, 3 * most)]
    said = model.predict([payload for _, payload in known]).argmax(axis=1)
    right = [payload for (label, payload), one in zip(known, said, strict=True) if label == one][:most]
    if len(right) < FEWEST:
        return None
    if modality == "image":
        sized = np.stack(
            [images.resized(images.decode(bytes(one), max_megapixels), *pixels.size[::-1]) for one in right]  # type: ignore[arg-type]
        )
        found, unit = deepfool(model, pixels, sized, progress), "levels"
    else:
        found, unit = fewest_words(model, [str(one) for one in right], progress), "words"
    turned = found[np.isfinite(found)]
    quartiles = np.quantile(turned, [0.25, 0.5, 0.75]) if len(turned) else [None] * 3
    low, value, high = (None if one is None else round(float(one), 6) for one in quartiles)
    return {"unit": unit, "rows": len(right), "turned": len(turned), "median": value, "quartiles": [low, high]}


def deepfool(model: TrainedModel, pixels: FromPixels, image_arrays: Any, progress: Progress) -> Floats:
    """(n,): root mean square, in levels, of the smallest step that was seen to turn each image's answer; inf where none did.

    images: (n, height, width, 3), 0 to 255, of the stand-in's size.
    """
    total = STEPS + len(LENGTHS)
    before = model.predict([images.encode(one) for one in image_arrays]).argmax(axis=1)
    start = torch.from_numpy(image_arrays.astype(np.float32))
    step = torch.zeros_like(start)
    for number in range(STEPS):
        progress("smallest steps", number, total)
        step = step + step_to_nearest_class(pixels, start + step, torch.from_numpy(before))
    steps = OVERSHOOT * step.numpy()
    smallest = np.full(len(image_arrays), np.inf)
    for number, length in enumerate(LENGTHS):
        progress("smallest steps", STEPS + number, total)
        open_rows = np.flatnonzero(np.isinf(smallest))
        moved = np.clip(np.rint(image_arrays[open_rows] + length * steps[open_rows]), 0, 255).astype(np.uint8)
        if len(open_rows) == 0:
            break
        said = model.predict([images.encode(one) for one in moved]).argmax(axis=1)
        size = np.sqrt(((moved.astype(np.float64) - image_arrays[open_rows]) ** 2).mean(axis=(1, 2, 3)))
        turned = said != before[open_rows]
        smallest[open_rows[turned]] = size[turned]
    return smallest


def fewest_words(model: TrainedModel, texts: list[str], progress: Progress) -> Floats:
    """(n,): the share of a text's words that are left out when its answer turns, those first whose absence alone hurts most; inf where it never
    does while a word is left.
    """
    before = model.predict(texts).argmax(axis=1)
    found = np.full(len(texts), np.inf)
    for row, text in enumerate(texts):
        progress("smallest steps", row, len(texts))
        words = text.split()
        tried = range(min(len(words), MOST_WORDS))
        if len(words) < 2:
            continue
        without_one = model.predict([_without(words, {one}) for one in tried])[:, before[row]]
        order = np.argsort(without_one, kind="stable").tolist()
        fewer = [_without(words, set(order[:many])) for many in range(1, min(len(order), len(words) - 1) + 1)]
        turned = np.flatnonzero(model.predict(fewer).argmax(axis=1) != before[row])
        if len(turned):
            found[row] = (turned[0] + 1) / len(words)
    return found


def _without(words: list[str], places: set[int]) -> str:
    return " ".join(word for place, word in enumerate(words) if place not in places)
