"""Which learners, on which ingredients and losses: the smallest out-of-fold log-loss on rows that people labeled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import WorkspaceConfig
from seedling.models.model import soft_vote
from seedling.stats.randomness import generator
from seedling.stats.statistics import (
    Floats,
    Ints,
    fit_temperature,
    log_loss_of_rows,
    paired_difference,
    share,
    softmax,
    wilson,
)
from seedling.train.cross_validation import Predictions
from seedling.train.tally import Candidate

PICKS = 12  # of the ensemble's greedy selection, with replacement
SURELY = 0.8  # bootstrap probability with which the selection must beat the plain vote of all
DEFAULT_VOTE = ("network", "fine_tuned", "logistic_regression", "svm")  # where no row can be held out


@dataclass(frozen=True)
class Judged:
    """The rows that decide: labeled by people (by rules where there are none), predicted by models that never saw them.

    place: (n_labeled_judged,) row numbers within the labeled rows; validation rows follow behind them;
    validation: how many; out-of-scope rows follow behind them, which decide nothing but when to abstain;
    truth, groups: (n,) for labeled and validation rows together; weights: (n,), what a row counts in a choice, mean 1.
    """

    truth: Ints
    place: NDArray[np.intp]
    groups: NDArray[np.str_]
    weights: Floats
    validation: int = 0

    def of(self, predictions: Predictions) -> Floats:
        """The judged rows' predictions, (n, n_classes)."""
        return np.concatenate([predictions.labeled[self.place], predictions.validation[: self.validation]])

    def outside(self, predictions: Predictions) -> Floats:
        """The out-of-scope rows' predictions, (n_out_of_scope, n_classes)."""
        return predictions.validation[self.validation :]


@dataclass(frozen=True)
class Choice:
    """The members of the chosen model, their votes, and the temperatures that calibrate them."""

    members: tuple[Candidate, ...]
    temperatures: tuple[float, ...]
    temperature: float
    votes: tuple[float, ...]

    def combine(self, trained: Mapping[Candidate, Predictions]) -> Predictions:
        """The chosen model's probabilities."""
        parts = [trained[member] for member in self.members]

        def vote(logits: Sequence[Floats]) -> Floats:
            return soft_vote(logits, self.temperatures, self.temperature, self.votes)

        return Predictions(
            labeled=vote([part.labeled for part in parts]),
            validation=vote([part.validation for part in parts]),
            pool=np.stack([vote([part.pool[place] for part in parts]) for place in range(len(parts[0].pool))]),
            labeled_std=np.max([part.labeled_std for part in parts], axis=0),
            pool_std=np.max([part.pool_std for part in parts], axis=0),
        )

    def as_json(
        self,
        classes: Sequence[str],
        facts: WorkspaceConfig,
        round_number: int,
        halves: Callable[[Candidate], int],
        abstain: Mapping[str, Any],
    ) -> dict[str, Any]:
        """As it is written to model.json. halves: how many models a member has, one a half of the pool."""
        return {
            "selective_prediction": dict(abstain),
            "classes": list(classes),
            "members": [
                {
                    "learner": member.learner,
                    "recipe": list(member.recipe),
                    "loss": member.loss,
                    "file": member.name,  # in models/<round>/half-<half>/, without its ending
                    "halves": halves(member),
                    "temperature": temperature,
                    "votes": votes,
                }
                for member, temperature, votes in zip(self.members, self.temperatures, self.votes, strict=True)
            ],
            "modality": facts.modality,
            "round": round_number,
            "temperature": self.temperature,
        }


def choose(trained: Mapping[Candidate, Predictions], judged: Judged, seed: int = 0) -> Choice:
    """The plain vote of each learner's best, unless one learner alone, or a greedy selection (Caruana et al. 2004), is better.

    One learner alone must have the smaller log-loss; the selection, which has more freedom to flatter itself, must be
    ahead in 80 % of bootstrap draws. Where no row can be held out the vote of the usual learners stands.
    """
    best = best_of_learners(trained, judged)
    if len(judged.truth) == 0:
        members = tuple(one for one in best if one.learner in DEFAULT_VOTE) or tuple(best)
        return make_choice(members, trained, judged)
    every = [tuple(best), *((one,) for one in best)]  # the vote of all first: it wins a tie
    simple = min(every, key=lambda members: _loss(make_choice(members, trained, judged), trained, judged))
    plain = make_choice(simple, trained, judged)
    counted = greedy(trained, judged)
    selected = make_choice(tuple(counted), trained, judged, tuple(float(one) for one in counted.values()))
    old, new = (_losses(one, trained, judged) for one in (plain, selected))
    ahead = paired_difference(
        new, old, judged.groups, larger_is_better=True, draws=500, rng=generator(seed, "selection")
    )
    return selected if new.mean() < old.mean() and 1 - ahead.probability_worse >= SURELY else plain


def best_of_learners(trained: Mapping[Candidate, Predictions], judged: Judged) -> list[Candidate]:
    """Each learner on its best recipe and loss, in the order in which the learners were tried."""
    best: dict[str, tuple[float, Candidate]] = {}
    for candidate in trained:
        loss = _loss(make_choice((candidate,), trained, judged), trained, judged) if len(judged.truth) else 0.0
        rival = best.get(candidate.learner)
        # Without a row to judge by, the recipe with most ingredients, which comes last.
        if rival is None or loss < rival[0] or (len(judged.truth) == 0 and candidate.loss == "plain"):
            best[candidate.learner] = (loss, candidate)
    return [candidate for _, candidate in best.values()]


