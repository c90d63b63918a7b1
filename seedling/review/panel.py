"""The live panel of the reviewer's page: speed, errors left, what further answers would bring, and when to stop.

The expected gain of the next 100 answers follows from the learning curve of the refits: the cross-validated error is
proportional to (w L + a)^-b (power_law.py), for a answers and L labels before the first answer, which count as w labels
each. Its fit takes milliseconds, as do the other numbers, whatever the length of the log (tally.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seedling.records.record import RecordPart
from seedling.review.error_rate import CorrectedRate
from seedling.review.statistics import error_rate, errors_left, reversals
from seedling.review.tally import LABEL_KINDS, LabelKind, ReviewTally
from seedling.stats.power_law import power_law_exponent
from seedling.stats.statistics import Estimate, Floats

NEXT_ANSWERS = 100
MIN_REFITS = 3  # points of the learning curve that a fit needs
MIN_REFITS_FOR_WEIGHT = 5  # and to fit the weight of earlier labels, too
LABEL_WEIGHTS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
MIN_ERROR = 1e-3
MIN_RANDOM_ROWS = 5  # of the labels, or of the pseudo-labels, before the panel shows their error rate
DIGITS = 4


class PanelEstimate(RecordPart):
    """A value with its interval."""

    value: float
    low: float
    high: float


class PanelErrorRate(PanelEstimate):
    """The share of wrong labels, or of wrong pseudo-labels. rows: random rows; is_corrected: see CorrectedRate."""

    rows: int
    of: LabelKind
    is_corrected: bool


class Panel(RecordPart):
    """What the page shows, in the form of its API.

    answers: decisions of the reviewer, without undone ones; answers_per_hour: of active time; reversals: undone and
    changed answers; accuracy_history: ascending numbers of answers, each with the accuracy of the last refit;
    expected_gain: percentage points of accuracy from the next 100 answers; reason: why it is enough, or is not.
    """

    answers: int
    answers_per_hour: float | None
    remaining: int
    reversals: int
    errors_left: PanelEstimate | None
    error_rate: PanelErrorRate | None
    accuracy: PanelEstimate | None
    accuracy_history: tuple[tuple[int, float], ...]
    expected_gain: float | None
    enough: bool
    reason: str
    queue_version: int
    refitting: bool


@dataclass(frozen=True)
class ReviewProgress:
    """What the panel shows besides the log.

    classes: their number; remaining: rows that nobody has answered; labeled, pool: the rows that random rows are drawn
    from; accuracies: (answers, accuracy, low, high) of each refit, in order; min_gain: `review.enough_gain`, a share.
    """

    classes: int
    remaining: int
    labeled: int
    pool: int
    accuracies: Sequence[tuple[int, float, float, float]] = ()
    min_gain: float = 0.005
    queue_version: int = 0
    is_refitting: bool = False


def panel(tally: ReviewTally, reviewer: str, progress: ReviewProgress) -> Panel:
    """The panel of a reviewer. Its error rates, accuracy and gain are those of all reviewers' answers."""
    rates = {
        kind: error_rate(tally, kind, progress.classes, population)
        for kind, population in zip(LABEL_KINDS, (progress.labeled, progress.pool), strict=True)
    }
    labels, time = rates["labels"], tally.times.get(reviewer)
    accuracies = sorted({answers: value for answers, value, _, _ in progress.accuracies}.items())  # the last refits
    gain = expected_gain(accuracies, progress.labeled)
    is_enough, reason = stop_rule(gain, progress.min_gain, len(accuracies), progress.remaining)
    per_hour = time.per_hour if time else None
    return Panel(
        answers=tally.active_decisions[reviewer],
        answers_per_hour=None if per_hour is None else round(per_hour),
        remaining=progress.remaining,
        reversals=reversals(tally, reviewer),
        errors_left=(
            _estimate(errors_left(tally, labels, progress.classes, progress.labeled))
            if labels and labels.rows >= MIN_RANDOM_ROWS
            else None
        ),
        error_rate=_rate(rates),
        accuracy=_estimate(Estimate(*progress.accuracies[-1][1:])) if progress.accuracies else None,
        accuracy_history=tuple((answers, round(value, DIGITS)) for answers, value in accuracies),
        expected_gain=None if gain is None else round(100 * gain, 2),
        enough=is_enough,
        reason=reason,
        queue_version=progress.queue_version,
        refitting=progress.is_refitting,
    )


