"""The data that all candidates of a round share, and the training of one model on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from seedling.dataset.training_rows import TrainingRows
from seedling.features.classical import Inputs
from seedling.label_quality.label_weights import LABEL_WEIGHTED_LOSSES, estimate_label_weights
from seedling.models.losses import CONSISTENCY, Adjusted, balanced, class_shares
from seedling.models.saving import Learner, make_learner
from seedling.models.training import FitContext
from seedling.parallel.executor import pieces_at_once
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Floats
from seedling.train.tally import Candidate, Tally

MIN_SECONDS_TO_SAVE = 5.0  # results of longer work are saved, so that they survive a kill
SOFT_LABEL_LEARNERS = ("nearest_neighbors",)  # they learn the probabilities of pseudo-labels, not the likeliest class


@dataclass(frozen=True)
class TrainingData:
    """The data that all candidates of a round share.

    pseudo_labeled: whether the pool has labels from the round before; scratch: folder of unfinished work, None if
    nothing is saved; label_weight_cache: by fold model and loss, see `label_weights`; final_models: those that
    cross-validation has fitted, see `take_final_models`; min_seconds_to_save: results of longer work are saved;
    make_learner: creates an unfitted learner by its name; max_parallel_trainings: `pieces_at_once` if None.
    """

    rows: TrainingRows
    inputs: Inputs
    validation: Inputs
    context: FitContext
    pseudo_labeled: bool = False
    scratch: Path | None = None
    tally: Tally = field(default_factory=lambda: Tally())
    label_weight_cache: dict[tuple[int, str], Floats] = field(default_factory=dict)
    final_models: dict[Candidate, list[Learner]] = field(default_factory=dict)
    min_seconds_to_save: float = MIN_SECONDS_TO_SAVE
    make_learner: Callable[[str, FitContext], Learner] = make_learner
    max_parallel_trainings: int | None = None

    def __post_init__(self) -> None:
        """Import scikit-learn before threads train: two that import it at once may find it half imported."""
        import sklearn  # noqa: F401

    @property
    def parallel_trainings(self) -> int:
        """Number of trainings that run at the same time."""
        return pieces_at_once() if self.max_parallel_trainings is None else self.max_parallel_trainings

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.context.classes

    @property
    def n_models(self) -> int:
        """Number of models per fold model: one per half of the pool if they learn its pseudo-labels, else one.

        With two models, each half is labeled by the model that did not learn its pseudo-labels.
        """
        return 2 if self.pseudo_labeled and len(self.rows.pool) else 1

    def fit_predict(self, learner: str, train_rows: NDArray[np.intp], test_rows: NDArray[np.intp]) -> Floats:
        """Fit a learner on some labeled rows and nothing else; return its logits (n_test, n_classes) for others.

        train_rows, test_rows: positions within the labeled rows.
        """
        model, rows = self.make_learner(learner, self.context), self.rows.labeled[train_rows]
        model.fit(self.inputs.take(rows), self.rows.targets[rows], self.rows.weights[rows])
        return model.logits(self.inputs.take(self.rows.labeled[test_rows]))

    def fit(self, candidate: Candidate, held_out_fold: int | None, fold_index: int, half: int) -> Learner:
        """Fit one model of one fold model.

        held_out_fold: None for the final model; fold_index: position of the fold model, the final model's is the number
        of folds; half: the half of the pool whose pseudo-labels the model learns.
        """
        started = perf_counter()
        label_weights = (
            self.label_weights(fold_index, candidate.loss) if candidate.loss in LABEL_WEIGHTED_LOSSES else None
        )
        chosen, targets, weights = self.rows.for_fold_model(
            held_out_fold,
            fold_index,
            half,
            candidate.trained_on,
            label_weights,
            soft=candidate.learner in SOFT_LABEL_LEARNERS,
        )
        if candidate.loss == "balanced":
            weights = balanced(targets, weights)
        fold_name = "final" if held_out_fold is None else f"fold {fold_index + 1}"
        model_name = f"{candidate.learner} {candidate.loss} {fold_name} half {half}"
        context = self.context.of_model(
            seed=derived_seed(self.context.seed, candidate.learner, held_out_fold, half),
            loss=candidate.loss,
            device=fold_index,
            checkpoint=None if self.scratch is None else self.scratch / f"{candidate.name}-{fold_index}-{half}",
            watch=lambda step, loss: self.tally.record_step(model_name, step, loss),
            mixed_in=self.rows.ingredient[chosen] == "synthesize",
            unlabeled=self._unlabeled if candidate.loss == CONSISTENCY else None,
        )
        learner = self.make_learner(candidate.learner, context)
        learner.fit(self.inputs.take(chosen), targets, weights)
        if candidate.loss == "logit_adjusted":
            learner = Adjusted(learner, np.log(class_shares(targets, weights)))
        self.tally.count_model(candidate, perf_counter() - started)
        return learner

    @cached_property
    def _unlabeled(self) -> Inputs | None:
        """The pool, which networks with consistency learn from without labels; None if there is none.

        All of them share one copy.
        """
        return self.inputs.take(self.rows.pool) if len(self.rows.pool) else None

    def label_weights(self, fold_index: int, loss: str) -> Floats:
        """(n_labeled,), 0 to 1: each labeled row's label weight, from models that did not learn from the row.

        Rows of the fold that the fold model never sees keep 1. With "label_weighted_twice", the weights are squared and
        then computed once more with models that were trained with the squared weights.
        loss: one of `LABEL_WEIGHTED_LOSSES`.
        """
        if (fold_index, loss) not in self.label_weight_cache:
            twice = loss == "label_weighted_twice"
            training_weights = (
                self.label_weights(fold_index, "label_weighted") ** 2 if twice else np.ones(len(self.rows.labeled))
            )
            weights = estimate_label_weights(self.rows, self.inputs, self.context, fold_index, training_weights)
            self.label_weight_cache[fold_index, loss] = weights**2 if twice else weights
        return self.label_weight_cache[fold_index, loss]
