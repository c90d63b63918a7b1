"""The round decision: compare a round with the accepted one, paired on the same human-labeled rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import TrainParams
from seedling.records.decision import ClassChangeRecord, DecisionRecord
from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.stats.randomness import generator
from seedling.stats.statistics import (
    SMALLEST,
    Difference,
    Estimate,
    Floats,
    Ints,
    log_loss_of_rows,
    paired_difference,
)

MAX_CLASS_WEIGHT = 5.0  # of an evaluation row; a rarer class would let single rows decide


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
        )


def class_share_weights(truth: Ints, pool: Floats) -> Floats:
    """(n_rows,), mean 1: weights that give the evaluation rows the class shares that the pool is expected to have.

    w = (share of the row's class in the pool) / (its share among the evaluation rows), between 1 / `MAX_CLASS_WEIGHT`
    and `MAX_CLASS_WEIGHT`. Labels are often drawn class by class, five of each, and a round that learns how frequent
    the classes are looks harmful on such rows.

    pool: (n_pool, n_classes), the accepted model's probabilities.
    """
    if len(pool) == 0 or len(truth) == 0:
        return np.ones(len(truth))
    shares = np.bincount(truth, minlength=pool.shape[1]) / len(truth)
    ratio = pool.mean(axis=0) / np.maximum(shares, SMALLEST)
    weights: Floats = np.clip(ratio, 1 / MAX_CLASS_WEIGHT, MAX_CLASS_WEIGHT)[truth]
    normalized: Floats = weights / weights.mean()
    return normalized


def compare_rounds(  # noqa: PLR0913  (the probabilities of both rounds, and what the rules depend on by name)
    round_number: int,
    accepted_round: int,
    old: Floats,
    new: Floats,
    truth: Ints,
    groups: NDArray[np.str_],
    *,
    weights: Floats,
    changed_share: float,
    last: bool,
    params: TrainParams,
    seed: int,
) -> RoundDecision:
    """Accept the round if its model has a lower log loss than the accepted model, with enough probability.

    The round is accepted if P(log loss is lower) ≥ `accept_if_p_better` in a paired bootstrap, and rejected
    nevertheless if P(accuracy is lower) ≥ `reject_if_p_accuracy_worse` or if a class is harmed; see
    `changes_by_class`. Rows are weighted; see `class_share_weights`.

    The log loss decides because it uses the whole prediction: with 30 rows, the difference in accuracy is two or three
    rows. benchmarks/proving_ground.py measures how many tasks are harmed with and without the decision.

    The loop stops after a rejection, if fewer than `converged_share` of the pool's labels changed, or after the last
    round.

    old, new: (n_rows, n_classes), out-of-fold probabilities of the accepted model and of this round's model.
    weights: (n_rows,), mean 1.
    changed_share: share of the pool whose label changed.
    last: whether this is the last round.
    """
    draws = params.bootstrap_draws
    before, after = (weights * (of_round.argmax(axis=1) == truth) for of_round in (old, new))
    losses = [weights * log_loss_of_rows(of_round, truth) for of_round in (old, new)]
    accuracy = paired_difference(
        before,
        after,
        groups,
        larger_is_better=True,
        draws=draws,
        rng=generator(seed, "decision", round_number),
        wrong=1.0,
    )
    log_loss, reverse = (
        paired_difference(
            first, second, groups, larger_is_better=False, draws=draws, rng=generator(seed, "log loss", round_number)
        )
        for first, second in (losses, losses[::-1])
    )
    classes = changes_by_class(old, new, truth, groups, params, generator(seed, "classes", round_number))
    rule = _Rule(accuracy, log_loss, reverse.probability_worse, len(truth), sum(change.harmed for change in classes))
    decision, stop, reason = rule.apply(changed_share, last, params)
    used_round = round_number if decision == "accepted" else accepted_round
    return RoundDecision(round_number, decision, stop, reason, used_round, len(truth), accuracy, log_loss, classes)


@dataclass(frozen=True)
class _Rule:
    """The results that decide on a round. n_harmed: number of classes whose recall is significantly lower."""

    accuracy: Difference
    log_loss: Difference
    probability_better: float
    n_rows: int
    n_harmed: int

    def apply(
        self, changed_share: float, last: bool, params: TrainParams
    ) -> tuple[Literal["accepted", "rejected"], bool, str]:
        """The decision, whether the loop stops, and the reason. See `compare_rounds`."""
        accuracy, log_loss, needed = self.accuracy, self.log_loss, params.accept_if_p_better
        points = f"accuracy {100 * accuracy.value:+.1f} points [{100 * accuracy.low:+.1f}, {100 * accuracy.high:+.1f}]"
        result = f"log loss {log_loss.value:+.3f}, lower with probability {self.probability_better:.2f}"
        on_rows = f"{points} on {self.n_rows} rows"
        if self.probability_better < needed:
            return "rejected", True, f"not clearly better: {result} (at least {needed:g} is needed); {on_rows}"
        if accuracy.probability_worse >= params.reject_if_p_accuracy_worse:
            return "rejected", True, f"{on_rows}: lower with probability {accuracy.probability_worse:.2f}; {result}"
        if self.n_harmed:
            harmed = "1 class" if self.n_harmed == 1 else f"{self.n_harmed} classes"
            return "rejected", True, f"significantly lower recall in {harmed}; {result}; {on_rows}"
        better = f"{result}; {on_rows}"
        if changed_share < params.converged_share:
            return "accepted", True, f"{better}; converged: {100 * changed_share:.1f} % of the pool's labels changed"
        return "accepted", last, f"{better}; this was the last round" if last else better


def changes_by_class(
    old: Floats,
    new: Floats,
    truth: Ints,
    groups: NDArray[np.str_],
    params: TrainParams,
    rng: np.random.Generator,
) -> tuple[ClassChange, ...]:
    """The change of each class's recall, after minus before. old, new: (n_rows, n_classes), probabilities.

    A class is harmed if P(recall is lower) ≥ 1 − (1 − `reject_if_p_accuracy_worse`) / n_classes. The division is a
    Bonferroni correction: of fifty classes, some lose rows by chance.
    """
    changes = []
    before, after = ((of_round.argmax(axis=1) == truth).astype(np.float64) for of_round in (old, new))
    present = np.unique(truth)
    limit = 1 - (1 - params.reject_if_p_accuracy_worse) / len(present)
    for label in present:
        rows = np.flatnonzero(truth == label)
        change = paired_difference(before[rows], after[rows], groups[rows], larger_is_better=True, draws=500, rng=rng)
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