def expected_gain(accuracies: Sequence[tuple[int, float]], labels_before: int) -> float | None:
    """The gain in accuracy, 0 to 1, expected of the next NEXT_ANSWERS answers; None with fewer than MIN_REFITS refits.

    With x = w L + a, log error = log c - b log x is fitted by least squares; b is that of `power_law_exponent`, and w
    is the one of LABEL_WEIGHTS whose curve fits best, since the labels before the review may be of less use than
    answers about selected rows. The gain is e (1 - (1 + NEXT_ANSWERS / x)^-b) after the last refit, where e is the
    smaller one of its error and of c x^-b: no gain is larger than the error that is left.

    accuracies: (answers, accuracy) of each refit. labels_before: the number of labels L before the first answer.
    """
    by_answers = dict(accuracies)  # the last refit after the same number of answers
    answers = np.array(sorted(by_answers), dtype=np.float64)
    if len(answers) < MIN_REFITS:
        return None
    errors = np.maximum(1 - np.array([by_answers[int(count)] for count in answers]), MIN_ERROR)
    weights = LABEL_WEIGHTS if len(answers) >= MIN_REFITS_FOR_WEIGHT and labels_before else LABEL_WEIGHTS[:1]
    best_misfit, gain = np.inf, 0.0
    for weight in weights:
        labels = np.maximum(weight * labels_before + answers, 1.0)
        exponent = float(power_law_exponent(labels, errors))
        misfit, scale = _fitted_scale(labels, errors, exponent)
        if misfit < best_misfit - 1e-12:
            best_misfit = misfit
            last_error = min(scale * float(labels[-1]) ** -exponent, float(errors[-1]))
            gain = last_error * (1 - float(1 + NEXT_ANSWERS / labels[-1]) ** -exponent)
    return gain


def _fitted_scale(labels: Floats, errors: Floats, exponent: float) -> tuple[float, float]:
    """The mean squared residual of log error, and the factor c, for a given exponent."""
    residuals = np.log(errors) + exponent * np.log(labels)
    return float(residuals.var()), float(np.exp(residuals.mean()))


def stop_rule(gain: float | None, min_gain: float, refits: int, remaining: int) -> tuple[bool, str]:
    """Whether the answers are enough, and a sentence that says why.

    gain, min_gain: shares of accuracy. refits: the number of refits with different numbers of answers.
    """
    limit = f"{100 * min_gain:.2g} points (review.enough_gain)"
    if remaining == 0:
        return True, "Every row has been answered."
    if gain is None:
        return False, (
            f"The gain of further answers is not known yet: it is estimated from refits with {MIN_REFITS} different "
            f"numbers of answers, and there {'has' if refits == 1 else 'have'} been {refits or 'none'}."
        )
    if gain < min_gain:
        return True, (
            f"The next {NEXT_ANSWERS} answers are expected to raise the accuracy by {100 * gain:.1f} points, less than "
            f"{limit}."
        )
    return False, f"The next {NEXT_ANSWERS} answers are expected to raise the accuracy by {100 * gain:.1f} points."


def _estimate(estimate: Estimate | None) -> PanelEstimate | None:
    return None if estimate is None else PanelEstimate(**estimate.rounded(DIGITS))


def _rate(rates: dict[LabelKind, CorrectedRate | None]) -> PanelErrorRate | None:
    """That of the labels; with fewer than MIN_RANDOM_ROWS random rows of them, that of the pseudo-labels."""
    for kind, rate in rates.items():
        if rate is not None and rate.rows >= MIN_RANDOM_ROWS:
            values = rate.estimate.rounded(DIGITS)
            return PanelErrorRate(**values, rows=rate.rows, of=kind, is_corrected=rate.is_corrected)
    return None
