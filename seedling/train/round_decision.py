"""The round decision: compare a round with the accepted one, paired on the same human-labeled rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import TrainParams
from seedling.records.decision import ClassChangeRecord, DecisionRecord
from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.stats.randomness import generator
from seedling.stats.statistics import Difference, Estimate, Floats, Ints, log_loss_of_rows, paired_difference


@dataclass(frozen=True)
class ClassChange:
    """A round's change of one class's recall on its evaluation rows; harmed: significantly lower (paired bootstrap)."""

    label: int
    rows: int
    change: Difference
    harmed: bool

    @property
    def record(self) -> ClassChangeRecord:
        """The entry in decision.json."""
        return ClassChangeRecord(label=self.label, rows=self.rows, harmed=self.harmed, **self.change.rounded())


@dataclass(frozen=True)
class RoundDecision:
    """The decision on a round. `accepted_round` is the round whose model is used from here on."""

    round: int
    decision: Literal["accepted", "rejected", "skipped"]
    stop: bool
    reason: str
    accepted_round: int
    rows: int
    accuracy: Difference | None = None
    log_loss: Difference | None = None
    classes: tuple[ClassChange, ...] = ()
    worth_in_labels: Estimate | None = None
    seeds: int = 1

    @property
    def record(self) -> DecisionRecord:
        """The content of decision.json."""
        return DecisionRecord(
            round=self.round,
            decision=self.decision,
            stop=self.stop,
            reason=self.reason,
            accepted_round=self.accepted_round,
            rows=self.rows,
            accuracy=DifferenceRecord.of(self.accuracy) if self.accuracy else None,
            log_loss=DifferenceRecord.of(self.log_loss) if self.log_loss else None,
            classes=tuple(class_change.record for class_change in self.classes),
            worth_in_labels=EstimateRecord.of(self.worth_in_labels, digits=1) if self.worth_in_labels else None,
            seeds=self.seeds,
        )


def compare_rounds(  # noqa: PLR0913  (the scores of both rounds, and what the rules depend on by name)
    round_number: int,
    accepted_round: int,
    old: Sequence[Floats],
    new: Sequence[Floats],
    truth: Ints,
    groups: NDArray[np.str_],
    *,
    changed_share: float,
    last: bool,
    params: TrainParams,
    seed: int,
) -> RoundDecision:
    """Reject the round if the paired bootstrap finds it worse, else accept it.

    A row's score per seed is the mean over the learners that both rounds trained in the same way. The old round's
    chosen model alone would look better than it is, since it was chosen on these rows, and the mean reduces each
    learner's noise. The round is rejected if

    - P(accuracy is lower by more than `margin`) ≥ `reject_if_p_accuracy_worse`, or
    - P(accuracy is lower by more than `margin`) ≥ `reject_if_p_worse` and P(log loss is higher) ≥ `reject_if_p_worse`.

    Log loss alone does not reject: pseudo-labels make a model more confident, which its temperature corrects. The loop
    stops after a rejection, if fewer than `converged_share` of the pool's labels changed, or after the last round.

    old, new: (n_seeds, n_rows, n_classes) out-of-fold probabilities of the same rows, one array per learner.
    changed_share: share of the pool whose label changed.
    last: whether this is the last round.
    """
    rng = generator(seed, "decision", round_number)
    before, after = (mean_scores(of_round, lambda p: p.argmax(axis=1) == truth) for of_round in (old, new))
    draws, margin, wrong = params.bootstrap_draws, params.margin, 1 / len(old)
    accuracy = paired_difference(
        before, after, groups, larger_is_better=True, draws=draws, rng=rng, margin=margin, wrong=wrong
    )
    losses = [mean_scores(of_round, lambda p: log_loss_of_rows(p, truth)) for of_round in (old, new)]
    log_loss = paired_difference(losses[0], losses[1], groups, larger_is_better=False, draws=draws, rng=rng)
    class_rng = generator(seed, "classes", round_number)
    classes = changes_by_class(before.mean(axis=0), after.mean(axis=0), truth, groups, params, class_rng)
    n_seeds = max(len(before), len(after))
    decision, stop, reason = _apply_rules(accuracy, log_loss, len(truth), n_seeds, changed_share, last, params)
    if n_harmed := sum(class_change.harmed for class_change in classes):
        reason += f"; significantly lower recall in {n_harmed} of {len(classes)} classes"
    used_round = round_number if decision == "accepted" else accepted_round
    return RoundDecision(
        round_number, decision, stop, reason, used_round, len(truth), accuracy, log_loss, classes, seeds=n_seeds
    )


def _apply_rules(
    accuracy: Difference,
    log_loss: Difference,
    n_rows: int,
    n_seeds: int,
    changed_share: float,
    last: bool,
    params: TrainParams,
) -> tuple[Literal["accepted", "rejected"], bool, str]:
    """The decision, whether the loop stops, and the reason. See `compare_rounds`."""
    points = f"accuracy {100 * accuracy.value:+.1f} points"
    points += f" [{100 * accuracy.low:+.1f}, {100 * accuracy.high:+.1f}] on {n_rows} rows"
    points += f", {n_seeds} seeds" if n_seeds > 1 else ""
    worse = f"{points}: worse with probability {accuracy.probability_worse:.2f}"
    if accuracy.probability_worse >= params.reject_if_p_accuracy_worse:
        return "rejected", True, worse
    if min(accuracy.probability_worse, log_loss.probability_worse) >= params.reject_if_p_worse:
        worse += f"; log-loss {log_loss.value:+.3f}: worse with probability {log_loss.probability_worse:.2f}"
        return "rejected", True, worse
    if changed_share < params.converged_share:
        return "accepted", True, f"{points}; converged: {100 * changed_share:.1f} % of the pool's labels changed"
    if last:
        return "accepted", True, f"{points}; this was the last round"
    return "accepted", False, points


def mean_scores(probabilities: Sequence[Floats], score: Callable[[Floats], NDArray[Any]]) -> Floats:
    """(n_seeds, n_rows): the mean score over the learners; a learner with one seed has the same score for all seeds.

    probabilities: (n_seeds or 1, n_rows, n_classes) per learner.
    score: maps (n_rows, n_classes) probabilities to (n_rows,) scores.
    """
    scores = [
        np.stack([np.asarray(score(of_seed), dtype=np.float64) for of_seed in of_learner])
        for of_learner in probabilities
    ]
    n_seeds = max(len(of_learner) for of_learner in scores)
    mean: Floats = np.mean(
        [np.broadcast_to(of_learner, (n_seeds, of_learner.shape[1])) for of_learner in scores], axis=0
    )
    return mean


def changes_by_class(
    old: Floats,
    new: Floats,
    truth: Ints,
    groups: NDArray[np.str_],
    params: TrainParams,
    rng: np.random.Generator,
) -> tuple[ClassChange, ...]:
    """The change of each class's recall, after minus before. old, new: (n_rows,), correctness from 0 to 1.

    A class is harmed if P(recall is lower) ≥ 1 − (1 − `reject_if_p_accuracy_worse`) / n_classes. The division is a
    Bonferroni correction: of fifty classes, some lose rows by chance.
    """
    changes = []
    present = np.unique(truth)
    limit = 1 - (1 - params.reject_if_p_accuracy_worse) / len(present)
    for label in present:
        rows = np.flatnonzero(truth == label)
        change = paired_difference(old[rows], new[rows], groups[rows], larger_is_better=True, draws=500, rng=rng)
        harmed = len(rows) > 1 and change.probability_worse >= limit
        changes.append(ClassChange(int(label), len(rows), change, bool(harmed)))
    return tuple(changes)


def decide_without_evaluation_rows(
    round_number: int, accepted_round: int, n_vanished: int, *, last: bool
) -> RoundDecision:
    """Decide if all labeled rows are needed for training: reject if classes vanished from the pool's labels.

    A model that collapses predicts fewer classes. n_vanished: number of classes that vanished.
    """
    if n_vanished:
        reason = (
            f"no labeled row can be held out to evaluate it, and {n_vanished} classes vanished from the pool's labels"
        )
        return RoundDecision(round_number, "rejected", True, reason, accepted_round, 0)
    reason = "no labeled row can be held out to evaluate it (that takes two per class)"
    reason += "; no class vanished from the pool's labels"
    return RoundDecision(round_number, "accepted", last, reason, round_number, 0)
