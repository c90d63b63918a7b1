"""The rows that a round trains on: all training rows of all generations as arrays."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.dataset.fold_probabilities import read_fold_probabilities
from seedling.dataset.generation import ids_of, read, read_manifest
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Floats, Ints

INGREDIENTS = ("collected", "augment", "synthesize")  # a round adds the pool with its pseudo-labels
COLUMNS = ["id", "split", "fold", "label", "label_probs", "weight", "parent_ids", "group"]  # texts are read on demand
PSEUDO_COLUMNS = ("pseudo_label_by_fold", "pseudo_weight_by_fold")
NO_FOLD = -1
MAX_PARENTS = 2  # per row


@dataclass(frozen=True)
class TrainingRows:
    """The training rows: labeled collected rows, augmented rows, synthesized rows and the pool, in this order.

    All arrays have n_rows entries.

    ingredient: one of `INGREDIENTS`, or "pool"; fold: NO_FOLD for rows without a fold; targets: (n_rows, n_classes),
    rows sum to 1, zeros for the pool; parents: (n_rows, 2), the numbers of the labeled rows that a row was made from,
    -1 if there is none; group: rows with the same group stay together; half: 0 or 1, the half of the pool that a row is
    in; pseudo_label_by_fold: (n_rows, n_fold_models), class numbers, -1 if a fold model has no label for the row;
    pseudo_weight_by_fold: the same shape, the weights of these labels; pseudo_probabilities: (n_pool, n_fold_models,
    n_classes), each fold model's class probabilities of the pool, None in round 0.
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
    pseudo_probabilities: NDArray[np.float32] | None = None

    @property
    def pool(self) -> NDArray[np.intp]:
        """The row numbers of the pool."""
        return np.flatnonzero(self.ingredient == "pool")

    @property
    def labeled(self) -> NDArray[np.intp]:
        """The row numbers of the labeled collected rows."""
        return np.flatnonzero(self.ingredient == "collected")

    @property
    def folds(self) -> list[int]:
        """The folds that have rows, in ascending order."""
        return sorted({int(fold) for fold in self.fold[self.labeled]} - {NO_FOLD})

    def digest(self) -> str:
        """A hash of all arrays, 16 hexadecimal digits. Ids are hashes of the contents, so it covers these as well."""
        rows_digest = hashlib.blake2b(digest_size=8)
        arrays = {name: array for name, array in vars(self).items() if array is not None}
        for name, array in sorted(arrays.items()):
            rows_digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return rows_digest.hexdigest()

    def for_fold_model(
        self,
        held_out_fold: int | None,
        column: int,
        half: int,
        ingredients: Sequence[str],
        label_weights: Floats | None = None,
        *,
        soft: bool = False,
    ) -> tuple[NDArray[np.intp], Floats, Floats]:
        """The row numbers, targets and weights that a fold model is trained on.

        held_out_fold: the fold that the model never sees, None for the final model, which sees all; column: the model's
        column in pseudo_label_by_fold; half: the half of the pool whose pseudo-labels it uses; ingredients: the rows it
        uses besides the pool; label_weights: (n_labeled,), factors for the weight of each labeled row and of the rows
        made from it; soft: whether the targets of the pool are probabilities instead of the likeliest class.
        """
        from_ingredients = np.isin(self.ingredient, ingredients)
        if held_out_fold is not None:
            from_ingredients &= self.fold != held_out_fold
        has_label = self.pseudo_label_by_fold[:, column] >= 0
        pseudo_labeled = (self.ingredient == "pool") & (self.half == half) & has_label
        targets, weights = self.targets.copy(), self.weights.copy()
        if soft and self.pseudo_probabilities is not None:
            targets[pseudo_labeled] = self.pseudo_probabilities[pseudo_labeled[self.pool], column]
        else:
            targets[pseudo_labeled, self.pseudo_label_by_fold[pseudo_labeled, column]] = 1.0
        weights[pseudo_labeled] = self.pseudo_weight_by_fold[pseudo_labeled, column]
        if label_weights is not None:
            factors = np.ones(len(weights) + 1)  # the last entry is for rows without a parent
            factors[self.labeled] = label_weights
            weights *= factors[self.parents].min(axis=1)
        chosen = np.flatnonzero(from_ingredients | pseudo_labeled)
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
    """Read the generations into one table.

    pseudo_labels: None in round 0; pool_rows: maximum number of rows of the pool.
    """
    training = read(validated, COLUMNS, splits=["train"])
    parts = {
        "collected": training[training["label"].notna()],
        "augment": read(augmented, COLUMNS),
        "synthesize": read(synthesized, COLUMNS),
        "pool": read(validated, COLUMNS, splits=["pool"], ids=drawn_pool(validated, pool_rows, seed)),
    }
    frame = pd.concat(parts.values(), ignore_index=True)
    ingredient = np.repeat(list(parts), [len(part) for part in parts.values()])
    fold = np.asarray(frame["fold"].astype("float64").fillna(NO_FOLD), dtype=np.int64)
    fold_models = len(set(fold[ingredient == "collected"].tolist()) - {NO_FOLD}) + 1
    pseudo_label_by_fold, pseudo_weight_by_fold = _pseudo_labels(frame, pseudo_labels, fold_models)
    pool_ids = frame.loc[ingredient == "pool", "id"]
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
        pseudo_probabilities=None if pseudo_labels is None else read_fold_probabilities(pseudo_labels, pool_ids),
    )


