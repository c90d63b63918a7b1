"""What the teacher says of the pool, spread over the rows' neighbors lineage by lineage, and calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedling.config.params import PseudoLabelParams
from seedling.dataset.generation import read
from seedling.files.reading import read_frame, reading
from seedling.models.label_propagation import brought_to, neighbor_graph, propagate_labels
from seedling.parallel.executor import in_threads
from seedling.parallel.pool import in_pieces
from seedling.stats.randomness import generator
from seedling.stats.statistics import SMALLEST, Floats, Ints, fit_temperature, log_loss_of_rows, softmax

NO_FOLD = -1  # of a labeled row that every model has seen
TEACHER_WEIGHTS = (0.1, 0.01, 0.001, 1e-5)  # what the teacher's opinion may count beside a label; the first is usual
UNPROVEN_WEIGHT = TEACHER_WEIGHTS[-1]  # where no labeled row could be held out to say what the opinion is worth
SURELY = 0.9  # bootstrap probability with which another weight must beat the usual one
ENOUGH_ROWS = 60  # held out: with fewer, two or three of them would decide
DRAWS = 500


@dataclass(frozen=True)
class Taught:
    """What the teacher says. Lineage k is fold k's, the last one the final model's.

    labeled: (n_labeled, n_classes) out of fold; pool: (n_lineages, n_pool, n_classes); fold (-1: never held out), truth,
    weights, human, repaired: (n_labeled,); trust: (n_lineages, n_labeled), how far each lineage believes the labels;
    labeled_std: (n_labeled,) and pool_std: (n_lineages, n_pool), of Monte Carlo dropout.
    """

    labeled_ids: list[str]
    pool_ids: list[str]
    half: Ints
    labeled: Floats
    pool: Floats
    fold: Ints
    folds: list[int]
    truth: Ints
    weights: Floats
    human: NDArray[np.bool_]
    repaired: NDArray[np.bool_]
    trust: Floats
    labeled_std: Floats
    pool_std: Floats


def read_taught(teacher: Path, validated: Path, classes: list[str]) -> Taught:
    """The teacher's predictions, in arrays."""
    labeled = read_frame(teacher / "out_of_fold.parquet")
    labeled = labeled[labeled["split"] == "train"]
    weight = read(validated, ["id", "weight"], splits=["train"]).drop_duplicates("id").set_index("id")["weight"]
    with reading(teacher / "pool_predictions.parquet"):
        pool = pq.read_table(teacher / "pool_predictions.parquet")
    fold = labeled["fold"].astype("float64").fillna(NO_FOLD).to_numpy(dtype=np.int64)
    folds = sorted(set(fold.tolist()) - {NO_FOLD})
    shape = (len(pool), len(folds) + 1, len(classes))
    number = {label: place for place, label in enumerate(classes)}
    return Taught(
        labeled_ids=labeled["id"].tolist(),
        pool_ids=pool["id"].to_pylist(),
        half=pool["half"].to_numpy().astype(np.int64),
        labeled=np.stack(labeled["probabilities"].to_numpy()).astype(np.float64),
        pool=_flat(pool["probabilities"]).astype(np.float64).reshape(shape).transpose(1, 0, 2),
        fold=fold,
        folds=folds,
        truth=np.array([number[label] for label in labeled["label"]], dtype=np.int64),
        weights=weight.loc[labeled["id"]].to_numpy(dtype=np.float64),
        human=(labeled["label_source"] == "human").to_numpy(),
        repaired=(labeled["label_source"] == "repaired").to_numpy(),
        trust=np.stack(labeled["label_weight_by_fold"].to_numpy()).astype(np.float64).T,
        labeled_std=labeled["dropout_std"].to_numpy(dtype=np.float64),
        pool_std=_flat(pool["dropout_std"]).astype(np.float64).reshape(shape[:2]).T,
    )


