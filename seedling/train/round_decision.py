"""The loop's right to say no: round r against the accepted one, paired, on rows that people labeled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import TrainParams
from seedling.stats.randomness import generator
from seedling.stats.statistics import Difference, Estimate, Floats, Ints, log_loss_of_rows, paired_difference


@dataclass(frozen=True)
class ClassChange:
    """What a round did to the recall of one class, on its judged rows; harmed: surely fewer right than before."""

    label: int
    rows: int
    change: Difference
    harmed: bool

    def as_json(self) -> dict[str, Any]:
        """As it stands in decision.json."""
        return {"label": self.label, "rows": self.rows, "harmed": self.harmed, **self.change.rounded()}


@dataclass(frozen=True)
class RoundDecision:
    """What became of a round. `accepted_round` is the one whose model counts from here on."""

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

    def as_json(self) -> dict[str, Any]:
        """As it is written to decision.json."""
        found = {**asdict(self)}
        for name in ("accuracy", "log_loss"):
            difference: Difference | None = getattr(self, name)
            found[name] = difference.rounded() if difference else None
        found["worth_in_labels"] = self.worth_in_labels.rounded(1) if self.worth_in_labels else None
        found["classes"] = [one.as_json() for one in self.classes]
        return found


def judge(
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
    """Rejects the round where the paired bootstrap says that it is worse; else accepts it.

    old, new: (n_seeds, n_rows, n_classes) out-of-fold probabilities of the same human-labeled rows, one array a learner
    that both rounds trained in the same way. A row's score is the learners' mean, a seed: the old round's chosen model
    alone would look better than it is, as it was chosen on these very rows, and one learner's luck weighs less. Worse is: right less often, by more than
    `margin`, with at least `reject_if_p_accuracy_worse`; or so with at least `reject_if_p_worse` and, with that too, a higher
    log-loss. Log-loss alone does not reject: pseudo-labels make a model surer, which its temperature takes back.
    The loop stops after a rejection, when fewer than `converged_share` of the pool's labels changed, or at the last round.
    """
    rng = generator(seed, "decision", round_number)
    right = [scores_of_rows(each, lambda one: one.argmax(axis=1) == truth) for each in (old, new)]
    draws = params.bootstrap_draws
    accuracy = paired_difference(
        right[0],
        right[1],
        groups,
        larger_is_better=True,
        draws=draws,
        rng=rng,
        margin=params.margin,
        wrong=1 / len(old),
    )
    losses = [scores_of_rows(each, lambda one: log_loss_of_rows(one, truth)) for each in (old, new)]
    loss = paired_difference(losses[0], losses[1], groups, larger_is_better=False, draws=draws, rng=rng)
    seeds = max(len(one) for one in right)
    points = f"{100 * accuracy.value:+.1f} points [{100 * accuracy.low:+.1f}, {100 * accuracy.high:+.1f}] on {len(truth)} rows"
    points += f", {seeds} seeds" if seeds > 1 else ""
    classes = changes_by_class(
        right[0].mean(axis=0), right[1].mean(axis=0), truth, groups, params, generator(seed, "classes", round_number)
    )
    harmed = sum(one.harmed for one in classes)

    def round_decision(decision: Literal["accepted", "rejected"], stop: bool, reason: str) -> RoundDecision:
        kept = round_number if decision == "accepted" else accepted_round
        if harmed:
            reason += f"; {harmed} of {len(classes)} classes lost rows for certain"
        return RoundDecision(
            round_number, decision, stop, reason, kept, len(truth), accuracy, loss, classes, seeds=seeds
        )

    said = f"accuracy {points}: worse with probability {accuracy.probability_worse:.2f}"
    if accuracy.probability_worse >= params.reject_if_p_accuracy_worse:
        return round_decision("rejected", True, said)
    if min(accuracy.probability_worse, loss.probability_worse) >= params.reject_if_p_worse:
        reason = f"{said}; log-loss {loss.value:+.3f}: worse with probability {loss.probability_worse:.2f}"
        return round_decision("rejected", True, reason)
    if changed_share < params.converged_share:
        return round_decision(
            "accepted", True, f"accuracy {points}; converged: {100 * changed_share:.1f} % of the pool's labels changed"
        )
    if last:
        return round_decision("accepted", True, f"accuracy {points}; this was the last round")
    return round_decision("accepted", False, f"accuracy {points}")


def scores_of_rows(said: Sequence[Floats], score: Callable[[Floats], NDArray[Any]]) -> Floats:
    """(n_seeds, n_rows): the learners' mean score; one that was trained with one seed counts alike in all.

    said: (n_seeds or 1, n_rows, n_classes) a learner; score: of (n_rows, n_classes) probabilities.
    """
    each = [np.stack([np.asarray(score(one), dtype=np.float64) for one in learner]) for learner in said]
    many = max(len(one) for one in each)
    result: Floats = np.mean([np.broadcast_to(one, (many, one.shape[1])) for one in each], axis=0)
    return result


def changes_by_class(
    old: Floats,
    new: Floats,
    truth: Ints,
    groups: NDArray[np.str_],
    params: TrainParams,
    rng: np.random.Generator,
) -> tuple[ClassChange, ...]:
    """How right each class's rows are, after minus before. old, new: (n_rows,), 0 to 1.

    A class counts as harmed where the bootstrap is `reject_if_p_accuracy_worse` sure, divided among the classes
    (Bonferroni), since of fifty classes some will lose by chance.
    """
    found = []
    present = np.unique(truth)
    limit = 1 - (1 - params.reject_if_p_accuracy_worse) / len(present)
    for label in present:
        mine = np.flatnonzero(truth == label)
        change = paired_difference(old[mine], new[mine], groups[mine], larger_is_better=True, draws=500, rng=rng)
        harmed = len(mine) > 1 and change.probability_worse >= limit
        found.append(ClassChange(int(label), len(mine), change, bool(harmed)))
    return tuple(found)


def unjudged(round_number: int, accepted_round: int, vanished: int, *, last: bool) -> RoundDecision:
    """Where every labeled row is needed in training, nothing can be compared; a round under which classes vanish from the
    pool is rejected all the same, as a model that collapses does.
    """
    if vanished:
        reason = f"no labeled row can be held out to judge it, and {vanished} classes vanished from the pool's labels"
        return RoundDecision(round_number, "rejected", True, reason, accepted_round, 0)
    reason = "no labeled row can be held out to judge it (two of a class can); no class vanished from the pool's labels"
    return RoundDecision(round_number, "accepted", last, reason, round_number, 0)
