"""Adversarial children: images changed by as little as misleads a model that never saw them (FGSM, Goodfellow et al. 2015; DeepFool,
Moosavi-Dezfooli et al. 2016). They keep their label, so what learns from them must hold out against such changes.

The model is that of the other folds, logistic regression on the features that train will use; the change is found at the size at which features are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import cv2
import numpy as np
import torch

from seedling.augment.teaching import QUICK_LEARNER, Parents, taught_and_asked
from seedling.media import images
from seedling.media.images import Pixels
from seedling.models.gradients import FromPixels, away_from_label, towards_a_rival
from seedling.models.model import TrainedModel
from seedling.models.portable import Portable
from seedling.models.training import FitContext

Way = Literal["fgsm", "deepfool"]
AT_ONCE = 8  # images
STEPS, OVERSHOOT = 3, 1.1  # of DeepFool


def misleading(
    parents: Parents, chosen: Sequence[int], way: Way, levels: float, max_megapixels: float
) -> Iterator[tuple[int, Pixels, dict[str, Any]]]:
    """(row, its child, what its recipe says), fold by fold. chosen: rows of the parents, those of no fold are left out: every model has seen them.

    levels: of 255, what FGSM changes each value by, and the root mean square that DeepFool's change may have at most.
    """
    judged = np.flatnonzero(parents.fold >= 0)
    _, models = taught_and_asked(parents, judged, None, FitContext(parents.classes))
    for fold, learner in models.items():
        whole = TrainedModel(
            [str(one) for one in range(parents.classes)], parents.features, [[learner]], [1.0], 1.0, [1.0], 0.0
        )
        pixels = FromPixels(Portable(whole, smooth=True))
        mine = [row for row in chosen if parents.fold[row] == fold]
        for first in range(0, len(mine), AT_ONCE):
            rows = mine[first : first + AT_ONCE]
            before = [images.decode(parents.payloads[row], max_megapixels) for row in rows]
            sized = np.stack([images.resized(one, *pixels.size[::-1]) for one in before]).astype(np.float32)
            changes = _changes(pixels, torch.from_numpy(sized), torch.from_numpy(parents.labels[rows]), way, levels)
            for row, image, change in zip(rows, before, changes, strict=True):
                height, width = image.shape[:2]
                whole_change = cv2.resize(change, (width, height), interpolation=cv2.INTER_LINEAR)
                child = np.clip(np.rint(image + whole_change), 0, 255).astype(np.uint8)
                yield row, child, {"levels": levels, "model": f"{QUICK_LEARNER} of the other folds", "fold": fold}


def _changes(pixels: FromPixels, image_arrays: torch.Tensor, own: torch.Tensor, way: Way, levels: float) -> np.ndarray:
    if way == "fgsm":
        return np.asarray(levels * away_from_label(pixels, image_arrays, own).numpy())
    step = torch.zeros_like(image_arrays)
    for _ in range(STEPS):
        step = step + towards_a_rival(pixels, image_arrays + step, own)
    found = OVERSHOOT * step.numpy()
    size = np.sqrt((found**2).mean(axis=(1, 2, 3), keepdims=True))
    return np.asarray(found * np.minimum(1.0, levels / np.maximum(size, 1e-9)))
