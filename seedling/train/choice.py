"""Choose learners, training data and losses by the smallest out-of-fold log loss on human-labeled rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from seedling.models.model import soft_vote
from seedling.records.candidates import ENSEMBLE, CandidateRecord
from seedling.records.intervals import EstimateRecord
from seedling.records.model import AbstentionRecord
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
from seedling.train.tally import PREVIOUS_MODEL, Candidate

MAX_ENSEMBLE_PICKS = 12  # of the greedy selection, with replacement
MIN_P_BETTER = 0.8  # bootstrap probability with which the greedy ensemble must beat the plain one
DEFAULT_TARGET_ACCURACY = 0.95  # of the rows on which the model does not abstain
MIN_DEFAULT_COVERAGE = 0.5  # share of the rows; a model that predicts fewer gets a lower default target
DEFAULT_MEMBERS = ("network", "fine_tuned", "logistic_regression", "svm")  # used if no row can be held out


@dataclass(frozen=True)
class EvaluationRows:
    """The rows that decide: labeled by humans (by rules if there are none), predicted by models that never saw them.

    truth, groups: (n,), labeled rows first, then validation rows; labeled_index: (n_labeled_evaluated,), positions
    within the labeled rows; weights: (n,), each row's weight in the choice, mean 1; n_validation: number of validation
    rows. In `Predictions.validation`, out-of-scope rows follow the validation rows; only the abstention threshold uses
    them.
    """

    truth: Ints
    labeled_index: NDArray[np.intp]
    groups: NDArray[np.str_]
    weights: Floats
    n_validation: int = 0

    def select(self, predictions: Predictions) -> Floats:
        """(n, n_classes): the predictions of the evaluation rows."""
        return np.concatenate([predictions.labeled[self.labeled_index], predictions.validation[: self.n_validation]])

    def out_of_scope(self, predictions: Predictions) -> Floats:
        """(n_out_of_scope, n_classes): the predictions of the out-of-scope rows."""
        return predictions.validation[self.n_validation :]


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

        n_fold_models = len(parts[0].pool)
        return Predictions(
            labeled=vote([part.labeled for part in parts]),
            validation=vote([part.validation for part in parts]),
            pool=np.stack([vote([part.pool[fold_index] for part in parts]) for fold_index in range(n_fold_models)]),
            labeled_std=np.max([part.labeled_std for part in parts], axis=0),
            pool_std=np.max([part.pool_std for part in parts], axis=0),
        )


def choose(trained: Mapping[Candidate, Predictions], evaluation_rows: EvaluationRows, seed: int = 0) -> Choice:
    """Choose the best learner, the plain ensemble of all learners, or a greedy ensemble (Caruana et al. 2004).

    The plain ensemble gives each learner's best candidate one vote. A single learner replaces it if its log loss is
    smaller. The greedy ensemble can overfit the evaluation rows, so it must be better in at least 80 % of the bootstrap
    samples. If no row can be held out, the default learners vote.
    """
    best = best_per_learner(trained, evaluation_rows)
    if len(evaluation_rows.truth) == 0:
        members = tuple(candidate for candidate in best if candidate.learner in DEFAULT_MEMBERS) or tuple(best)
        return make_choice(members, trained, evaluation_rows)
    options = [tuple(best), *((candidate,) for candidate in best)]  # the ensemble is first: it wins a tie
    plain_members = min(
        options,
        key=lambda members: _loss(make_choice(members, trained, evaluation_rows), trained, evaluation_rows),
    )
    plain = make_choice(plain_members, trained, evaluation_rows)
    votes = greedy(trained, evaluation_rows)
    selected = make_choice(tuple(votes), trained, evaluation_rows, tuple(float(count) for count in votes.values()))
    old, new = (_losses(choice, trained, evaluation_rows) for choice in (plain, selected))
    difference = paired_difference(
        new, old, evaluation_rows.groups, larger_is_better=True, draws=500, rng=generator(seed, "selection")
    )
    return selected if new.mean() < old.mean() and 1 - difference.probability_worse >= MIN_P_BETTER else plain


def blend(
    previous: Predictions, votes_of_previous: float, trained: Mapping[Candidate, Predictions], rows: EvaluationRows
) -> Choice:
    """The model of a later round: the previous model's members keep their votes, and each new learner gets one.

    p = softmax(log((v q + Σ_m softmax(z_m / T_m)) / (v + M)) / T), where q is the mean of the previous members and v
    their votes: 1 for all members of round 0, and 1 for each learner of a later round. The earlier members limit what a
    wrong round can do, at about the same mean accuracy (benchmarks/proving_ground.py). There is no selection, which
    would follow the noise of the few rows that also decide on the round.
    """
    members = {PREVIOUS_MODEL: previous, **trained}
    votes = (votes_of_previous, *(1.0,) * len(trained))
    return make_choice(tuple(members), members, rows, votes, fixed={PREVIOUS_MODEL: 1.0})


def best_per_learner(trained: Mapping[Candidate, Predictions], evaluation_rows: EvaluationRows) -> list[Candidate]:
    """Each learner with its best training data and loss, in the order in which the learners were tried."""
    best: dict[str, tuple[float, Candidate]] = {}
    can_evaluate = len(evaluation_rows.truth) > 0
    for candidate in trained:
        loss = loss_of(candidate, trained, evaluation_rows) if can_evaluate else 0.0
        rival = best.get(candidate.learner)
        # Without evaluation rows, take the candidate with the most training data, which comes last.
        if rival is None or loss < rival[0] or (not can_evaluate and candidate.loss == "plain"):
            best[candidate.learner] = (loss, candidate)
    return [candidate for _, candidate in best.values()]


def loss_of(candidate: Candidate, trained: Mapping[Candidate, Predictions], evaluation_rows: EvaluationRows) -> float:
    """The log loss of one calibrated candidate on the evaluation rows, of which there must be some."""
    return _loss(make_choice((candidate,), trained, evaluation_rows), trained, evaluation_rows)


def greedy(trained: Mapping[Candidate, Predictions], evaluation_rows: EvaluationRows) -> Counter[Candidate]:
    """Select an ensemble greedily: each step adds the candidate that makes the average's log loss smallest."""
    probabilities = {candidate: calibrated(logits, evaluation_rows) for candidate, logits in trained.items()}
    n_classes = next(iter(probabilities.values())).shape[1]
    picked: Counter[Candidate] = Counter()
    total, previous_loss = np.zeros((len(evaluation_rows.truth), n_classes)), np.inf
    for number in range(1, MAX_ENSEMBLE_PICKS + 1):
        losses = {
            candidate: _weighted_log_loss((total + of_candidate) / number, evaluation_rows)
            for candidate, of_candidate in probabilities.items()
        }
        best = min(losses, key=lambda candidate: losses[candidate])
        if losses[best] > previous_loss - 1e-4:
            break
        picked[best] += 1
        total, previous_loss = total + probabilities[best], losses[best]
    return picked


