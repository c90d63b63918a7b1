"""A candidate of a round, and the count of trained models with their seconds and losses."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.progress import Progress, silent
from seedling.records.candidates import CandidateRecord

GRADIENT_LEARNERS = ("network", "fine_tuned")


@dataclass(frozen=True)
class Candidate:
    """A learner, the training data that it is fitted on in addition to the pool's pseudo-labels, and its loss.

    trained_on: some of `INGREDIENTS`; written as `recipe` to the files of a round.
    loss: plain; label_weighted or label_weighted_twice (likely label errors weigh less); balanced (each class has the
    same weight); logit_adjusted (Menon et al. 2021). Networks also have consistency (learns from the unlabeled pool),
    focal (Lin et al. 2017), symmetric (Wang et al. 2019) and second_head. Learners trained by gradient descent have
    mixin (learns another dataset's classes as a second task).
    """

    learner: str
    trained_on: tuple[str, ...]
    loss: str = "plain"

    @classmethod
    def of(cls, record: CandidateRecord) -> Candidate:
        """The candidate of an entry in candidates.json."""
        return cls(record.learner, record.recipe, record.loss)

    @property
    def name(self) -> str:
        """The name in file names and in the file of seconds."""
        return "-".join([self.learner, *self.trained_on, self.loss])


PREVIOUS_MODEL = Candidate("previous_model", ())  # the accepted model of the round before, as a member


class Tally:
    """Counts trained models across threads, reports progress, and keeps each candidate's seconds and losses."""

    def __init__(self) -> None:
        self._done, self._total, self._lock = 0, 0, threading.Lock()
        self._progress: Progress = silent
        self.seconds: dict[Candidate, float] = {}
        self.losses: dict[str, list[tuple[int, float]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process the count starts at zero, without a progress callback."""
        return Tally, ()

    def expect_models(self, n_models: int, progress: Progress) -> None:
        """Add models to the expected total and report progress to this callback from now on."""
        self._total, self._progress = self._total + n_models, progress

    def expect_more_models(self, n_models: int) -> None:
        """Add models to the expected total."""
        with self._lock:
            self._total += n_models

    def count_model(self, candidate: Candidate, seconds: float) -> None:
        """Count one trained model; models beyond the expected total are the final ones."""
        with self._lock:
            self._done += 1
            self._total = max(self._total, self._done)
            self.seconds[candidate] = self.seconds.get(candidate, 0.0) + seconds
            self._progress("train models", self._done, self._total)

    def add_finished(
        self, candidate: Candidate, losses: Mapping[str, NDArray[np.float64]], n_models: int, seconds: float = 0.0
    ) -> None:
        """Count models that were trained by another process, or by a killed run (its seconds count as zero).

        losses: (n_steps, 2) step and loss by model.
        """
        with self._lock:
            for model, of_model in losses.items():
                self.losses[model] = [(int(step), float(loss)) for step, loss in of_model]
        for _ in range(n_models):
            self.count_model(candidate, seconds / n_models)

    def losses_of_fold(self, candidate: Candidate, fold_index: int) -> dict[str, NDArray[np.float64]]:
        """(n_steps, 2) step and loss by model, of the models of a fold."""
        prefix = f"{candidate.learner} {candidate.loss} fold {fold_index + 1} "
        with self._lock:
            losses_by_model = {model: list(losses) for model, losses in self.losses.items() if model.startswith(prefix)}
        return {model: np.array(losses) for model, losses in losses_by_model.items()}

    def forget_final_losses(self, candidate: Candidate) -> None:
        """Remove the losses of final models that are not used."""
        prefix = f"{candidate.learner} {candidate.loss} final"
        with self._lock:
            self.losses = {model: losses for model, losses in self.losses.items() if not model.startswith(prefix)}

    def record_step(self, model: str, step: int, loss: float) -> None:
        """Record the loss of one training step of a model that is trained by gradient descent."""
        with self._lock:
            self.losses.setdefault(model, []).append((step, loss))
            self._progress(f"train models ({model}, step {step}: loss {loss:.3f})", self._done, self._total)
