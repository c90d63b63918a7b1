"""What the review log says about labels, pseudo-labels and reviewers: for the report, and as reports/review.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from seedling.dataset.spreadsheet import spreadsheet_cell
from seedling.records.intervals import EstimateRecord
from seedling.records.record import RecordPart
from seedling.workspace import Workspace

LabelKind = Literal["labels", "pseudo_labels"]
COLUMNS = ("part", "name", "quantity", "value", "low", "high", "rows")


class ErrorRateRecord(RecordPart):
    """The share of wrong labels, or of wrong pseudo-labels, from random rows that were shown without a suggestion.

    rows: random rows with an answer; undecided: those without; estimate: corrected for the reviewers' errors;
    contradicted: labels that reviewers contradict, which includes their errors; second_looks: rows that were answered
    twice without a suggestion; is_corrected: whether these are enough to measure the reviewers' errors.
    """

    kind: LabelKind
    rows: int
    undecided: int
    estimate: EstimateRecord
    contradicted: EstimateRecord
    second_looks: int
    is_corrected: bool


class CheckRecord(RecordPart):
    """Answers that agree with a known or an earlier answer. share: None without such rows."""

    rows: int
    share: EstimateRecord | None


class AutomationBiasRecord(RecordPart):
    """By how much more often answers agree with a suggestion that was shown.

    shown_rows, hidden_rows: rows with the suggestion shown and hidden; is_random: whether both kinds are random rows.
    """

    difference: EstimateRecord
    shown_rows: int
    hidden_rows: int
    is_random: bool


class ReviewerRecord(RecordPart):
    """A reviewer.

    answers: of all kinds, with undone ones; per_hour: decisions per hour of active time, None without a timed one;
    reversals: undone and changed answers; gold: rows with a known answer; repeats: rows that the reviewer answered
    twice; error: share of wrong answers without a suggestion, None if nothing measures it.
    """

    name: str
    answers: int
    decisions: int
    per_hour: float | None
    reversals: int
    gold: CheckRecord
    repeats: CheckRecord
    error: EstimateRecord | None
    automation_bias: AutomationBiasRecord | None


class PairRecord(RecordPart):
    """Two reviewers: the rows that both answered, the share on which they agree, and Cohen's kappa.

    kappa: None if they gave only one class.
    """

    first: str
    second: str
    rows: int
    agreement: EstimateRecord
    kappa: float | None


class DisagreementRecord(RecordPart):
    """A row about which reviewers differ. votes: reviewer and vote; decision: None if the votes remain tied."""

    row_id: str
    origin: str | None
    votes: tuple[tuple[str, str], ...]
    decision: str | None


class OutcomeRecord(RecordPart):
    """Reviewed rows by what was decided.

    confirmed, corrected, given: labels that stayed, that changed, and of rows that had none; rejected_labels: rows that
    are not of the class that they had, with no other class; undecided: answered, but without a decision.
    """

    confirmed: int = 0
    corrected: int = 0
    given: int = 0
    rejected_labels: int = 0
    none_of_these: int = 0
    bad: int = 0
    duplicates: int = 0
    undecided: int = 0

    @property
    def decided(self) -> int:
        """The number of rows with a decision."""
        labels = self.confirmed + self.corrected + self.given + self.rejected_labels
        return labels + self.none_of_these + self.bad + self.duplicates


class StateRecord(RecordPart):
    """Rows by the state of their label: from the data, decided by a reviewer, or only predicted."""

    labeled: int = 0
    reviewed: int = 0
    predicted: int = 0


class CorrectedTestRecord(RecordPart):
    """The accuracy on the test split with the labels before and after review.

    rows: those that had a label before; corrected: labels that changed.
    """

    rows: int
    corrected: int
    before: EstimateRecord
    after: EstimateRecord


class ReviewedTestRecord(RecordPart):
    """A test split of rows that only reviewers have labeled.

    rows: all; random: drawn at random and first asked without a suggestion; imported: first answered in another tool;
    suggested: answered with a suggestion, or with a class that was asked about, on the screen. The rows that are
    neither random nor imported were selected by the order of the review.
    """

    rows: int
    random: int
    suggested: int
    imported: int = 0

    @property
    def is_random(self) -> bool:
        """Whether all rows were drawn at random."""
        return self.random == self.rows


class ReviewRecord(RecordPart):
    """The review log in numbers.

    minutes: of active time of all reviewers, None without a timed answer; new_answers: since the previous run;
    accuracies: cross-validated, of the first and the last refit while reviewing, None without two of them; vanished:
    decided rows that are no longer in the data; alpha: Krippendorff's, None without a shared row; damaged,
    edited: lines of the log that cannot be read, or that were changed by hand.
    """

    answers: int
    outcomes: OutcomeRecord
    states: StateRecord
    vanished: int
    error_rates: tuple[ErrorRateRecord, ...]
    errors_left: EstimateRecord | None
    automation_bias: AutomationBiasRecord | None
    reviewers: tuple[ReviewerRecord, ...]
    pairs: tuple[PairRecord, ...]
    alpha: float | None
    shared_rows: int
    disagreements: tuple[DisagreementRecord, ...]
    damaged: tuple[str, ...]
    edited: tuple[str, ...]
    corrected_test: CorrectedTestRecord | None = None
    reviewed_test: ReviewedTestRecord | None = None
    minutes: float | None = None
    new_answers: int = 0
    accuracies: tuple[EstimateRecord, EstimateRecord] | None = None


Cell = str | float | int | None


def write_review_table(workspace: Path, record: ReviewRecord) -> Path:
    """Write reports/review.csv: a line per number, with its interval and the rows that it is of. Returns the path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in review_rows(record):
        writer.writerow([spreadsheet_cell("" if cell is None else cell) for cell in row])
    path = Workspace(workspace).review_table
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def review_rows(record: ReviewRecord) -> Iterator[tuple[Cell, ...]]:
    """Yield the lines of the table: part, name, quantity, value, low, high, rows."""
    yield "log", "", "answers", record.answers, None, None, None
    yield "log", "", "new answers", record.new_answers, None, None, None
    yield "log", "", "active minutes", record.minutes, None, None, None
    yield "log", "", "vanished rows", record.vanished, None, None, None
    yield "log", "", "damaged lines", len(record.damaged), None, None, None
    yield "log", "", "edited lines", len(record.edited), None, None, None
    for part, counts in (("decisions", record.outcomes), ("state", record.states)):
        for name, count in counts.model_dump().items():
            yield part, "", name.replace("_", " "), count, None, None, None
    if record.reviewed_test:
        for name, count in record.reviewed_test.model_dump().items():
            yield "test rows labeled by reviewers only", "", name, count, None, None, None
    yield from _rates(record)
    for reviewer in record.reviewers:
        yield from _of_reviewer(reviewer)
    for pair in record.pairs:
        name = f"{pair.first}, {pair.second}"
        yield "pair", name, "agreement", *_interval(pair.agreement), pair.rows
        yield "pair", name, "kappa", pair.kappa, None, None, pair.rows
    yield "reviewers", "", "alpha", record.alpha, None, None, record.shared_rows
    for disagreement in record.disagreements:
        votes = "; ".join(f"{reviewer}: {vote}" for reviewer, vote in disagreement.votes)
        yield "disagreement", disagreement.row_id, votes, disagreement.decision or "undecided", None, None, None