def make_choice(
    members: tuple[Candidate, ...],
    trained: Mapping[Candidate, Predictions],
    evaluation_rows: EvaluationRows,
    votes: tuple[float, ...] | None = None,
    fixed: Mapping[Candidate, float] = MappingProxyType({}),
) -> Choice:
    """A choice of these members, calibrated on the evaluation rows. fixed: temperatures that are not fitted."""
    votes = votes or (1.0,) * len(members)
    logits = [evaluation_rows.select(trained[member]) for member in members]
    temperatures = tuple(
        fixed[member] if member in fixed else fit_temperature(of_member, evaluation_rows.truth)
        for member, of_member in zip(members, logits, strict=True)
    )
    ensemble_logits = np.log(soft_vote(logits, temperatures, 1.0, votes))
    return Choice(members, temperatures, fit_temperature(ensemble_logits, evaluation_rows.truth), votes)


def _losses(choice: Choice, trained: Mapping[Candidate, Predictions], evaluation_rows: EvaluationRows) -> Floats:
    """(n,): the choice's log loss per evaluation row, times the row's weight."""
    logits = [evaluation_rows.select(trained[member]) for member in choice.members]
    probabilities = soft_vote(logits, choice.temperatures, choice.temperature, choice.votes)
    losses: Floats = evaluation_rows.weights * log_loss_of_rows(probabilities, evaluation_rows.truth)
    return losses


def _loss(choice: Choice, trained: Mapping[Candidate, Predictions], evaluation_rows: EvaluationRows) -> float:
    return float(_losses(choice, trained, evaluation_rows).mean())


def _weighted_log_loss(probabilities: Floats, evaluation_rows: EvaluationRows) -> float:
    return float((evaluation_rows.weights * log_loss_of_rows(probabilities, evaluation_rows.truth)).mean())


def calibrated(predictions: Predictions, evaluation_rows: EvaluationRows) -> Floats:
    """(n, n_classes): one candidate's probabilities of the evaluation rows, at its own temperature."""
    logits = evaluation_rows.select(predictions)
    return softmax(logits / fit_temperature(logits, evaluation_rows.truth))