def _flat(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """The values of a column of lists, one after the other."""
    return np.asarray(column.combine_chunks().flatten().to_numpy(), dtype=np.float32)


@dataclass(frozen=True)
class Refined:
    """The pool's labels. probabilities: (n_lineages, n_pool, n_classes), calibrated; agrees: (n_lineages, n_pool), whether
    the teacher and the neighbors say the same; spread: (n_lineages, n_pool), of Monte Carlo dropout; held_out,
    held_agrees, held_spread: the same of trusted labeled rows, by lineages that never saw them; truth: (n_held_out,);
    teacher_weight: what the teacher's opinion counted beside a label in the final lineage, None where there is no graph; density: (n_pool,), how
    close a row's neighbors are, 1 on average.
    """

    probabilities: Floats
    agrees: NDArray[np.bool_]
    held_out: Floats
    held_agrees: NDArray[np.bool_]
    dropout_std: Floats
    held_out_std: Floats
    truth: Ints
    temperature: float
    teacher_weight: float | None
    graph: Any
    density: Floats


@dataclass(frozen=True)
class Lineage:
    """One lineage's view of labeled and pool rows, in this order, before it is known what the teacher counts.

    hidden: (n_labeled,), whose labels it never saw; teacher: (n, n_classes); from_labels, from_teacher: (n, n_classes), what
    of either reaches a row through the graph, in single precision, None where there is none. Spreading is linear in its seeds, so that one
    spreading of each serves all weights.
    """

    hidden: NDArray[np.bool_]
    teacher: Floats
    from_labels: NDArray[np.float32] | None
    from_teacher: NDArray[np.float32] | None

    @classmethod
    def of(cls, taught: Taught, place: int, graph: Any, strength: float) -> Lineage:
        """place: the lineage's number, the final one's the last."""
        many = len(taught.truth)
        hidden = taught.fold == taught.folds[place] if place < len(taught.folds) else np.zeros(many, dtype=bool)
        teacher = np.concatenate([taught.labeled, taught.pool[place]])
        if graph is None:
            return cls(hidden, teacher, None, None)
        shown = np.flatnonzero(~hidden)
        labels, opinion = np.zeros_like(teacher), teacher.copy()
        labels[shown, taught.truth[shown]] = taught.weights[shown] * taught.trust[place][shown]
        opinion[shown] = 0.0  # what was predicted for these rows comes from models that saw the hidden ones
        both = propagate_labels(graph, np.concatenate([labels, opinion], axis=1).astype(np.float32), strength=strength)
        return cls(hidden, teacher, both[:, : teacher.shape[1]], both[:, teacher.shape[1] :])

    def said(self, weight: float) -> Floats:
        """(n, n_classes), rows sum to 1, where the teacher's opinion of a row counts so much beside a label."""
        if self.from_labels is None or self.from_teacher is None:
            return self.teacher
        pool = self.teacher[len(self.hidden) :]
        return brought_to(pool.mean(axis=0), self.from_labels + weight * self.from_teacher.astype(np.float64))


def refine(taught: Taught, features: Any, params: PseudoLabelParams, seed: int = 0) -> Refined:
    """Spreads the teacher's opinion over the neighbors, lineage by lineage, and calibrates it on what each never saw.

    features: (n_labeled + n_pool, d), or None for the teacher's opinion as it is.
    """
    graph = None if features is None else neighbor_graph(features, params.neighbors)
    many = len(taught.truth)
    of_lineage = partial(Lineage.of, taught, graph=graph, strength=params.propagation)
    lineages: list[Lineage] = list(in_pieces(of_lineage, range(len(taught.folds) + 1), here=in_threads))
    testable = (taught.fold != NO_FOLD) & ~taught.repaired
    trusted = testable & taught.human if (testable & taught.human).any() else testable
    truth = taught.truth[trusted]

    def held_out(weights: Sequence[float]) -> tuple[Floats, NDArray[np.bool_]]:
        """The trusted rows' logits by lineages that never saw them, and whether the teacher alone says the same."""
        logits, agrees = np.zeros_like(taught.labeled), np.zeros(many, dtype=bool)
        for one, weight in zip(lineages, weights, strict=True):
            said = one.said(weight)[:many][one.hidden]
            logits[one.hidden] = logarithm(said)
            agrees[one.hidden] = said.argmax(axis=1) == one.teacher[:many][one.hidden].argmax(axis=1)
        return logits[trusted], agrees[trusted]

    weights = [TEACHER_WEIGHTS[0] if testable.any() else UNPROVEN_WEIGHT] * len(lineages)
    if graph is not None and testable.any():
        tried = [held_out([one] * len(lineages))[0] for one in TEACHER_WEIGHTS]
        seen = [~one.hidden[trusted] for one in lineages]  # a lineage's own fold has no say in its weight
        rng = [generator(seed, "teacher weight", place) for place in range(len(lineages))]
        weights = [
            weight_of_teacher([logits[rows] for logits in tried], truth[rows], draws)
            for rows, draws in zip(seen, rng, strict=True)
        ]
    known, known_agrees = held_out(weights)
    temperature = fit_temperature(known, truth)
    pool = [(one.said(weight)[many:], one.teacher[many:]) for one, weight in zip(lineages, weights, strict=True)]
    density = np.ones(len(taught.pool_ids)) if graph is None else np.asarray(graph.sum(axis=1)).ravel()[many:]
    return Refined(
        probabilities=np.stack([softmax(logarithm(said) / temperature) for said, _ in pool]),
        agrees=np.stack([said.argmax(axis=1) == teacher.argmax(axis=1) for said, teacher in pool]),
        held_out=softmax(known / temperature),
        held_agrees=known_agrees,
        dropout_std=taught.pool_std,
        held_out_std=taught.labeled_std[trusted],
        truth=truth,
        temperature=temperature,
        teacher_weight=None if graph is None else weights[-1],
        graph=graph,
        density=density / max(float(density.mean()), SMALLEST) if len(density) else density,
    )


def weight_of_teacher(held_out: Sequence[Floats], truth: Ints, rng: np.random.Generator) -> float:
    """What the teacher's opinion counts beside a label: the usual weight, unless another's log-loss on held-out rows is
    surely smaller. A teacher of two rows a class can be sure and wrong, and then the labels alone say more.

    held_out: (n_rows, n_classes), logits under each of `TEACHER_WEIGHTS`; truth: (n_rows,).
    """
    rows = len(truth)
    if rows < ENOUGH_ROWS:
        return TEACHER_WEIGHTS[0]
    losses = [log_loss_of_rows(softmax(one / fit_temperature(one, truth)), truth) for one in held_out]
    best = int(np.argmin([one.mean() for one in losses]))
    ahead = (losses[0] - losses[best])[rng.integers(rows, size=(DRAWS, rows))].mean(axis=1) > 0
    return TEACHER_WEIGHTS[best if ahead.mean() >= SURELY else 0]


def logarithm(probabilities: Floats) -> Floats:
    """Of zero too: that of the smallest number that counts."""
    found: Floats = np.log(np.maximum(probabilities, SMALLEST))
    return found
