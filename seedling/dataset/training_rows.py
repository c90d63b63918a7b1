"""What a round trains on: every training row of every generation as arrays, and the rows that it is judged by."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.dataset.generation import ids_of, read, read_manifest
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Floats, Ints

INGREDIENTS = ("collected", "augment", "synthesize")  # the pool comes on top, with the pseudo-labels of its round
COLUMNS = [
    "id",
    "split",
    "fold",
    "label",
    "label_probs",
    "weight",
    "parent_ids",
    "group",
]  # a text lies aside till it is needed
PSEUDO_COLUMNS = ("pseudo_label_by_fold", "pseudo_weight_by_fold")
NO_FOLD = -1


@dataclass(frozen=True)
class TrainingRows:
    """All arrays have n_rows entries, in one order: labeled collected rows, children, synthesized rows, the pool.

    targets: (n_rows, n_classes), rows sum to 1, zeros for the pool; fold: NO_FOLD for rows of no fold;
    pseudo_label_by_fold: (n_rows, n_lineages), class numbers, -1 where a lineage has no label for the row; pseudo_weight_by_fold:
    the same shape, what the lineage's label counts;
    parents: (n_rows, 2), numbers of the labeled rows that a row was made from, -1 where there is none;
    group: which rows stay together; half: 0 or 1, which half of the pool a row is in.
    """

    ids: NDArray[np.str_]
    ingredient: NDArray[np.str_]
    fold: Ints
    targets: Floats
    weights: Floats
    parents: NDArray[np.intp]
    group: NDArray[np.str_]
    half: Ints
    pseudo_label_by_fold: Ints
    pseudo_weight_by_fold: Floats

    @property
    def pool(self) -> NDArray[np.intp]:
        """The pool's row numbers."""
        return np.flatnonzero(self.ingredient == "pool")

    @property
    def labeled(self) -> NDArray[np.intp]:
        """The labeled collected rows' numbers."""
        return np.flatnonzero(self.ingredient == "collected")

    @property
    def folds(self) -> list[int]:
        """The folds that hold rows, in rising order."""
        return sorted({int(one) for one in self.fold[self.labeled]} - {NO_FOLD})

    def halved_anew(self, seed: int) -> TrainingRows:
        """The same rows, with the pool cut into other halves."""
        return replace(self, half=pool_halves(self.group, seed))

    def of_lineage(
        self, lineage: int | None, place: int, half: int, recipe: Sequence[str], trust: Floats | None = None
    ) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Row numbers, targets and weights that one model of a lineage may see.

        lineage: the fold that it never sees, None for the final model's, which sees all; place: its column in
        pseudo_label_by_fold; half: the half of the pool whose pseudo-labels it learns from; trust: (n_labeled,), what each
        labeled row's weight, and that of the rows made from it, is multiplied by.
        """
        own = np.isin(self.ingredient, recipe) & ((self.fold != lineage) if lineage is not None else True)
        pseudo = (self.ingredient == "pool") & (self.half == half) & (self.pseudo_label_by_fold[:, place] >= 0)
        targets, weights = self.targets.copy(), self.weights.copy()
        targets[pseudo, self.pseudo_label_by_fold[pseudo, place]] = 1.0
        weights[pseudo] = self.pseudo_weight_by_fold[pseudo, place]
        if trust is not None:
            of_row = np.ones(len(weights) + 1)  # the last entry serves rows without a parent
            of_row[self.labeled] = trust
            weights *= of_row[self.parents].min(axis=1)
        chosen = np.flatnonzero(own | pseudo)
        return chosen, targets[chosen], weights[chosen]


def training_rows(
    classes: Sequence[str],
    *,
    validated: Path,
    augmented: Path,
    synthesized: Path,
    pseudo_labels: Path | None,
    seed: int,
    pool_rows: int,
) -> TrainingRows:
    """Reads the generations into one table. pseudo_labels: None in round 0; pool_rows: at most so many of the pool."""
    known = read(validated, COLUMNS, splits=["train"])
    parts = {
        "collected": known[known["label"].notna()],
        "augment": read(augmented, COLUMNS),
        "synthesize": read(synthesized, COLUMNS),
        "pool": read(validated, COLUMNS, splits=["pool"], ids=drawn_pool(validated, pool_rows, seed)),
    }
    frame = pd.concat(parts.values(), ignore_index=True)
    ingredient = np.repeat(list(parts), [len(part) for part in parts.values()])
    fold = frame["fold"].astype("float64").fillna(NO_FOLD).to_numpy(dtype=np.int64)
    lineages = len(set(fold[ingredient == "collected"].tolist()) - {NO_FOLD}) + 1
    pseudo_label_by_fold = np.full((len(frame), lineages), -1, dtype=np.int64)
    pseudo_weight_by_fold = np.zeros(pseudo_label_by_fold.shape)
    if pseudo_labels is not None:
        kept = read(pseudo_labels, ["id", *PSEUDO_COLUMNS])
        place = pd.Index(frame["id"]).get_indexer(kept["id"])
        pseudo_label_by_fold[place] = np.array(kept["pseudo_label_by_fold"].tolist(), dtype=np.int64).reshape(
            -1, lineages
        )
        pseudo_weight_by_fold[place] = np.array(kept["pseudo_weight_by_fold"].tolist()).reshape(-1, lineages)
    return TrainingRows(
        ids=frame["id"].to_numpy(dtype=str),
        ingredient=ingredient,
        fold=fold,
        targets=_targets(frame, ingredient, classes),
        weights=frame["weight"].to_numpy(dtype=np.float64),
        parents=_parents(frame, ingredient),
        group=frame["group"].to_numpy(dtype=str),
        half=pool_halves(frame["group"], seed),
        pseudo_label_by_fold=pseudo_label_by_fold,
        pseudo_weight_by_fold=pseudo_weight_by_fold,
    )


def mixed_in_rows(validated: Path, at_most: int, seed: int) -> pd.DataFrame:
    """Another dataset's rows by id, with its own labels and their weights; at most so many, drawn by their names."""
    found = read(validated, ["id", "label", "weight"], splits=["mixin"]).set_index("id")
    drawn = heapq.nsmallest(at_most, found.index, key=lambda one: (derived_seed(seed, "mixin", one), one))
    return found.loc[drawn]