def greedy(trained: Mapping[Candidate, Predictions], judged: Judged) -> Counter[Candidate]:
    """How often each candidate is picked: at each step the one that makes the average's log-loss smallest."""
    said = {one: calibrated(predictions, judged) for one, predictions in trained.items()}
    picked: Counter[Candidate] = Counter()
    total, before = np.zeros((len(judged.truth), next(iter(said.values())).shape[1])), np.inf
    for number in range(1, PICKS + 1):
        losses = {
            one: float((judged.weights * log_loss_of_rows((total + each) / number, judged.truth)).mean())
            for one, each in said.items()
        }
        best = min(losses, key=lambda one: losses[one])
        if losses[best] > before - 1e-4:
            break
        picked[best] += 1
        total, before = total + said[best], losses[best]
    return picked


def make_choice(
    members: tuple[Candidate, ...],
    trained: Mapping[Candidate, Predictions],
    judged: Judged,
    votes: tuple[float, ...] | None = None,
) -> Choice:
    """These members, calibrated on the judged rows."""
    votes = votes or (1.0,) * len(members)
    logits = [judged.of(trained[member]) for member in members]
    temperatures = tuple(fit_temperature(one, judged.truth) for one in logits)
    vote = np.log(soft_vote(logits, temperatures, 1.0, votes))
    return Choice(members, temperatures, fit_temperature(vote, judged.truth), votes)


def _losses(choice: Choice, trained: Mapping[Candidate, Predictions], judged: Judged) -> Floats:
    logits = [judged.of(trained[one]) for one in choice.members]
    probabilities = soft_vote(logits, choice.temperatures, choice.temperature, choice.votes)
    result: Floats = judged.weights * log_loss_of_rows(probabilities, judged.truth)
    return result


def _loss(choice: Choice, trained: Mapping[Candidate, Predictions], judged: Judged) -> float:
    return float(_losses(choice, trained, judged).mean())


def calibrated(predictions: Predictions, judged: Judged) -> Floats:
    """(n, n_classes): one candidate's probabilities of the judged rows, under its own temperature."""
    logits = judged.of(predictions)
    return softmax(logits / fit_temperature(logits, judged.truth))


def abstention(
    probabilities: Floats, truth: Ints, wanted: float, outside: Floats | None = None, nothing: int | None = None
) -> dict[str, Any]:
    """Under which confidence the model had better not answer, so that of its answers a share `wanted` is right.

    probabilities: (n, n_classes), out of fold; outside: the same of out-of-scope rows, of which every answer is wrong but
    `nothing`, the number of the class for what is none of the others. The lowest such limit; where there is none, the one above which the answers
    are oftenest right, of a tenth of the rows at least. `threshold` 0: it always answers. `accuracy`, of the rows that it answers, and `coverage` are shares
    with Wilson's intervals. The threshold is chosen on these very rows, so `accuracy` is slightly optimistic.
    """
    if len(truth) == 0:
        return {"threshold": 0.0, "target_accuracy": wanted, "coverage": None, "accuracy": None, "out_of_scope": 0}
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    if outside is not None and len(outside):
        confidence = np.concatenate([confidence, outside.max(axis=1)])
        right = np.concatenate([right, outside.argmax(axis=1) == (-1 if nothing is None else nothing)])
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(right[order])
    shares = hits / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(shares >= wanted)
    last = int(enough[-1]) if len(enough) else int(shares[len(order) // 10 :].argmax() + len(order) // 10)
    everyone = last == len(order) - 1
    answered = wilson(last + 1, len(order))
    return {
        "threshold": 0.0
        if everyone
        else float(np.floor(confidence[order[last]] * 1e6) / 1e6),  # so that this row is answered
        "target_accuracy": wanted,
        "coverage": answered.rounded(),
        "accuracy": wilson(int(hits[last]), last + 1).rounded(),
        "out_of_scope": 0 if outside is None else len(outside),
    }


def candidate_table(trained: Mapping[Candidate, Predictions], choice: Choice, judged: Judged) -> list[dict[str, Any]]:
    """One entry a candidate: learner, recipe, loss, accuracy with its interval, log-loss, its share of the chosen vote."""
    table = []
    votes = dict(zip(choice.members, choice.votes, strict=True))
    for candidate, predictions in trained.items():
        said = calibrated(predictions, judged)
        entry = _entry(candidate.learner, candidate.recipe, said, judged)
        if len(judged.truth):  # what the choice looks at, where that is not the plain mean
            weighted = float((judged.weights * log_loss_of_rows(said, judged.truth)).mean())
            entry["choice_loss"] = round(weighted, 6)
        share = votes.get(candidate, 0.0) / sum(choice.votes)
        table.append({**entry, "loss": candidate.loss, "chosen": candidate in votes, "vote": round(share, 4)})
    if len(choice.members) > 1:
        whole = judged.of(choice.combine(trained))
        recipe = tuple(dict.fromkeys(one for member in choice.members for one in member.recipe))
        entry = _entry("ensemble", recipe, whole, judged)
        table.append({**entry, "loss": "plain", "chosen": True, "vote": 1.0})
    return table


def _entry(learner: str, recipe: tuple[str, ...], probabilities: Floats, judged: Judged) -> dict[str, Any]:
    entry: dict[str, Any] = {"learner": learner, "recipe": list(recipe), "accuracy": None, "log_loss": None}
    if len(judged.truth) == 0:
        return entry
    right = probabilities.argmax(axis=1) == judged.truth
    loss = float(log_loss_of_rows(probabilities, judged.truth).mean())
    return {**entry, "accuracy": share(right, judged.groups, 0.95).rounded(), "log_loss": round(loss, 6)}