def abstention(
    probabilities: Floats,
    truth: Ints,
    target_accuracy: float | None = None,
    out_of_scope: Floats | None = None,
    nothing: int | None = None,
) -> AbstentionRecord:
    """Choose the confidence threshold below which the model abstains, so that its answers reach the target accuracy.

    The threshold is the lowest one that reaches the target. If none does, it is the one with the highest selective
    accuracy among those that answer at least a tenth of the rows. A `threshold` of 0 means that the model always
    answers. `accuracy` (selective accuracy) and `coverage` are shares with Wilson intervals. `accuracy` is slightly
    optimistic, since the threshold is chosen on the same rows.

    probabilities: (n, n_classes), out of fold.
    truth: (n,).
    target_accuracy: None for `DEFAULT_TARGET_ACCURACY`, or for half the errors of a model that answers every row, if
        the model would otherwise answer less than `MIN_DEFAULT_COVERAGE` of the rows.
    out_of_scope: (n_out_of_scope, n_classes), probabilities of out-of-scope rows, for which every answer but
        `nothing` is wrong.
    nothing: index of the class "none of the others", if there is one.
    """
    target = DEFAULT_TARGET_ACCURACY if target_accuracy is None else target_accuracy
    if len(truth) == 0:
        return AbstentionRecord(threshold=0.0, target_accuracy=target, coverage=None, accuracy=None, out_of_scope=0)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    if out_of_scope is not None and len(out_of_scope):
        confidence = np.concatenate([confidence, out_of_scope.max(axis=1)])
        correct = np.concatenate([correct, out_of_scope.argmax(axis=1) == (-1 if nothing is None else nothing)])
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(correct[order])
    accuracies = hits / np.arange(1, len(order) + 1)
    reaching_target = np.flatnonzero(accuracies >= target)
    n_answered = int(reaching_target[-1]) + 1 if len(reaching_target) else 0
    if target_accuracy is None and n_answered < MIN_DEFAULT_COVERAGE * len(order):
        target = min(target, (1 + float(accuracies[-1])) / 2)
        reaching_target = np.flatnonzero(accuracies >= target)
    tenth = len(order) // 10
    last = int(reaching_target[-1]) if len(reaching_target) else int(accuracies[tenth:].argmax() + tenth)
    answers_all = last == len(order) - 1
    return AbstentionRecord(
        # Rounded down, so that the last row is answered.
        threshold=0.0 if answers_all else float(np.floor(confidence[order[last]] * 1e6) / 1e6),
        target_accuracy=round(target, 6),
        coverage=EstimateRecord.of(wilson(last + 1, len(order))),
        accuracy=EstimateRecord.of(wilson(int(hits[last]), last + 1)),
        out_of_scope=0 if out_of_scope is None else len(out_of_scope),
    )


def candidate_table(
    trained: Mapping[Candidate, Predictions], choice: Choice, evaluation_rows: EvaluationRows
) -> tuple[CandidateRecord, ...]:
    """One entry per candidate, and one for the ensemble if the choice has several members."""
    table = []
    votes = dict(zip(choice.members, choice.votes, strict=True))
    for candidate, predictions in trained.items():
        probabilities = calibrated(predictions, evaluation_rows)
        accuracy, log_loss = _accuracy_and_log_loss(probabilities, evaluation_rows)
        entry = CandidateRecord(
            learner=candidate.learner,
            recipe=candidate.trained_on,
            loss=candidate.loss,
            accuracy=accuracy,
            log_loss=log_loss,
            choice_loss=_rounded_choice_loss(probabilities, evaluation_rows),
            chosen=candidate in votes,
            vote=round(votes.get(candidate, 0.0) / sum(choice.votes), 4),
        )
        table.append(entry)
    if len(choice.members) > 1:
        probabilities = evaluation_rows.select(choice.combine(trained))
        accuracy, log_loss = _accuracy_and_log_loss(probabilities, evaluation_rows)
        trained_on = tuple(dict.fromkeys(kind for member in choice.members for kind in member.trained_on))
        entry = CandidateRecord(
            learner=ENSEMBLE,
            recipe=trained_on,
            loss="plain",
            accuracy=accuracy,
            log_loss=log_loss,
            chosen=True,
            vote=1.0,
        )
        table.append(entry)
    return tuple(table)


def _accuracy_and_log_loss(
    probabilities: Floats, evaluation_rows: EvaluationRows
) -> tuple[EstimateRecord | None, float | None]:
    if len(evaluation_rows.truth) == 0:
        return None, None
    correct = probabilities.argmax(axis=1) == evaluation_rows.truth
    loss = float(log_loss_of_rows(probabilities, evaluation_rows.truth).mean())
    return EstimateRecord.of(share(correct, evaluation_rows.groups, 0.95)), round(loss, 6)


def _rounded_choice_loss(probabilities: Floats, evaluation_rows: EvaluationRows) -> float | None:
    """The loss that the choice minimizes; rows may be weighted."""
    return round(_weighted_log_loss(probabilities, evaluation_rows), 6) if len(evaluation_rows.truth) else None
