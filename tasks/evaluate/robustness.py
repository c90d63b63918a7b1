"""What becomes of the accuracy where pictures are worse and texts are typed in haste: the same rows, changed and judged again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from tasks import images
from tasks.images import Pixels
from tasks.learners.model import TrainedModel
from tasks.params import EvaluateParams
from tasks.progress import Progress
from tasks.randomness import generator
from tasks.statistics import Ints, paired_difference
from tasks.words import change_words

ROWS = {"quick": 100, "normal": 200, "thorough": 1_000}
NOISE = 25.0  # standard deviation in levels
BLUR = 0.02  # standard deviation as a share of the longer side
JPEG = 20  # quality
TYPING = 0.1  # share of the words with a typing error

Change = Callable[[Any, np.random.Generator], Any]


def _noisy(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.clip(pixels + rng.normal(scale=NOISE, size=pixels.shape), 0, 255).astype(np.uint8)


def _blurred(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(0.5, BLUR * max(pixels.shape[:2]))), dtype=np.uint8)


def _compressed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1]


def _small(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    half = images.shrunk(pixels, max(1, max(pixels.shape[:2]) // 2))
    return np.asarray(cv2.resize(half, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


PICTURES: Mapping[str, Change] = {
    "blurred": _blurred,
    "noisy": _noisy,
    "half as bright": lambda pixels, rng: (pixels // 2).astype(np.uint8),
    "JPEG of low quality": _compressed,
    "half the size": _small,
}
TEXTS: Mapping[str, Change] = {
    "a typing error in ten words": lambda text, rng: change_words(text, "typo", TYPING, rng),
    "a typing error in three words": lambda text, rng: change_words(text, "typo", 1 / 3, rng),
    "without capitals": lambda text, rng: text.lower(),
    "the first half alone": lambda text, rng: " ".join(text.split()[: max(1, len(text.split()) // 2)]),
}


def robustness(
    model: TrainedModel,
    payloads: Sequence[bytes | str],
    truth: Ints,
    groups: np.ndarray,
    params: EvaluateParams,
    *,
    seed: int,
    progress: Progress,
) -> dict[str, Any] | None:
    """Accuracy on the rows as they are, and after each change with the paired difference; None without rows.

    payloads: encoded pictures or texts; truth: (n_rows,) class numbers; groups: (n_rows,).
    """
    if not payloads:
        return None
    changes = TEXTS if isinstance(payloads[0], str) else PICTURES
    done, whole = 0, len(payloads) * (len(changes) + 1)

    def right(change: Change | None, name: str) -> np.ndarray:
        nonlocal done
        changed = []
        for place, payload in enumerate(payloads):
            rng = generator(seed, "robustness", name, str(place))
            changed.append(payload if change is None else _changed(payload, change, rng))
        found: np.ndarray = model.predict(changed).argmax(axis=1) == truth
        done += len(payloads)
        progress("changed rows", done, whole)
        return found.astype(float)

    as_they_are = right(None, "")
    found = []
    for name, change in changes.items():
        after = right(change, name)
        difference = paired_difference(
            as_they_are,
            after,
            groups,
            larger_is_better=True,
            draws=params.bootstrap_draws,
            confidence=params.confidence,
            rng=generator(seed, "robustness"),
        )
        found.append({"change": name, "accuracy": round(float(after.mean()), 6), "difference": difference.rounded()})
    return {"rows": len(payloads), "accuracy": round(float(as_they_are.mean()), 6), "changes": found}


def _changed(payload: bytes | str, change: Change, rng: np.random.Generator) -> bytes | str:
    if isinstance(payload, str):
        text: str = change(payload, rng)
        return text
    return images.encode(change(images.decode(payload), rng))
