"""Models of the other folds: what they say of a row, or of a child of a row, that they never saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from seedling.dataset.generation import payloads
from seedling.features.classical import FeatureMaker, Inputs
from seedling.models.saving import Learner, make_learner
from seedling.models.training import FitContext
from seedling.progress import Progress
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Floats, Ints, fit_temperature, softmax

QUICK_LEARNER = "logistic_regression"


@dataclass(frozen=True)
class Parents:
    """Labeled training rows with their features. labels: (n,), class numbers; fold: (n,), -1 for rows of none; features: fitted to them."""

    ids: list[str]
    payloads: list[Any]
    labels: Ints
    fold: Ints
    groups: NDArray[np.str_]
    weights: Floats
    classes: int
    features: FeatureMaker
    inputs: Inputs

    def dealt_anew(self, seed: int) -> Parents:
        """The same rows in other folds, each group in one; rows of no fold stay in none."""
        dealt = np.array([derived_seed(seed, "dealt anew", group) for group in self.groups])
        folds, fold = len({*self.fold.tolist()} - {-1}), self.fold.copy()
        for label in range(self.classes):
            mine = sorted(
                {
                    (int(dealt[row]), self.groups[row])
                    for row in np.flatnonzero((self.labels == label) & (self.fold >= 0))
                }
            )
            for turn, (_, group) in enumerate(mine):
                fold[(self.groups == group) & (self.fold >= 0)] = turn % folds
        return replace(self, fold=fold)


def read_parents(
    rows: pd.DataFrame,
    classes: Sequence[str],
    collected: Path,
    maker: FeatureMaker,
    at_most: int,
    seed: int,
    progress: Progress,
) -> Parents:
    """The rows, at most so many: each class's by an order of their names, in turn. rows: indexed by id."""
    if len(rows) > at_most:
        turn = rows.assign(order=[derived_seed(seed, "screened", one) for one in rows.index]).sort_values("order")
        turn["turn"] = turn.groupby("label").cumcount()
        rows = rows.loc[sorted(turn.sort_values(["turn", "order"]).index[:at_most])]
    ids = rows.index.tolist()
    inputs = maker.of_rows(ids, partial(payloads, [collected]), fit=True, progress=progress)
    read = dict(payloads([collected], ids))
    number = {label: place for place, label in enumerate(classes)}
    return Parents(
        ids=ids,
        payloads=[read[one] for one in ids],
        labels=np.array([number[label] for label in rows["label"]], dtype=np.int64),
        fold=rows["fold"].astype("float64").fillna(-1).to_numpy(dtype=np.int64),
        groups=rows["group"].to_numpy(dtype=str),
        weights=rows["weight"].to_numpy(dtype=np.float64),
        classes=len(classes),
        features=maker,
        inputs=inputs,
    )


@dataclass(frozen=True)
class Children:
    """Children of parents. of: (n,), their parents' rows; weight: beside their parent's."""

    inputs: Inputs
    of: NDArray[np.intp]
    weight: float


def taught_and_asked(
    parents: Parents,
    judged: NDArray[np.intp],
    children: Children | None,
    setting: FitContext,
    learner: str = QUICK_LEARNER,
) -> tuple[Floats, dict[int, Learner]]:
    """(n_judged, n_classes): each judged row's probabilities, from a model of the other folds' rows and of their children, at one temperature;
    and the models by fold.
    """
    folds = sorted({int(one) for one in parents.fold[judged]})
    logits, models = np.zeros((len(judged), parents.classes)), {}
    for fold in folds:
        models[fold] = make_learner(learner, setting.of_model(seed=derived_seed(setting.seed, learner, fold)))
        models[fold].fit(*_taught(parents, parents.fold != fold, children))
        mine = np.flatnonzero(parents.fold[judged] == fold)
        logits[mine] = models[fold].logits(parents.inputs.take(judged[mine]))
    return softmax(logits / fit_temperature(logits, parents.labels[judged])), models


def _taught(parents: Parents, seen: NDArray[np.bool_], children: Children | None) -> tuple[Inputs, Floats, Floats]:
    rows = np.flatnonzero(seen)
    inputs, labels, weights = parents.inputs.take(rows), parents.labels[rows], parents.weights[rows]
    if children is not None:
        mine = np.flatnonzero(seen[children.of])
        inputs = _beside(inputs, children.inputs.take(mine))
        labels = np.concatenate([labels, parents.labels[children.of[mine]]])
        weights = np.concatenate([weights, children.weight * parents.weights[children.of[mine]]])
    return inputs, np.eye(parents.classes)[labels], weights


def _beside(first: Inputs, second: Inputs) -> Inputs:
    both = [first.features, second.features]
    features = sparse.vstack(both).tocsr() if sparse.issparse(both[0]) else np.concatenate(both)
    if first.images is None or second.images is None:
        return Inputs(features)
    return Inputs(features, np.concatenate([first.images, second.images]))


def probabilities_of(model: Learner, inputs: Inputs) -> Floats:
    """(n, n_classes), not brought to a temperature."""
    return softmax(model.logits(inputs))


def hardness(parents: Parents) -> dict[str, float]:
    """How hard each row is to models of the other folds: the rank of its label's probability within its class, 0 the easiest, 1 the hardest.

    Rows whose label is probably wrong are at most in the middle, since more copies of an error teach the error: those that another class claims, by at
    least the probability that its own rows have on average (confident learning, Northcutt et al. 2021). Rows of no fold are in the middle.
    """
    judged = np.flatnonzero(parents.fold >= 0)
    said, _ = taught_and_asked(parents, judged, None, FitContext(parents.classes))
    label, found = parents.labels[judged], dict.fromkeys(parents.ids, 0.5)
    own = said[np.arange(len(judged)), label]
    usual = np.array([own[label == one].mean() if (label == one).any() else 2.0 for one in range(parents.classes)])
    claims = np.where(said >= usual, said, 0.0)
    doubted = (claims.max(axis=1) > 0) & (claims.argmax(axis=1) != label)
    for one in np.unique(label):
        mine = np.flatnonzero(label == one)
        ranks = np.argsort(np.argsort(-own[mine], kind="stable"), kind="stable") / max(1, len(mine) - 1)
        for row, rank in zip(mine, ranks, strict=True):
            found[parents.ids[judged[row]]] = min(0.5, float(rank)) if doubted[row] or len(mine) == 1 else float(rank)
    return found


class Guard:
    """Says of which children the models of the other folds no longer take for their parent's class, though they did take the parent for it."""

    def __init__(self, parents: Parents) -> None:
        judged = np.flatnonzero(parents.fold >= 0)
        said, self._models = taught_and_asked(parents, judged, None, FitContext(parents.classes))
        self._right = {
            parents.ids[row]: (int(parents.fold[row]), int(parents.labels[row]))
            for row, one in zip(judged, said, strict=True)
            if int(one.argmax()) == parents.labels[row]
        }
        self._features = parents.features

    def changed(self, children: Sequence[tuple[str, Any]]) -> Iterator[bool]:
        """For each (parent's id, child's payload): whether its label seems to have changed. False where the models did not know the parent."""
        inputs = self._features.transform([payload for _, payload in children])
        for row, (parent, _) in enumerate(children):
            fold, label = self._right.get(parent, (-1, -1))
            if fold < 0:
                yield False
                continue
            yield int(self._models[fold].logits(inputs.take(np.array([row], dtype=np.intp))).argmax()) != label
