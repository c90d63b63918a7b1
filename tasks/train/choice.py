"""Which learner, on which ingredients: the smallest out-of-fold log-loss on rows that people labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.learners.model import soft_vote
from tasks.params import Facts
from tasks.randomness import generator
from tasks.statistics import Estimate, Floats, Ints, accuracy, fit_temperature, interval, log_loss_of_rows, softmax
from tasks.train.cross_validation import Candidate, Predictions


@dataclass(frozen=True)
class Judged:
    """The rows that decide: labelled by people (by rules where there are none), predicted by models that never saw them.

    place: (n_labelled_judged,) row numbers within the labelled rows; validation rows follow behind them;
    truth, groups: (n,) for both together.
    """

    truth: Ints
    place: NDArray[np.intp]
    groups: NDArray[np.str_]

    def of(self, predictions: Predictions) -> Floats:
        """The judged rows' predictions, (n, n_classes)."""
        return np.concatenate([predictions.labelled[self.place], predictions.validation])


@dataclass(frozen=True)
class Choice:
    """The members of the chosen model and the temperatures that calibrate them."""

    members: tuple[Candidate, ...]
    temperatures: tuple[float, ...]
    temperature: float

    def combine(self, trained: Mapping[Candidate, Predictions]) -> Predictions:
        """The chosen model's probabilities."""
        parts = [trained[member] for member in self.members]

        def vote(logits: Sequence[Floats]) -> Floats:
            return soft_vote(logits, self.temperatures, self.temperature)

        return Predictions(
            labelled=vote([part.labelled for part in parts]),
            validation=vote([part.validation for part in parts]),
            pool=np.stack([vote([part.pool[place] for part in parts]) for place in range(len(parts[0].pool))]),
        )

    def as_json(self, classes: Sequence[str], facts: Facts, round_number: int, halves: int) -> dict[str, Any]:
        """As it is written to model.json."""
        return {
            "classes": list(classes),
            "halves": halves,
            "members": [
                {"learner": member.learner, "recipe": list(member.recipe), "temperature": temperature}
                for member, temperature in zip(self.members, self.temperatures, strict=True)
            ],
            "modality": facts.modality,
            "round": round_number,
            "temperature": self.temperature,
        }


def choose(trained: Mapping[Candidate, Predictions], judged: Judged) -> Choice:
    """Each learner on its best recipe, and all of them together: whichever has the smallest log-loss."""
    best: dict[str, Candidate] = {}
    for candidate in trained:
        rival = best.get(candidate.learner)
        if rival is None or _loss((candidate,), trained, judged) < _loss((rival,), trained, judged):
            best[candidate.learner] = candidate
    singles = [(one,) for one in best.values()]
    every = [tuple(best.values()), *singles]  # the ensemble first: it wins a tie
    return make_choice(min(every, key=lambda members: _loss(members, trained, judged)), trained, judged)


def make_choice(members: tuple[Candidate, ...], trained: Mapping[Candidate, Predictions], judged: Judged) -> Choice:
    """These members, calibrated on the judged rows."""
    logits = [judged.of(trained[member]) for member in members]
    temperatures = tuple(fit_temperature(one, judged.truth) for one in logits)
    vote = np.log(soft_vote(logits, temperatures, 1.0))
    return Choice(members, temperatures, fit_temperature(vote, judged.truth))


def _loss(members: tuple[Candidate, ...], trained: Mapping[Candidate, Predictions], judged: Judged) -> float:
    choice = make_choice(members, trained, judged)
    probabilities = soft_vote([judged.of(trained[one]) for one in members], choice.temperatures, choice.temperature)
    return float(log_loss_of_rows(probabilities, judged.truth).mean())


def calibrated(predictions: Predictions, judged: Judged) -> Floats:
    """(n, n_classes): one candidate's probabilities of the judged rows, under its own temperature."""
    logits = judged.of(predictions)
    return softmax(logits / fit_temperature(logits, judged.truth))


def candidate_table(
    trained: Mapping[Candidate, Predictions], choice: Choice, judged: Judged, draws: int, seed: int
) -> list[dict[str, Any]]:
    """One entry a candidate: learner, recipe, accuracy with its interval, log-loss, whether it is in the chosen model."""
    table = []
    for candidate, predictions in trained.items():
        entry = _entry(candidate.learner, candidate.recipe, calibrated(predictions, judged), judged, draws, seed)
        table.append({**entry, "chosen": candidate in choice.members})
    if len(choice.members) > 1:
        whole = judged.of(choice.combine(trained))
        recipe = tuple(dict.fromkeys(one for member in choice.members for one in member.recipe))
        table.append({**_entry("ensemble", recipe, whole, judged, draws, seed), "chosen": True})
    return table


def _entry(
    learner: str, recipe: tuple[str, ...], probabilities: Floats, judged: Judged, draws: int, seed: int
) -> dict[str, Any]:
    found: Estimate = interval(
        lambda rows: accuracy(probabilities[rows], judged.truth[rows]),
        judged.groups,
        draws=draws,
        confidence=0.95,
        rng=generator(seed, "candidates"),  # the same draws for each, so that the table compares like with like
    )
    return {
        "learner": learner,
        "recipe": list(recipe),
        "accuracy": found.rounded(),
        "log_loss": round(float(log_loss_of_rows(probabilities, judged.truth).mean()), 6),
    }
