"""The confusion matrix: as a table of numbers for few classes, as a map and a list for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from numpy.typing import NDArray

from seedling.dataset.class_indices import class_indices
from seedling.report.pages import percent
from seedling.stats.statistics import confusion

MAX_TABLE_CLASSES = 20
MAX_NARROW_CLASSES = 10  # of a table that fits on a telephone without scrolling
MAX_WORST = 8
MAP_PIXELS = 640
MARGIN_PIXELS = 34  # of the map, for the numbers of the classes
NUMBERED_EVERY = 10


@dataclass(frozen=True)
class Confusion:
    """The rows of one class that were predicted as another one. cell: the class indices, as `truth-predicted`."""

    truth: str
    predicted: str
    rows: int
    cell: str


@dataclass(frozen=True)
class ClassErrors:
    """A class in the list beside the map. number: its number on the map; rows, right: all its rows, and right ones."""

    number: int
    name: str
    rows: int
    right: int
    cell: str
    errors: list[Confusion]


@dataclass(frozen=True)
class ConfusionMatrix:
    """The counts, the most frequent confusions, and, for many classes, a map and a list.

    counts: [true class][predicted class], None if there are too many classes for a table; fits: whether the table fits
    on a telephone; totals: rows per true class; by_class: a row of the list per class; map: an SVG.
    """

    classes: list[str]
    counts: list[list[int]] | None
    fits: bool
    totals: list[int]
    worst: list[Confusion]
    by_class: list[ClassErrors]
    map: Markup | None


def confusion_context(predictions: pd.DataFrame, classes: Sequence[str]) -> ConfusionMatrix:
    """The confusion matrix of the predictions, with their `label` and `predicted`."""
    truth = class_indices(predictions["label"], classes)
    predicted = class_indices(predictions["predicted"], classes)
    counts = confusion(predicted, truth, len(classes))
    is_table = len(classes) <= MAX_TABLE_CLASSES
    pairs = _confusions(counts, classes)
    return ConfusionMatrix(
        classes=list(classes),
        counts=counts.tolist() if is_table else None,
        fits=len(classes) <= MAX_NARROW_CLASSES,
        totals=counts.sum(axis=1).tolist(),
        worst=pairs[:MAX_WORST],
        by_class=[] if is_table else _by_class(counts, classes, pairs),
        map=None if is_table else confusion_map(counts, classes),
    )


def _confusions(counts: NDArray[np.int64], classes: Sequence[str]) -> list[Confusion]:
    """Each pair of classes with errors, the most frequent first."""
    pairs = [
        Confusion(classes[row], classes[column], int(counts[row, column]), f"{row}-{column}")
        for row, column in np.argwhere(counts * (1 - np.eye(len(classes), dtype=np.int64)))
    ]
    return sorted(pairs, key=lambda pair: (-pair.rows, pair.truth, pair.predicted))


def _by_class(counts: NDArray[np.int64], classes: Sequence[str], pairs: Sequence[Confusion]) -> list[ClassErrors]:
    """Each class with its number on the map, its rows, the right ones, and what the others were predicted as."""
    return [
        ClassErrors(
            number=index + 1,
            name=name,
            rows=int(counts[index].sum()),
            right=int(counts[index, index]),
            cell=f"{index}-{index}",
            errors=[pair for pair in pairs if pair.truth == name],
        )
        for index, name in enumerate(classes)
    ]


def confusion_map(counts: NDArray[np.int64], classes: Sequence[str]) -> Markup:
    """An SVG with a square per pair of classes that has rows; its darkness is the share of the true class's rows."""
    side = (MAP_PIXELS - MARGIN_PIXELS) / len(classes)
    totals = np.maximum(counts.sum(axis=1), 1)
    parts = [_frame()]
    for row, column in np.argwhere(counts):
        share = counts[row, column] / totals[row]
        relation = "right" if row == column else f"predicted as {classes[column]}"
        title = f"{classes[row]}, {relation}: {counts[row, column]} of {totals[row]} rows ({percent(share)})"
        parts.append(
            Markup(
                '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}" fill-opacity="{:.2f}">'
                "<title>{}</title></rect>"
            ).format(
                MARGIN_PIXELS + column * side,
                MARGIN_PIXELS + row * side,
                side,
                side,
                "right" if row == column else "wrong",
                0.25 + 0.75 * share,
                escape(title),
            )
        )
    for index in [0, *range(NUMBERED_EVERY - 1, len(classes), NUMBERED_EVERY)]:
        center = MARGIN_PIXELS + (index + 0.5) * side
        parts.append(_number(index + 1, center, MARGIN_PIXELS - 8, "middle"))
        parts.append(_number(index + 1, MARGIN_PIXELS - 6, center + 4, "end"))
    label = f"Confusion map of {len(classes)} classes; the list beside it has the same numbers"
    return Markup('<svg class="confusion-map" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        MAP_PIXELS, MAP_PIXELS, label, Markup("").join(parts)
    )


def _frame() -> Markup:
    side = MAP_PIXELS - MARGIN_PIXELS
    return Markup('<rect x="{0}" y="{0}" width="{1}" height="{1}" class="frame"/>').format(MARGIN_PIXELS, side)


def _number(number: int, x: float, y: float, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, number)