def _rates(record: ReviewRecord) -> Iterator[tuple[Cell, ...]]:
    for rate in record.error_rates:
        name = rate.kind.replace("_", "-")
        quantity = "error rate" if rate.is_corrected else "error rate, reviewers' errors assumed"
        yield "random rows", name, quantity, *_interval(rate.estimate), rate.rows
        yield "random rows", name, "contradicted", *_interval(rate.contradicted), rate.rows
        yield "random rows", name, "undecided", rate.undecided, None, None, rate.rows + rate.undecided
    if record.errors_left:
        yield "random rows", "labels", "errors left", *_interval(record.errors_left), None
    yield from _bias("reviewers", "", record.automation_bias)
    test = record.corrected_test
    if test:
        yield "test split", "", "corrected labels", test.corrected, None, None, test.rows
        yield "test split", "", "accuracy before review", *_interval(test.before), test.rows
        yield "test split", "", "accuracy after review", *_interval(test.after), test.rows


def _of_reviewer(reviewer: ReviewerRecord) -> Iterator[tuple[Cell, ...]]:
    name = reviewer.name
    yield "reviewer", name, "answers", reviewer.answers, None, None, None
    yield "reviewer", name, "decisions", reviewer.decisions, None, None, None
    yield "reviewer", name, "decisions per hour", reviewer.per_hour, None, None, None
    yield "reviewer", name, "reversals", reviewer.reversals, None, None, None
    for quantity, check in (("gold accuracy", reviewer.gold), ("self-agreement", reviewer.repeats)):
        if check.share:
            yield "reviewer", name, quantity, *_interval(check.share), check.rows
    if reviewer.error:
        yield "reviewer", name, "wrong without a suggestion", *_interval(reviewer.error), None
    yield from _bias("reviewer", name, reviewer.automation_bias)


def _bias(part: str, name: str, bias: AutomationBiasRecord | None) -> Iterator[tuple[Cell, ...]]:
    if bias:
        quantity = "automation bias" if bias.is_random else "automation bias, rows not random"
        yield part, name, quantity, *_interval(bias.difference), bias.shown_rows + bias.hidden_rows


def _interval(estimate: EstimateRecord) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
