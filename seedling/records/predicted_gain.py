"""What the previous run expected of the labels that were added or fixed since, and what they brought.

The learning curve of the previous run expects the accuracy a2 with twice as many labels, so an error rate of
e * factor^-b with b = -log2((1 - a2) / e), where e is the error rate of that run. n labels of which w are wrong count
as n (1 - w / n)^2 labels (seedling/evaluate/next_steps.py), so factor is the ratio of these numbers. The expected gain
is e (1 - factor^-b).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seedling.records.evaluation import ExtrapolatedCurveRecord
from seedling.records.intervals import EstimateRecord
from seedling.records.run_records import RunRecord
from seedling.stats.statistics import Estimate

DOUBLED = 2  # times as many labels, in the learning curve
MIN_GAIN = 0.0005  # of accuracy; a smaller expected gain is not worth a sentence
MIN_FIXED_LABELS = 1.0


@dataclass(frozen=True)
class PredictedGain:
    """Expected and measured change of the accuracy, with an 80 % and a 95 % interval.

    since: the name of the previous run; new_labels: labels that were added; fixed_labels: the estimated number of wrong
    labels that were fixed instead.
    """

    since: str
    new_labels: int
    fixed_labels: int
    expected: Estimate
    measured: Estimate

    @property
    def source(self) -> str:
        """The labels that the gain was expected from, as in `580 new labels`."""
        count, kind = (self.new_labels, "new label") if self.new_labels else (self.fixed_labels, "fixed label")
        about = "" if self.new_labels else "about "
        return f"{about}{count:,} {kind}{'' if count == 1 else 's'}"

    def __str__(self) -> str:
        measured = self.measured
        return (
            f"last time, {100 * self.expected.value:+.1f} points were expected from {self.source}; "
            f"measured: {100 * measured.value:+.1f} [{100 * measured.low:+.1f}, {100 * measured.high:+.1f}]"
        )

    @property
    def agrees(self) -> bool:
        """Whether the intervals overlap."""
        return self.measured.low <= self.expected.high and self.expected.low <= self.measured.high


def predicted_gain(runs: Sequence[RunRecord]) -> PredictedGain | None:
    """Compares the last run of these records with the one before; None if nothing was expected of the new labels.

    None also unless both were evaluated on the same test split: accuracies on different rows cannot be compared.
    """
    evaluated = [(run, run.metrics) for run in runs if run.metrics]
    if len(evaluated) < 2:
        return None
    (old_run, old), (new_run, new) = evaluated[-2:]
    curve, labels = old.learning_curve, new.learning_curve.labels if new.learning_curve else None
    if old.test_digest is None or old.test_digest != new.test_digest or not (old.metrics and new.metrics and curve):
        return None
    if labels is None or labels < curve.labels:
        return None
    before, after = old.metrics.accuracy, new.metrics.accuracy
    new_labels, fixed, factor = labels - curve.labels, 0.0, labels / curve.labels
    if new_labels == 0:
        fixed, factor = _fixed_labels(old_run, new_run, labels)
    expected = _expected_gain(before, curve, factor)
    if expected is None or expected.value < MIN_GAIN:
        return None
    return PredictedGain(old_run.name, new_labels, round(fixed), expected, _difference(before, after))


def _fixed_labels(old: RunRecord, new: RunRecord, labels: int) -> tuple[float, float]:
    """The estimated number of wrong labels that were fixed in changed data, and the factor that this is worth."""
    digests = [run.inputs and run.inputs.data_digest for run in (old, new)]
    if digests[0] == digests[1] or not (old.label_issues and new.label_issues):
        return 0.0, 1.0
    wrong = old.label_issues.expected, new.label_issues.expected
    if wrong[0] - wrong[1] < MIN_FIXED_LABELS:
        return 0.0, 1.0
    return wrong[0] - wrong[1], ((labels - wrong[1]) / max(labels - wrong[0], 1.0)) ** 2


def _expected_gain(before: EstimateRecord, curve: ExtrapolatedCurveRecord, factor: float) -> Estimate | None:
    """The gain from `factor` times as many labels. See the module's docstring."""
    doubled = next((expected.accuracy for expected in curve.expected if expected.times == DOUBLED), None)
    error = 1 - before.value
    if doubled is None or error <= 0:
        return None
    gains = []
    for accuracy in (doubled.value, doubled.low, doubled.high):
        remaining = min(1.0, max((1 - accuracy) / error, 1e-9))
        gains.append(error * (1 - factor ** math.log2(remaining)))
    return Estimate(*gains)


def _difference(before: EstimateRecord, after: EstimateRecord) -> Estimate:
    """The change of a share, with Newcombe's interval from the two intervals.

    It treats the two as independent. On the same rows they are not, so the interval is too wide rather than too narrow.
    """
    value = after.value - before.value
    low = value - math.hypot(after.value - after.low, before.high - before.value)
    high = value + math.hypot(after.high - after.value, before.value - before.low)
    return Estimate(value, low, high)