def _pseudo_labels(frame: pd.DataFrame, folder: Path | None, fold_models: int) -> tuple[Ints, Floats]:
    """(n_rows, n_fold_models) each: class numbers, -1 for none, and their weights."""
    labels = np.full((len(frame), fold_models), -1, dtype=np.int64)
    weights = np.zeros(labels.shape)
    if folder is not None:
        kept = read(folder, ["id", *PSEUDO_COLUMNS])
        row_numbers = pd.Index(frame["id"]).get_indexer(pd.Index(kept["id"]))
        kept_labels = np.array(kept["pseudo_label_by_fold"].tolist(), dtype=np.int64)
        labels[row_numbers] = kept_labels.reshape(-1, fold_models)
        weights[row_numbers] = np.array(kept["pseudo_weight_by_fold"].tolist()).reshape(-1, fold_models)
    return labels, weights


def mixed_in_rows(validated: Path, max_rows: int, seed: int) -> pd.DataFrame:
    """The rows of mixed-in datasets, with their labels and weights, by id: at most `max_rows`, drawn by their ids."""
    rows = read(validated, ["id", "label", "weight"], splits=["mixin"]).set_index("id")
    drawn = heapq.nsmallest(max_rows, rows.index, key=lambda row_id: (derived_seed(seed, "mixin", row_id), row_id))
    return rows.loc[drawn]


def drawn_pool(validated: Path, max_rows: int, seed: int) -> list[str] | None:
    """At most `max_rows` ids of the pool, drawn by hash; None if the pool is not larger.

    More rows would cost hours and gigabytes and improve the models little.
    """
    if read_manifest(validated).rows_of("pool") <= max_rows:
        return None
    ids = ids_of(validated, "pool")
    return heapq.nsmallest(max_rows, ids, key=lambda row_id: (derived_seed(seed, "pool", row_id), row_id))


def _targets(frame: pd.DataFrame, ingredient: NDArray[np.str_], classes: Sequence[str]) -> Floats:
    """(n_rows, n_classes): the row's soft label if it has one, else its label as one-hot vector; zeros for the pool."""
    targets = np.zeros((len(frame), len(classes)))
    outside_pool = ingredient != "pool"
    labeled = np.flatnonzero(outside_pool & frame["label"].notna().to_numpy())
    targets[labeled, pd.Index(classes).get_indexer(pd.Index(frame["label"].iloc[labeled]))] = 1.0
    soft_labels: list[Any] = frame["label_probs"].tolist()
    for row in np.flatnonzero(outside_pool):
        soft_label = soft_labels[row]
        if soft_label is not None and soft_label is not pd.NA and np.ndim(soft_label) == 1:
            targets[row] = soft_label
    return targets


def _parents(frame: pd.DataFrame, ingredient: NDArray[np.str_]) -> NDArray[np.intp]:
    """(n_rows, 2): the labeled collected rows that a row was made from, -1 for none.

    A collected row is its own parent.
    """
    parents = np.full((len(frame), MAX_PARENTS), -1, dtype=np.intp)
    collected = np.flatnonzero(ingredient == "collected")
    parents[collected, 0] = collected
    collected_ids = pd.Index(frame["id"].iloc[collected])
    parent_ids_of_rows: list[Any] = frame["parent_ids"].tolist()
    for row in np.flatnonzero((ingredient == "augment") | (ingredient == "synthesize")):
        parent_ids = parent_ids_of_rows[row]
        has_parents = parent_ids is not None and np.ndim(parent_ids) == 1
        positions = collected_ids.get_indexer(pd.Index(list(parent_ids)[:MAX_PARENTS])) if has_parents else []
        row_numbers = collected[positions] if len(positions) else 0
        parents[row, : len(positions)] = np.where(np.asarray(positions) < 0, -1, row_numbers)
    return parents


def pool_halves(groups: Iterable[str], seed: int) -> Ints:
    """The half of the pool, 0 or 1, that each group is in. Models trained on one half label the other."""
    return np.array([derived_seed(seed, "half", group) % 2 for group in groups], dtype=np.int64)
