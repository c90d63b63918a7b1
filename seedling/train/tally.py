"""What is tried in a round, a candidate, and the count of the models that are trained, with their seconds and losses."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.progress import Progress, silent

GRADIENT_LEARNERS = ("network", "fine_tuned")


@dataclass(frozen=True)
class Candidate:
    """A learner, the ingredients that it is trained on besides the pool's pseudo-labels, and its loss.

    loss: plain; trusted, label_weighted_twice (rows whose label is doubtful count less); balanced (each class counts alike);
    logit_adjusted (Menon et al. 2021); of networks also consistency (the pool is learnt from without labels), focal (Lin et al. 2017),
    symmetric (Wang et al. 2019) and second_head; of what learns by gradients mixin (another dataset's classes are learnt beside ours).
    """

    learner: str
    recipe: tuple[str, ...]
    loss: str = "plain"

    @property
    def name(self) -> str:
        """As its files and its seconds are called."""
        return "-".join([self.learner, *self.recipe, self.loss])

    @property
    def carried(self) -> bool:
        """Whether later rounds take it over as round 0 trained it: what learns by gradients costs too much to train again."""
        return self.learner in GRADIENT_LEARNERS


class Tally:
    """Counts the models that are trained, from whichever thread, says so, and keeps each candidate's seconds and losses."""

    def __init__(self) -> None:
        self._done, self._total, self._lock = 0, 0, threading.Lock()
        self._progress: Progress = silent
        self.seconds: dict[Candidate, float] = {}
        self.losses: dict[str, list[tuple[int, float]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process nothing is counted yet, and nobody watches."""
        return Tally, ()

    def expect(self, more: int, progress: Progress) -> None:
        """From here on, so many more."""
        self._total, self._progress = self._total + more, progress

    def one_more(self, candidate: Candidate, seconds: float) -> None:
        """One model is done; those beyond the total are the final ones."""
        with self._lock:
            self._done += 1
            self._total = max(self._total, self._done)
            self.seconds[candidate] = self.seconds.get(candidate, 0.0) + seconds
            self._progress("train models", self._done, self._total)

    def take_over(self, candidate: Candidate, found: dict[str, Any], models: int, seconds: float = 0.0) -> None:
        """What was done elsewhere: by a run that was killed, whose seconds count nothing here, or by another process."""
        with self._lock:
            for name, losses in found.items():
                if name.startswith("losses "):
                    model = name.removeprefix("losses ")
                    self.losses[model] = [(int(step), float(loss)) for step, loss in losses]
        for _ in range(models):
            self.one_more(candidate, seconds / models)

    def of_fold(self, candidate: Candidate, place: int) -> dict[str, NDArray[np.float64]]:
        """The losses of the fold's models, as arrays to be kept."""
        start = f"{candidate.learner} {candidate.loss} fold {place + 1} "
        with self._lock:
            mine = {model: list(losses) for model, losses in self.losses.items() if model.startswith(start)}
        return {f"losses {model}": np.array(losses) for model, losses in mine.items()}

    def step(self, model: str, step: int, loss: float) -> None:
        """A training step's loss of a model that learns by gradients."""
        with self._lock:
            self.losses.setdefault(model, []).append((step, loss))
            self._progress(f"train models ({model}, step {step}: loss {loss:.3f})", self._done, self._total)