def drawn_pool(validated: Path, at_most: int, seed: int) -> list[str] | None:
    """So many of the pool's ids, drawn by their names, as more rows would cost hours and gigabytes and teach little; None: all."""
    if sum(one["rows"] for one in read_manifest(validated)["counts"] if one["split"] == "pool") <= at_most:
        return None
    return heapq.nsmallest(at_most, ids_of(validated, "pool"), key=lambda one: (derived_seed(seed, "pool", one), one))


def _targets(frame: pd.DataFrame, ingredient: NDArray[np.str_], classes: Sequence[str]) -> Floats:
    """(n_rows, n_classes): the label's own soft one where it has one; zeros for the pool."""
    targets = np.zeros((len(frame), len(classes)))
    own = ingredient != "pool"
    hard = np.flatnonzero(own & frame["label"].notna().to_numpy())
    targets[hard, pd.Index(classes).get_indexer(frame["label"].iloc[hard])] = 1.0
    for row in np.flatnonzero(own):
        soft = frame["label_probs"].iat[row]
        if soft is not None and soft is not pd.NA and np.ndim(soft) == 1:
            targets[row] = soft
    return targets


def _parents(frame: pd.DataFrame, ingredient: NDArray[np.str_]) -> NDArray[np.intp]:
    """(n_rows, 2): the labeled collected rows that a row was made from; a collected row is its own parent; -1: none."""
    parents = np.full((len(frame), 2), -1, dtype=np.intp)
    collected = np.flatnonzero(ingredient == "collected")
    parents[collected, 0] = collected
    known = pd.Index(frame["id"].iloc[collected])
    for row in np.flatnonzero((ingredient == "augment") | (ingredient == "synthesize")):
        named = frame["parent_ids"].iat[row]
        found = known.get_indexer(list(named)[:2]) if named is not None and np.ndim(named) == 1 else []
        parents[row, : len(found)] = np.where(np.asarray(found) < 0, -1, collected[found] if len(found) else 0)
    return parents


def pool_halves(groups: Iterable[str], seed: int) -> Ints:
    """Which half of the pool each group is in, 0 or 1: the models that learn from one half label the other."""
    return np.array([derived_seed(seed, "half", group) % 2 for group in groups], dtype=np.int64)
