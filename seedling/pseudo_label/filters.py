"""Which of the pool's labels are kept; each filter is a pure function of what is written for a row.

All of them are tried on labeled rows that were held out as if they were pool (`bake_off`), and one other than `all`
is used only where it is surely better there: wrong labels at a low weight cost less than right ones that are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.stats.statistics import Estimate, Floats, Ints, wilson

Mask = NDArray[np.bool_]
SURELY = 0.9  # bootstrap probability with which another filter must beat `all`
DRAWS = 500


@dataclass(frozen=True)
class Seen:
    """What a filter may look at: probabilities (n_rows, n_classes), rows sum to 1; agrees: (n_rows,), whether teacher
    and neighbors say the same; share: how much of the pool this round may take, 0 to 1; doubted: (n_classes,), classes
    that the held-out rows speak against; spread: (n_rows,), of Monte Carlo dropout.
    """

    probabilities: Floats
    agrees: Mask
    share: float
    doubted: Mask
    dropout_std: Floats

    @cached_property
    def said(self) -> Ints:
        """(n_rows,) class numbers."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def confidence(self) -> Floats:
        """(n_rows,), 0 to 1."""
        return np.asarray(self.probabilities.max(axis=1))


def keep_all(seen: Seen, threshold: float) -> Mask:
    """Every row, at the weight of its confidence."""
    return np.ones(len(seen.probabilities), dtype=bool)


def fixed_confidence(seen: Seen, threshold: float) -> Mask:
    """At least so confident (Lee 2013; Sohn et al. 2020)."""
    return seen.confidence >= threshold


def class_wise(seen: Seen, threshold: float) -> Mask:
    """Confident enough for its class.

    The limit of a class is `threshold` × the mean confidence of all rows × the class's mean confidence over the surest
    class's (after FreeMatch, Wang et al. 2023): neither a hard class nor a model that is unsure of everything, as one
    that has seen few labels must be, is left without rows.
    """
    if len(seen.probabilities) == 0:
        return np.zeros(0, dtype=bool)
    said, confidence = seen.said, seen.confidence
    classes = seen.probabilities.shape[1]
    rows = np.bincount(said, minlength=classes)
    mean = np.bincount(said, weights=confidence, minlength=classes) / np.maximum(rows, 1)
    limits = threshold * confidence.mean() * mean / mean.max()
    return np.asarray(confidence >= limits[said])


def top_a_class(seen: Seen, threshold: float) -> Mask:
    """The surer half of each class's rows."""
    kept = np.zeros(len(seen.probabilities), dtype=bool)
    for label in np.unique(seen.said):
        rows = np.flatnonzero(seen.said == label)
        order = rows[np.argsort(-seen.confidence[rows], kind="stable")]
        kept[order[: -(-len(rows) // 2)]] = True
    return kept


def agreement(seen: Seen, threshold: float) -> Mask:
    """Teacher and neighbors say the same."""
    return seen.agrees


def dropout_certainty(seen: Seen, threshold: float) -> Mask:
    """Monte Carlo dropout hardly moves the likeliest class's probability (after Rizve et al. 2021)."""
    return np.asarray(seen.dropout_std <= 1 - threshold)


def without_doubted_classes(seen: Seen, threshold: float) -> Mask:
    """Not of a class whose held-out pseudo-labels were mostly wrong."""
    return np.asarray(~seen.doubted[seen.said])


def curriculum(seen: Seen, threshold: float) -> Mask:
    """The surest rows, more of them each round (Cascante-Bonilla et al. 2021)."""
    if len(seen.probabilities) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(seen.confidence >= np.quantile(seen.confidence, 1 - seen.share))


FILTERS: dict[str, Callable[[Seen, float], Mask]] = {
    "all": keep_all,
    "confidence": fixed_confidence,
    "class_wise": class_wise,
    "top_per_class": top_a_class,
    "agreement": agreement,
    "dropout_certainty": dropout_certainty,
    "without_unreliable_classes": without_doubted_classes,
    "curriculum": curriculum,
}


@dataclass(frozen=True)
class Tried:
    """One filter on held-out rows: how many it kept, how right they were, and the expected gain (see `expected_gain`)."""

    filter: str
    kept: int
    precision: Estimate | None
    gain: float
    probability_better: float  # than `all`

    def as_json(self) -> dict[str, Any]:
        """As it is written to the manifest."""
        found = asdict(self)
        found["precision"] = None if self.precision is None else self.precision.rounded()
        return found | {"gain": round(self.gain, 6), "probability_better": round(self.probability_better, 6)}


def expected_gain(kept: Mask, right: Mask, confidence: Floats, classes: int) -> float:
    """Right labels above chance that a row of the pool brings, weighted as they will be in training.

    Σ weight × (1 if right, −1/(classes − 1) if wrong) / rows: 0 for labels drawn at random, 1 for sure and right ones.
    """
    value = np.where(right, 1.0, -1.0 / max(1, classes - 1))
    return float((kept * confidence * value).mean()) if len(kept) else 0.0


def compare_filters(seen: Seen, truth: Ints, threshold: float, rng: np.random.Generator) -> tuple[str, list[Tried]]:
    """The filter to use, and the table of all. truth: (n_rows,), of held-out labeled rows."""
    right, confidence, classes = seen.said == truth, seen.confidence, seen.probabilities.shape[1]
    rows = len(truth)
    draws = rng.integers(rows, size=(DRAWS, rows)) if rows else np.zeros((DRAWS, 0), dtype=np.intp)
    value = confidence * np.where(right, 1.0, -1.0 / max(1, classes - 1))
    table: list[Tried] = []
    for name, judge in FILTERS.items():
        kept = judge(seen, threshold)
        hits, many = int(right[kept].sum()), int(kept.sum())
        ahead = (kept * value - value)[draws].mean(axis=1) if rows else np.zeros(DRAWS)
        table.append(
            Tried(
                filter=name,
                kept=many,
                precision=wilson(hits, many) if many else None,
                gain=expected_gain(kept, right, confidence, classes),
                probability_better=float((ahead > 0).mean()),
            )
        )
    sure = [one for one in table if one.probability_better >= SURELY]
    return (max(sure, key=lambda one: one.gain).filter if sure else "all"), table


def unreliable_classes(said: Ints, truth: Ints, classes: int) -> Mask:
    """(n_classes,): those whose pseudo-labels on held-out rows are surely more often wrong than right (Wilson)."""
    result = np.zeros(classes, dtype=bool)
    for label in np.unique(said):
        mine = said == label
        result[label] = wilson(int((truth[mine] == label).sum()), int(mine.sum())).high < 0.5
    return result
