"""Adversarial images: minimal perturbations that mislead a model which did not train on the image.

The attacks are FGSM (Goodfellow et al. 2015) and DeepFool (Moosavi-Dezfooli et al. 2016). The images keep their label,
so that a model trained on them becomes robust to such perturbations. The attacked model is a logistic regression of the
other folds, on the features of the train stage; the perturbation is computed at the image size of these features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, cast

import cv2
import numpy as np
import torch

from seedling.augment.cross_fitting import QUICK_LEARNER, LabeledRows, cross_fit
from seedling.media import images
from seedling.media.images import Pixels
from seedling.models.gradients import FromPixels, loss_gradient_sign, step_to_nearest_class
from seedling.models.model import TrainedModel
from seedling.models.portable import Portable
from seedling.models.training import FitContext

Attack = Literal["fgsm", "deepfool"]
BATCH_IMAGES = 8
DEEPFOOL_STEPS, DEEPFOOL_OVERSHOOT = 3, 1.1


def adversarial_images(
    parents: LabeledRows, selected: Sequence[int], attack: Attack, levels: float, max_megapixels: float
) -> Iterator[tuple[int, Pixels, dict[str, float | str]]]:
    """Yield (row index, perturbed image, recipe details), fold by fold.

    selected: row indices of the parents. Rows without a fold are skipped: every model trained on them.
    levels: of 255; FGSM's change per value, and the maximum root mean square of DeepFool's change.
    """
    evaluation_rows = np.flatnonzero(parents.fold >= 0)
    _, models = cross_fit(parents, evaluation_rows, None, FitContext(parents.classes))
    for fold, learner in models.items():
        class_names = [str(class_index) for class_index in range(parents.classes)]
        model = TrainedModel(class_names, parents.features, [[learner]], [1.0], 1.0, [1.0], 0.0)
        from_pixels = FromPixels(Portable(model, smooth=True))
        fold_rows = [row for row in selected if parents.fold[row] == fold]
        for start in range(0, len(fold_rows), BATCH_IMAGES):
            rows = fold_rows[start : start + BATCH_IMAGES]
            originals = [images.decode(cast("bytes", parents.payloads[row]), max_megapixels) for row in rows]
            resized = np.stack([images.resized(image, *from_pixels.size[::-1]) for image in originals])
            pixels, labels = torch.from_numpy(resized.astype(np.float32)), torch.from_numpy(parents.labels[rows])
            for row, image, change in zip(
                rows, originals, _perturbations(from_pixels, pixels, labels, attack, levels), strict=True
            ):
                height, width = image.shape[:2]
                full_size_change = cv2.resize(change, (width, height), interpolation=cv2.INTER_LINEAR)
                perturbed = np.clip(np.rint(image + full_size_change), 0, 255).astype(np.uint8)
                yield row, perturbed, {"levels": levels, "model": f"{QUICK_LEARNER} of the other folds", "fold": fold}


def _perturbations(
    from_pixels: FromPixels, pixels: torch.Tensor, labels: torch.Tensor, attack: Attack, levels: float
) -> np.ndarray:
    """Return (n, height, width, 3), the change of each pixel value.

    FGSM: levels * sign of the gradient. DeepFool: the sum of its steps, overshot, scaled to at most `levels` RMS.
    """
    if attack == "fgsm":
        return np.asarray(levels * loss_gradient_sign(from_pixels, pixels, labels).numpy())
    step_sum = torch.zeros_like(pixels)
    for _ in range(DEEPFOOL_STEPS):
        step_sum = step_sum + step_to_nearest_class(from_pixels, pixels + step_sum, labels)
    change = DEEPFOOL_OVERSHOOT * step_sum.numpy()
    rms = np.sqrt((change**2).mean(axis=(1, 2, 3), keepdims=True))
    return np.asarray(change * np.minimum(1.0, levels / np.maximum(rms, 1e-9)))
