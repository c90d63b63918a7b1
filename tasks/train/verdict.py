"""The loop's right to say no: round r against the accepted one, paired, on rows that people labelled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.params import TrainParams
from tasks.randomness import generator
from tasks.statistics import Difference, Floats, Ints, log_loss_of_rows, paired_difference


@dataclass(frozen=True)
class Verdict:
    """What became of a round. `accepted_round` is the one whose model counts from here on."""

    round: int
    decision: Literal["accepted", "rejected", "skipped"]
    stop: bool
    reason: str
    accepted_round: int
    rows: int
    accuracy: Difference | None = None
    log_loss: Difference | None = None

    def as_json(self) -> dict[str, Any]:
        """As it is written to verdict.json."""
        found = {**asdict(self)}
        for name in ("accuracy", "log_loss"):
            difference: Difference | None = getattr(self, name)
            found[name] = difference.rounded() if difference else None
        return found


def judge(
    round_number: int,
    accepted_round: int,
    old: Floats,
    new: Floats,
    truth: Ints,
    groups: NDArray[np.str_],
    *,
    changed_share: float,
    last: bool,
    params: TrainParams,
    seed: int,
) -> Verdict:
    """Rejects the round where the paired bootstrap says that it is probably worse; else accepts it.

    old, new: (n_rows, n_classes) out-of-fold probabilities of the same human-labelled rows. Worse is: right less often
    with at least `worse_probability`; not more often right, and with that probability a higher log-loss; or, whatever
    the probabilities, right less often and with a higher log-loss: in doubt, what was there stays.
    The loop stops after a rejection, when fewer than `converged_share` of the pool's labels changed, or at the last round.
    """
    rng = generator(seed, "verdict", round_number)
    right = [(one.argmax(axis=1) == truth).astype(float) for one in (old, new)]
    draws = params.bootstrap_draws
    accuracy = paired_difference(right[0], right[1], groups, larger_is_better=True, draws=draws, rng=rng)
    losses = [log_loss_of_rows(one, truth) for one in (old, new)]
    loss = paired_difference(losses[0], losses[1], groups, larger_is_better=False, draws=draws, rng=rng)
    limit = params.worse_probability
    points = f"{100 * accuracy.value:+.1f} points [{100 * accuracy.low:+.1f}, {100 * accuracy.high:+.1f}] on {len(truth)} rows"

    def verdict(decision: Literal["accepted", "rejected"], stop: bool, reason: str) -> Verdict:
        kept = round_number if decision == "accepted" else accepted_round
        return Verdict(round_number, decision, stop, reason, kept, len(truth), accuracy, loss)

    if accuracy.probability_worse >= limit:
        return verdict("rejected", True, f"accuracy {points}: worse with probability {accuracy.probability_worse:.2f}")
    if accuracy.value <= 0 and loss.probability_worse >= limit:
        return verdict(
            "rejected",
            True,
            f"no gain in accuracy, and log-loss {loss.value:+.3f}: worse with probability {loss.probability_worse:.2f}",
        )
    if accuracy.value < 0 and loss.value >= 0:
        return verdict("rejected", True, f"accuracy {points}, and log-loss {loss.value:+.3f}: not better in either")
    if changed_share < params.converged_share:
        return verdict(
            "accepted", True, f"accuracy {points}; converged: {100 * changed_share:.1f} % of the pool's labels changed"
        )
    if last:
        return verdict("accepted", True, f"accuracy {points}; this was the last round")
    return verdict("accepted", False, f"accuracy {points}")
