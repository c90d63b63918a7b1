"""What to do next: the expected gain in accuracy of each way to spend half an hour.

The error rate is modeled as labels^-b (Hestness et al. 2017). Rows with a wrong label count as errors that more labels
do not fix, so their share is subtracted before b is fitted. benchmarks/advice.py measures whether the advice helps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from seedling.evaluate.slices import holm
from seedling.records.candidates import LearningCurveRecord, StepContributionRecord
from seedling.records.evaluation import AdviceKind, AdviceRecord, ExpectedAccuracyRecord, SliceRecord
from seedling.records.few_labels import FEW_LABELS, classes_with_few_labels, few_labels_phrase
from seedling.records.intervals import EstimateRecord
from seedling.records.stage_notes import LabelIssueEstimate
from seedling.stats.power_law import power_law_exponent
from seedling.stats.randomness import generator
from seedling.stats.statistics import Estimate, Floats

MINUTES = 30
ROWS_PER_MINUTE = 20  # that a person checks or labels, unless validate has another estimate
CURVE_DRAWS = 2_000
GAIN_CONFIDENCE = 0.8  # a learning curve of a few points is imprecise
LABEL_FACTORS = (2, 4)
MAX_NAMED = 3  # sources and slices
PARAM_OF_STEP = {"augment": "augment.augmentations_per_row", "synthesize": "synthesize.mixup"}  # 0 turns the step off
FIRST_KINDS = ("set_encoder", "label_classes")  # before all others: nothing else helps as much
NEARLY_ALL = 0.95  # share of the wrong labels; finding the rest is not worth the time
MIN_GAIN = 0.0005  # of accuracy
MIN_LABELS_PER_SOURCE = 10
FAMILYWISE_ERROR_RATE = 0.05  # chance of naming any source if none is worse


@dataclass(frozen=True)
class LabelSource:
    """Training labels of one site, folder or table (kind `source`) or of one rule (kind `rule`).

    wrong: expected number of wrong labels.
    """

    kind: str
    name: str
    rows: int
    wrong: float


@dataclass(frozen=True)
class Curve:
    """How fast the error rate falls with labels: draws of the exponent b and of the error rate, (CURVE_DRAWS,) each.

    labels: current number of labels.
    """

    exponents: Floats
    errors: Floats
    labels: int

    @classmethod
    def of(
        cls, measured: LearningCurveRecord | None, error: float, rows: float, noise: float, seed: int
    ) -> Curve | None:
        """Draws error rates from their posteriors, and fits b to each draw.

        b is fitted to the measured points' error rates minus noise. Posteriors are Beta distributions with Jeffreys'
        prior.

        measured: the learning curve that train measured; error, rows: the current error rate, and the effective number
        of rows it was measured on; noise: share of wrong labels among the evaluation rows of train.
        """
        if measured is None or rows <= 0:
            return None
        rng = generator(seed, "evaluate", "next steps")
        labels, evaluation_rows = [point.labels for point in measured.points], measured.rows
        wrong = evaluation_rows * (1 - np.array([point.accuracy.value for point in measured.points]))
        error_rates = rng.beta(wrong + 0.5, evaluation_rows - wrong + 0.5, size=(CURVE_DRAWS, len(labels)))
        exponents = power_law_exponent(labels, np.maximum(error_rates - noise, 0.5 / evaluation_rows))
        current_errors = rng.beta(error * rows + 0.5, rows - error * rows + 0.5, size=CURVE_DRAWS)
        return cls(exponents, current_errors, measured.labels)

    def gain(self, factor: float, share: float = 1.0) -> Estimate:
        """Gain in accuracy from `factor` times as many labels: share * error * (1 - factor^-b).

        share: share of the errors that can fall.
        """
        gains = self.errors * share * (1 - factor**-self.exponents)
        tail = (1 - GAIN_CONFIDENCE) / 2
        low, value, high = np.quantile(gains, [tail, 0.5, 1 - tail])
        return Estimate(float(value), float(low), float(high))


def extrapolate(curve: Curve | None, accuracy: float) -> tuple[ExpectedAccuracyRecord, ...]:
    """The accuracy to expect with two and four times as many labels; empty without a curve."""
    expected: list[ExpectedAccuracyRecord] = []
    if curve is None:
        return ()
    for factor in LABEL_FACTORS:
        gain = curve.gain(factor)
        estimate = Estimate(*(min(1.0, accuracy + value) for value in (gain.value, gain.low, gain.high)))
        labels = factor * curve.labels
        expected.append(ExpectedAccuracyRecord(times=factor, labels=labels, accuracy=EstimateRecord.of(estimate)))
    return tuple(expected)


def next_steps(  # noqa: PLR0913  (each result that the advice is based on, by its name)
    curve: Curve | None,
    *,
    rows: Mapping[str, int],
    label_issues: LabelIssueEstimate | None,
    unreviewed: Sequence[float] | None = None,
    errors: Mapping[str, int],
    labels: Mapping[str, int],
    step_contributions: Sequence[StepContributionRecord],
    slices: Sequence[SliceRecord],
    has_queue: bool,
    training_data: Collection[str],
    label_sources: Sequence[LabelSource] = (),
    unlabeled: int = 0,
    is_photographs_without_encoder: bool = False,
) -> tuple[AdviceRecord, ...]:
    """Advice, the largest expected gain first.

    rows: kept rows by split; label_issues: validate's estimate of the wrong labels; unreviewed: p_label_error of the
    labels that no person has reviewed, None if no label is reviewed; errors, labels: wrong evaluation rows and
    training labels, by class; step_contributions: measured by train; slices: with
    `worse`; has_queue: whether the pool's rows were ranked for labeling; training_data: stages whose rows the model
    was trained on; label_sources: training labels by source and by rule; unlabeled: held-out rows that scrape rejected
    because they have no label; is_photographs_without_encoder: whether a pretrained encoder is not set, though the rows
    are images that are not small.
    """
    rows_per_minute = ROWS_PER_MINUTE if label_issues is None else label_issues.items_per_minute
    max_rows = max(1, round(MINUTES * rows_per_minute))
    advice = [
        *_set_encoder(is_photographs_without_encoder),
        *_label_classes(labels, rows_per_minute, rows.get("pool", 0)),
        *_label_more(curve, rows, max_rows, rows_per_minute, has_queue, unlabeled),
        *_check_labels(curve, label_issues if unreviewed is None else without_reviewed(label_issues, unreviewed)),
        *_fix_sources(curve, label_sources, rows_per_minute),
        *_label_class(errors, labels, max_rows, rows_per_minute),
        *_leave_out(step_contributions, training_data),
        *_check_slices(slices),
    ]
    useful = [step for step in advice if step.gain is None or step.gain.value >= MIN_GAIN]
    return tuple(sorted(useful, key=lambda step: (step.what not in FIRST_KINDS, _negative_gain(step))))


def _set_encoder(is_photographs_without_encoder: bool) -> list[AdviceRecord]:
    if not is_photographs_without_encoder:
        return []
    how = (
        "Set `encoder` in params.yaml to a folder or to a model of the Hugging Face Hub, and run again: for few "
        "photographs, features that were learned from millions of images are worth more than anything else here."
    )
    return [_advice("set_encoder", "Use a pretrained encoder", how, None, None)]


def _label_classes(labels: Mapping[str, int], rows_per_minute: float, pool: int) -> list[AdviceRecord]:
    """The classes with fewer than `FEW_LABELS` training labels. pool: rows without a label."""
    few = classes_with_few_labels(labels)
    if not few or len(labels) < 2:
        return []
    missing = sum(FEW_LABELS - count for count in few.values())
    how = f"Fewer than {FEW_LABELS} labels: {few_labels_phrase(few)}. Such a class is hardly learned or evaluated."
    if pool:
        how += " `seedling review` prefers rows of the pool that may belong to such classes."
    plural = "rows" if missing > 1 else "row"
    return [
        _advice(
            "label_classes",
            f"Label {missing:,} more {plural} of the rarest classes",
            how,
            missing / rows_per_minute,
            None,
        )
    ]


def _negative_gain(step: AdviceRecord) -> float:
    """Sort key: the largest gain first, unknown gains last."""
    return -step.gain.value if step.gain else 0.0


def _advice(what: AdviceKind, text: str, how: str, minutes: float | None, gain: Estimate | None) -> AdviceRecord:
    return AdviceRecord(
        what=what,
        text=text,
        how=how,
        minutes=None if minutes is None else max(1, round(minutes)),
        gain=None if gain is None else EstimateRecord.of(gain),
    )


def _label_more(
    curve: Curve | None,
    rows: Mapping[str, int],
    max_rows: int,
    rows_per_minute: float,
    has_queue: bool,
    unlabeled: int,
) -> list[AdviceRecord]:
    if curve is None:
        return []
    n_rows = min(max_rows, rows.get("pool", 0) or max_rows, curve.labels)
    factor = (curve.labels + n_rows) / curve.labels
    if rows.get("pool", 0):
        how = "`seedling review` asks for them, those first whose answer is likely to change most."
        if has_queue:
            how += " For other tools, generations/pseudo_label/1/queue.csv lists the most informative rows."
        return [
            _advice("label", f"Label {n_rows:,} rows of the pool", how, n_rows / rows_per_minute, curve.gain(factor))
        ]
    how = "The pool is empty: add rows to data/."
    if unlabeled:
        how = (
            f"{unlabeled:,} rows of the validation or test split have no label and were rejected: add their labels in "
            "data/, or move them to the pool. Then add rows."
        )
    text = f"Collect and label {n_rows:,} more rows"
    return [_advice("collect", text, how, n_rows / rows_per_minute, curve.gain(factor))]


def without_reviewed(issues: LabelIssueEstimate | None, unreviewed: Sequence[float]) -> LabelIssueEstimate | None:
    """The estimate for the labels that no person has reviewed, since only these are left to check.

    unreviewed: their p_label_error.
    """
    if issues is None:
        return None
    ranked, expected = np.sort(np.array(unreviewed, dtype=np.float64))[::-1], float(sum(unreviewed))
    budget = []
    for review in issues.budget if expected > 0 else ():
        share = float(ranked[: review.rows].sum()) / expected
        estimate = EstimateRecord.of(Estimate(share, share, share))
        budget.append(review.model_copy(update={"rows": min(review.rows, len(ranked)), "share": estimate}))
    return issues.model_copy(update={"expected": expected, "budget": tuple(budget)})


def _check_labels(curve: Curve | None, label_issues: LabelIssueEstimate | None) -> list[AdviceRecord]:
    """Checking the likely label errors.

    A share `noise` of wrong labels is worth (1 - noise)^2 of the labels (after Angluin and Laird 1988, for many
    classes), so fixing a share f of them is worth ((1 - (1 - f) noise) / (1 - noise))^2 times as many labels.
    """
    if curve is None or label_issues is None or label_issues.expected < 1 or not label_issues.labels:
        return []
    wrong, n_labels = label_issues.expected, label_issues.labels
    affordable = [review for review in label_issues.budget if review.minutes <= MINUTES]
    if not affordable:
        return []
    sufficient = [review for review in affordable if review.share.value >= NEARLY_ALL]
    review = sufficient[0] if sufficient else affordable[-1]
    fixed = wrong * review.share.value
    factor = ((1 - (wrong - fixed) / n_labels) / (1 - wrong / n_labels)) ** 2
    how = (
        "`seedling review` asks about them by keyboard; reports/data.html and reports/label_issues.csv have them, the "
        "most likely errors first. If most of the first ten labels are right, stop: with few rows or hard "
        "classes, difficult rows and wrong labels look alike."
    )
    text = f"Check the {review.rows:,} most likely label errors"
    return [_advice("check_labels", text, how, review.rows / label_issues.items_per_minute, curve.gain(factor))]


def _fix_sources(
    curve: Curve | None, label_sources: Sequence[LabelSource], rows_per_minute: float
) -> list[AdviceRecord]:
    """Sources and rules with significantly more wrong labels than the others.

    By a one-sided Fisher's exact test with Holm's correction.
    """
    sources = [source for source in label_sources if source.kind == "source"]
    rows, wrong = sum(source.rows for source in sources), sum(source.wrong for source in sources)
    counts_of_sources = {(source.rows, source.wrong) for source in sources}  # a rule of the same rows is not named too
    tested = [
        source
        for source in label_sources
        if MIN_LABELS_PER_SOURCE <= source.rows < rows
        and (source.kind == "source" or (source.rows, source.wrong) not in counts_of_sources)
    ]
    p_values = [
        fisher_exact(
            np.array(
                [
                    [round(source.wrong), source.rows - round(source.wrong)],
                    [round(wrong - source.wrong), rows - source.rows - round(wrong - source.wrong)],
                ]
            ),
            alternative="greater",
        ).pvalue
        for source in tested
    ]
    advice = []
    for source, is_worse in zip(tested, holm(p_values, FAMILYWISE_ERROR_RATE), strict=True):
        if not is_worse:
            continue
        factor = ((1 - (wrong - source.wrong) / rows) / max(1 - wrong / rows, 0.01)) ** 2
        others = f"{wrong - source.wrong:.0f}" if round(wrong - source.wrong) else "none"
        how = (
            f"An estimated {source.wrong:.0f} of its {source.rows:,} labels are wrong, and {others} of the other "
            f"{rows - source.rows:,}. Fix the source or these rows; reports/label_issues.csv lists them."
        )
        text = f"Fix the {source.kind} {source.name or 'that is the top of data/'}"
        gain = curve.gain(factor) if curve else None
        advice.append(_advice("fix_source", text, how, source.wrong / rows_per_minute, gain))
    return sorted(advice, key=_negative_gain)[:MAX_NAMED]


def _label_class(
    errors: Mapping[str, int], labels: Mapping[str, int], max_rows: int, rows_per_minute: float
) -> list[AdviceRecord]:
    """The class with most errors, if its share of the errors is more than twice its share of the labels.

    Without a gain: more rows of one class also take predictions from the other classes.
    """
    total_errors, total_labels = sum(errors.values()), sum(labels.values())
    if len(errors) < 3 or not total_errors:
        return []
    name = min(errors, key=lambda label: (-errors[label], label))
    if errors[name] < 2 or errors[name] * total_labels <= 2 * total_errors * labels.get(name, 0):
        return []
    n_rows = min(labels.get(name, 0) or max_rows, max_rows)
    how = (
        f"{errors[name]} of the {total_errors} errors are rows of this class, more than twice its share of the labels."
    )
    return [_advice("collect_class", f"Label {n_rows:,} more rows of “{name}”", how, n_rows / rows_per_minute, None)]


def _leave_out(
    step_contributions: Sequence[StepContributionRecord],
    training_data: Collection[str],
) -> list[AdviceRecord]:
    """Steps that significantly reduce accuracy although the model in use was trained with them."""
    advice = []
    for result in step_contributions:
        step, difference = result.step, result.difference
        if step in PARAM_OF_STEP and step in training_data and difference.high < 0:
            loss = Estimate(-difference.value, -difference.high, -difference.low)
            how = f"Set {PARAM_OF_STEP[step]}: 0 in params.yaml; model selection already leaves it out where it can."
            advice.append(_advice("leave_out", f"Leave out {step}", how, None, loss))
    return advice


def _check_slices(slices: Sequence[SliceRecord]) -> list[AdviceRecord]:
    worse = sorted((result for result in slices if result.worse), key=lambda result: result.accuracy.value)
    return [
        _advice(
            "slice",
            f"Check rows with {result.column} {result.value}",
            "The model is significantly worse on this slice: "
            f"accuracy {100 * result.accuracy.value:.0f} % on {result.rows} rows.",
            None,
            None,
        )
        for result in worse[:MAX_NAMED]
    ]


def errors_by_class(right: NDArray[np.bool_], truth: NDArray[np.int64], classes: Sequence[str]) -> dict[str, int]:
    """The number of wrong rows per class."""
    counts = np.bincount(truth[~right], minlength=len(classes))
    return {name: int(count) for name, count in zip(classes, counts, strict=True)}
