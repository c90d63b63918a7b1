"""What the review log says about labels, pseudo-labels and reviewers, each number with its interval.

The share of wrong labels is measured on random rows that were answered without a suggestion (purpose `random`), and
corrected for the reviewers' errors (error_rate.py). An answer counts as given without a suggestion if the page named
neither the model's class nor the row's label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from seedling.records.intervals import EstimateRecord
from seedling.records.review import (
    AutomationBiasRecord,
    CheckRecord,
    DisagreementRecord,
    ErrorRateRecord,
    OutcomeRecord,
    PairRecord,
    ReviewerRecord,
    ReviewRecord,
    StateRecord,
)
from seedling.review.agreement import SuggestionCounts, automation_bias, cohens_kappa, krippendorffs_alpha
from seedling.review.decisions import SEPARATOR, Decision, Decisions, decide
from seedling.review.error_rate import (
    CorrectedRate,
    Counted,
    LabelChecks,
    Pair,
    corrected_error_rate,
    mean_error,
    reviewer_errors,
)
from seedling.review.log import ReviewerFile
from seedling.review.tally import LABEL_KINDS, LabelKind, ReviewTally
from seedling.stats.statistics import Estimate, wilson

MIN_RANDOM_SUGGESTIONS = 20  # random rows with a suggestion that are enough to compare random rows alone
MILLISECONDS_PER_MINUTE = 60_000
MAX_DISAGREEMENTS = 1_000  # in the record


@dataclass(frozen=True)
class ReviewedData:
    """The rows that were reviewed, as in the present generation.

    ids: of all rows, with rejected ones; None: not known, so that no row counts as vanished. origins: row id → origin.
    classes: their number. labeled, pool: rows that the random rows were drawn from, None: many. states: rows by the
    state of their label.
    """

    ids: Collection[str] | None = None
    origins: Mapping[str, str | None] = field(default_factory=dict)
    classes: int = 2
    labeled: int | None = None
    pool: int | None = None
    states: StateRecord = field(default_factory=StateRecord)

    def population(self, kind: LabelKind) -> int | None:
        """The number of rows that the random rows with labels, or with pseudo-labels, were drawn from."""
        return self.labeled if kind == "labels" else self.pool


def review_record(files: Mapping[str, ReviewerFile], data: ReviewedData, confidence: float = 0.95) -> ReviewRecord:
    """The review log in numbers. files: by reviewer, from `read_log`."""
    tally, decisions = ReviewTally(files), decide(files)
    rates = {kind: error_rate(tally, kind, data.classes, data.population(kind), confidence) for kind in LABEL_KINDS}
    labels = rates["labels"]
    vanished = 0 if data.ids is None else sum(row_id not in data.ids for row_id in decisions.by_row)
    units = tally.units()
    milliseconds = sum(time.milliseconds for time in tally.times.values())
    return ReviewRecord(
        answers=sum(time.answers for time in tally.times.values()),
        minutes=round(milliseconds / MILLISECONDS_PER_MINUTE, 1) if milliseconds else None,
        outcomes=outcomes(decisions),
        states=data.states,
        vanished=vanished,
        error_rates=tuple(_rate_record(tally, kind, rate) for kind, rate in rates.items() if rate is not None),
        errors_left=_record(errors_left(tally, labels, data.classes, data.labeled)) if labels else None,
        automation_bias=_bias(tally, None, confidence),
        reviewers=tuple(_reviewer(tally, name, data.classes, confidence) for name in sorted(tally.times)),
        pairs=_pairs(tally, confidence),
        alpha=_rounded(krippendorffs_alpha(units)),
        shared_rows=sum(units.values()),
        disagreements=tuple(_disagreements(decisions, data.origins)),
        damaged=tuple(decisions.damaged),
        edited=tuple(decisions.edited),
    )


def label_checks(tally: ReviewTally, kind: LabelKind, classes: int) -> LabelChecks:
    """The answers without a suggestion about rows with a label, or about rows with only a pseudo-label."""
    labels = {items[0]: counted for items, counted in tally.counted("random", kind).items()}
    looks: dict[Pair, Counted] = {(items[0], items[1]): counted for items, counted in tally.counted("looks").items()}
    return LabelChecks(labels, looks, classes)


def error_rate(
    tally: ReviewTally, kind: LabelKind, classes: int, population: int | None, confidence: float = 0.95
) -> CorrectedRate | None:
    """The share of wrong labels or pseudo-labels among the rows that the random rows were drawn from."""
    checks = label_checks(tally, kind, classes)
    labels, looks = tuple(sorted(checks.labels.items())), tuple(sorted(checks.second_looks.items()))
    return _error_rate_of(labels, looks, classes, population, confidence)


@lru_cache(maxsize=64)  # most answers change neither count
def _error_rate_of(
    labels: tuple[tuple[str, Counted], ...],
    looks: tuple[tuple[Pair, Counted], ...],
    classes: int,
    population: int | None,
    confidence: float,
) -> CorrectedRate | None:
    checks = LabelChecks(dict(labels), dict(looks), classes)
    return corrected_error_rate(checks, population=population, confidence=confidence)


def errors_left(tally: ReviewTally, rate: CorrectedRate, classes: int, labeled: int | None) -> Estimate | None:
    """The number of wrong labels in rows that nobody has reviewed; None if the number of labels is unknown.

    It is θ N - n (c - e) / (1 - e - e / (K - 1)), with the share θ of wrong labels among all N labels when they were
    shown, and the share c of n reviewed labels that reviewers contradict, corrected for their error e as in
    error_rate.py. The interval is that of θ.
    """
    if labeled is None:
        return None
    reviewed = tally.counted("reviewed label").get((), Counted())
    checks = label_checks(tally, "labels", classes)
    error = mean_error(checks)
    right = 1 - error - error / max(1, classes - 1)
    corrected = (reviewed.differ - error * reviewed.rows) / right if right > 0 else reviewed.differ
    in_reviewed = min(max(corrected, 0.0), float(reviewed.rows))
    open_rows = max(0, labeled - reviewed.rows)
    low, value, high = (
        min(max(0.0, share * labeled - in_reviewed), open_rows)
        for share in (rate.estimate.low, rate.estimate.value, rate.estimate.high)
    )
    return Estimate(value, low, high)


def outcomes(decisions: Decisions) -> OutcomeRecord:
    """The reviewed rows by what was decided, compared with the label that they had before."""
    counts: Counter[str] = Counter()
    former: dict[str, str | None] = {}
    for answer in decisions.answers:
        if answer.row_id not in former:
            former[answer.row_id] = decisions.classes.present_label(answer.previous_label, answer.written_at)
    for row_id, label in former.items():
        decision = decisions.by_row.get(row_id)
        counts[_outcome(decision, label)] += 1
    return OutcomeRecord(**counts)


def _outcome(decision: Decision | None, former: str | None) -> str:
    if decision is None:
        return "undecided"
    if decision.kind == "label":
        return "given" if former is None else "confirmed" if decision.label == former else "corrected"
    return {"reject": "rejected_labels", "duplicate": "duplicates"}.get(decision.kind, decision.kind)


def _rate_record(tally: ReviewTally, kind: LabelKind, rate: CorrectedRate) -> ErrorRateRecord:
    return ErrorRateRecord(
        kind=kind,
        rows=rate.rows,
        undecided=tally.counts["random without an answer", kind],
        estimate=EstimateRecord.of(rate.estimate),
        contradicted=EstimateRecord.of(rate.contradicted),
        second_looks=rate.second_looks,
        is_corrected=rate.is_corrected,
    )


def reversals(tally: ReviewTally, reviewer: str | None = None) -> int:
    """Answers that were undone, and answers that changed an earlier one, of a reviewer or of all."""
    undone = tally.undone
    names = list(tally.times) if reviewer is None else [reviewer]
    return sum(undone[name] + tally.counts["changed", name] for name in names)


def _reviewer(tally: ReviewTally, name: str, classes: int, confidence: float) -> ReviewerRecord:
    time = tally.times[name]
    checks = label_checks(tally, "labels", classes)
    is_measured = any(name in pair for pair in checks.second_looks)
    return ReviewerRecord(
        name=name,
        answers=time.answers,
        decisions=time.decisions,
        per_hour=_rounded(time.per_hour, 1),
        reversals=reversals(tally, name),
        gold=_check(tally.counted("gold", name), confidence),
        repeats=_check(tally.counted("repeat", name), confidence),
        error=EstimateRecord.of(reviewer_errors(checks, confidence)[name]) if is_measured else None,
        automation_bias=_bias(tally, name, confidence),
    )


def _check(counted: Mapping[tuple[str, ...], Counted], confidence: float) -> CheckRecord:
    rows = counted.get((), Counted())
    share = wilson(rows.rows - rows.differ, rows.rows, confidence) if rows.rows else None
    return CheckRecord(rows=rows.rows, share=_record(share))


def _bias(tally: ReviewTally, reviewer: str | None, confidence: float) -> AutomationBiasRecord | None:
    strata = tally.suggestions(reviewer, random_only=True)
    is_random = sum(stratum.shown_rows for stratum in strata) >= MIN_RANDOM_SUGGESTIONS
    if not is_random:
        strata = tally.suggestions(reviewer)
    compared = [stratum for stratum in strata if stratum.shown_rows and stratum.hidden_rows]
    difference = automation_bias(compared, confidence)
    if difference is None:
        return None
    return AutomationBiasRecord(
        difference=EstimateRecord.of(difference),
        shown_rows=_total(compared, "shown_rows"),
        hidden_rows=_total(compared, "hidden_rows"),
        is_random=is_random,
    )


def _total(strata: Iterable[SuggestionCounts], name: str) -> int:
    return sum(int(getattr(stratum, name)) for stratum in strata)


def _pairs(tally: ReviewTally, confidence: float) -> tuple[PairRecord, ...]:
    pairs = []
    for (first, second), counts in sorted(tally.votes_of_pairs().items()):
        rows = sum(counts.values())
        same = sum(count for (label, other), count in counts.items() if label == other)
        agreement = EstimateRecord.of(wilson(same, rows, confidence))
        kappa = _rounded(cohens_kappa(counts))
        pairs.append(PairRecord(first=first, second=second, rows=rows, agreement=agreement, kappa=kappa))
    return tuple(pairs)


def _disagreements(decisions: Decisions, origins: Mapping[str, str | None]) -> Iterable[DisagreementRecord]:
    for entry in decisions.disagreements[:MAX_DISAGREEMENTS]:
        yield DisagreementRecord(
            row_id=entry.row_id,
            origin=origins.get(entry.row_id),
            votes=tuple((reviewer, vote_in_words(vote)) for reviewer, vote in entry.votes),
            decision=None if entry.decision is None else decision_in_words(entry.decision),
        )


def vote_in_words(vote: str) -> str:
    """The class of a vote, `not cat` if it rejects a class, else its kind."""
    kind, _, labels = vote.partition(SEPARATOR)
    if kind == "label":
        return labels
    return f"not {labels.replace(SEPARATOR, ', ')}" if kind == "reject" else kind.replace("_", " ")


def decision_in_words(decision: Decision) -> str:
    """The class, or what was decided instead."""
    if decision.kind == "label" and decision.label is not None:
        return decision.label
    return (
        f"not {', '.join(decision.rejected_labels)}" if decision.kind == "reject" else decision.kind.replace("_", " ")
    )


def _record(estimate: Estimate | None) -> EstimateRecord | None:
    return None if estimate is None else EstimateRecord.of(estimate)


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
