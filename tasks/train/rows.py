"""What a round trains on: every training row of every generation as arrays, and the rows that it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.generation import read
from tasks.randomness import derived_seed
from tasks.statistics import Floats, Ints

INGREDIENTS = ("collected", "augment", "synthesize")  # the pool comes on top, with the pseudo-labels of its round
PSEUDO_COLUMNS = ("lineage_labels", "lineage_weights")
NO_FOLD = -1


@dataclass(frozen=True)
class TrainingRows:
    """All arrays have n_rows entries, in one order: labelled collected rows, children, synthesized rows, the pool.

    targets: (n_rows, n_classes), rows sum to 1, zeros for the pool; fold: NO_FOLD for rows of no fold;
    lineage_labels: (n_rows, n_lineages), class numbers, -1 where a lineage has no label for the row; lineage_weights:
    the same shape, what the lineage's label counts;
    half: 0 or 1, which half of the pool a row is in.
    """

    ids: NDArray[np.str_]
    ingredient: NDArray[np.str_]
    fold: Ints
    targets: Floats
    weights: Floats
    half: Ints
    lineage_labels: Ints
    lineage_weights: Floats

    @property
    def pool(self) -> NDArray[np.intp]:
        """The pool's row numbers."""
        return np.flatnonzero(self.ingredient == "pool")

    @property
    def labelled(self) -> NDArray[np.intp]:
        """The labelled collected rows' numbers."""
        return np.flatnonzero(self.ingredient == "collected")

    @property
    def folds(self) -> list[int]:
        """The folds that hold rows, in rising order."""
        return sorted({int(one) for one in self.fold[self.labelled]})

    def of_lineage(
        self, lineage: int | None, place: int, half: int, recipe: Sequence[str]
    ) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Row numbers, targets and weights that one model of a lineage may see.

        lineage: the fold that it never sees, None for the final model's, which sees all; place: its column in
        lineage_labels; half: the half of the pool whose pseudo-labels it learns from.
        """
        own = np.isin(self.ingredient, recipe) & ((self.fold != lineage) if lineage is not None else True)
        pseudo = (self.ingredient == "pool") & (self.half == half) & (self.lineage_labels[:, place] >= 0)
        targets, weights = self.targets.copy(), self.weights.copy()
        targets[pseudo, self.lineage_labels[pseudo, place]] = 1.0
        weights[pseudo] = self.lineage_weights[pseudo, place]
        chosen = np.flatnonzero(own | pseudo)
        return chosen, targets[chosen], weights[chosen]


@dataclass
class _Columns:
    ids: list[str] = field(default_factory=list)
    ingredient: list[str] = field(default_factory=list)
    fold: list[int] = field(default_factory=list)
    targets: list[Floats] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def add(self, frame: pd.DataFrame, ingredient: str, classes: Sequence[str]) -> None:
        number = {label: place for place, label in enumerate(classes)}
        for row in frame.itertuples(index=False):
            target = np.zeros(len(classes))
            if row.label_probs is not None and row.label_probs is not pd.NA and np.ndim(row.label_probs) == 1:
                target[:] = row.label_probs
            elif isinstance(row.label, str) and ingredient != "pool":
                target[number[row.label]] = 1.0
            self.ids.append(row.id)
            self.ingredient.append(ingredient)
            self.fold.append(NO_FOLD if pd.isna(row.fold) else int(row.fold))
            self.targets.append(target)
            self.weights.append(float(row.weight))
            self.groups.append(row.group)


def training_rows(
    classes: Sequence[str],
    *,
    validated: Path,
    augmented: Path,
    synthesized: Path,
    pseudo_labels: Path | None,
    seed: int,
) -> TrainingRows:
    """Reads the generations into one table. pseudo_labels: None in round 0."""
    collected = read(validated)
    columns = _Columns()
    columns.add(collected[(collected["split"] == "train") & collected["label"].notna()], "collected", classes)
    columns.add(read(augmented), "augment", classes)
    columns.add(read(synthesized), "synthesize", classes)
    columns.add(collected[collected["split"] == "pool"], "pool", classes)
    lineages = (
        len({fold for fold, kind in zip(columns.fold, columns.ingredient, strict=True) if kind == "collected"}) + 1
    )
    lineage_labels = np.full((len(columns.ids), lineages), -1, dtype=np.int64)
    lineage_weights = np.zeros(lineage_labels.shape)
    if pseudo_labels is not None:
        place = {one: row for row, one in enumerate(columns.ids)}
        kept = read(pseudo_labels, ["id", *PSEUDO_COLUMNS])
        for one, labels, weights in kept.itertuples(index=False):
            lineage_labels[place[one]] = labels
            lineage_weights[place[one]] = weights
    return TrainingRows(
        ids=np.array(columns.ids),
        ingredient=np.array(columns.ingredient),
        fold=np.array(columns.fold, dtype=np.int64),
        targets=np.array(columns.targets).reshape(len(columns.ids), len(classes)),
        weights=np.array(columns.weights),
        half=np.array([pool_half(group, seed) for group in columns.groups], dtype=np.int64),
        lineage_labels=lineage_labels,
        lineage_weights=lineage_weights,
    )


def pool_half(group: str, seed: int) -> int:
    """Which half of the pool a group is in, 0 or 1: the models that learn from one half label the other."""
    return derived_seed(seed, "half", group) % 2
