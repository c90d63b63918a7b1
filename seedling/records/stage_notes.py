"""What each stage notes in the manifest of its generation, besides its rows: a class per stage."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict, Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.records.record import RecordPart

MIN_P_BETTER_FILTER = 0.9  # bootstrap probability with which another filter of pseudo-labels must beat `all`


class StageNotes(RecordPart):
    """The notes of a stage. OPTIONAL: keys that are written only if the stage has something to note."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value or name not in self.OPTIONAL}


class RuleRecord(RecordPart):
    """How a label rule voted, and its precision on the rows that people labeled.

    coverage, overlap, conflict: shares of all items, 0 to 1, on which the rule votes, votes with another rule, and
    votes against another rule; evaluated: votes on items with a human label; precision: None without such a vote.
    """

    rule: str
    votes: int
    coverage: float
    overlap: float
    conflict: float
    evaluated: int
    precision: EstimateRecord | None


class FilesRecord(RecordPart):
    """The files of data/: files_in = read + the number of ignored ones. ignored: reason → files."""

    model_config = ConfigDict(populate_by_name=True)

    files_in: int = Field(validation_alias="in", serialization_alias="in")
    read: int
    ignored: dict[str, int]

    @property
    def n_ignored(self) -> int:
        """The number of ignored files."""
        return sum(self.ignored.values())


class ScrapeNotes(StageNotes):
    """What scrape found besides rows.

    sources: the kind of each source; no_items: source → reason → pages or numbers without an item that are not errors;
    empty_classes: classes whose folders have no file; files: None if the rows are of no folder.
    """

    OPTIONAL = frozenset({"rules", "no_items", "empty_classes", "files"})

    sources: tuple[str, ...] = ()
    rules: tuple[RuleRecord, ...] = ()
    no_items: dict[str, dict[str, int]] = Field(default_factory=dict)
    empty_classes: tuple[str, ...] = ()
    files: FilesRecord | None = None


class ClassLabelIssues(RecordPart):
    """The label issues of one class. expected: the expected number of wrong labels."""

    model_config = ConfigDict(populate_by_name=True)

    label: str = Field(validation_alias="class", serialization_alias="class")
    rows: int
    expected: float
    flagged: int


class LabelPair(RecordPart):
    """The number of label issues with this label and this suggested label."""

    original_label: str
    suggested_label: str
    rows: int


class ReviewTime(RecordPart):
    """What a person finds in `minutes` of review: the rows, and the share of all wrong labels, 0 to 1."""

    minutes: int
    rows: int
    share: EstimateRecord


class LabelIssueEstimate(RecordPart):
    """The estimate of the wrong labels among the training labels.

    labels: evaluated labels; expected: expected number of wrong ones, with the interval `between`; flagged: likely
    label errors; policy: `validate.label_issues`; repaired: rows that the policy changed; unrepaired_classes: left to
    people, because most of their labels are flagged; pairs: the most common ones; budget: one entry per review time.
    """

    labels: int
    expected: float
    between: tuple[float, float]
    flagged: int
    policy: str
    repaired: int
    unrepaired_classes: tuple[str, ...]
    by_class: tuple[ClassLabelIssues, ...]
    pairs: tuple[LabelPair, ...]
    items_per_minute: float
    budget: tuple[ReviewTime, ...]


class NotEstimated(RecordPart):
    """The reason why the wrong labels could not be estimated."""

    not_estimated: str


class ReviewNotes(RecordPart):
    """What validate took from the review log.

    decisions: kind → rows; changed_labels: rows whose label was replaced by another one; changed_test_rows: rows of the
    test split whose label or use changed; vanished: decided rows that the data no longer has; disagreements: rows about
    which reviewers differ; damaged_lines, edited_lines: of the log; test_rows: those of a test split that validate took
    from rows that only reviewers had labeled.
    """

    decisions: dict[str, int]
    changed_labels: int
    changed_test_rows: int
    vanished: int
    disagreements: int
    damaged_lines: int
    edited_lines: int
    test_rows: int = 0


class ValidateNotes(StageNotes):
    """What validate changed and flagged.

    merged_spellings: changed spelling of a label → new spelling; carved_test_rows: rows that became the test split;
    quality: code → flagged rows; usual_quality_codes: the same for codes too common to be defects; label_issues: None
    only in manifests that validate did not write; fixed_camera: images not treated as near-duplicates; reviews: None
    without reviews.
    """

    OPTIONAL = frozenset({"label_issues", "fixed_camera", "reviews"})

    merged_spellings: dict[str, str] = Field(default_factory=dict)
    carved_test_rows: int = 0
    quality: dict[str, int] = Field(default_factory=dict)
    usual_quality_codes: dict[str, int] = Field(default_factory=dict)
    label_issues: LabelIssueEstimate | NotEstimated | None = None
    fixed_camera: int = 0
    reviews: ReviewNotes | None = None

    @property
    def estimated_issues(self) -> LabelIssueEstimate | None:
        """The estimate of the wrong labels; None if there is none."""
        return self.label_issues if isinstance(self.label_issues, LabelIssueEstimate) else None


class ClassShares(RecordPart):
    """The share of the training rows per class, 0 to 1, before and after augmentation."""

    before: dict[str, float]
    after: dict[str, float]


class PolicyTrial(RecordPart):
    """One augmentation policy and its effect on the evaluation rows.

    accuracy, log_loss: with augmented rows minus without; label_changes: share of augmented rows that a model assigns
    to another class than their parent, 0 to 1; kept: whether it is, or is part of, the chosen policy.
    """

    name: str
    augmentations_per_row: int
    accuracy: DifferenceRecord
    log_loss: DifferenceRecord
    label_changes: float
    kept: bool


class ScreeningRecord(RecordPart):
    """The search for an augmentation policy.

    rows: evaluation rows; policy: in the form of params.yaml, empty if nothing helps; confirmed: the best policy on
    other folds; trials: all policies.
    """

    rows: int
    policy: list[JsonValue]
    confirmed: PolicyTrial
    trials: tuple[PolicyTrial, ...]


class NotScreened(RecordPart):
    """The reason why no policy could be screened."""

    not_screened: str


class AugmentNotes(StageNotes):
    """What augment applied.

    augmentations_per_row: augmented rows per training row; policy: operation → arguments, in order; screening: None if
    params.yaml has the policy; class_shares: None without `augment.balance`; hard: why hard rows were not favored.
    """

    OPTIONAL = frozenset({"policy", "screening", "class_shares", "hard"})

    augmentations_per_row: int = 0
    policy: tuple[dict[str, dict[str, JsonValue]], ...] = ()
    screening: ScreeningRecord | NotScreened | None = None
    class_shares: ClassShares | None = None
    hard: str | None = None

    @property
    def screened(self) -> ScreeningRecord | None:
        """The search for a policy; None if there was none."""
        return self.screening if isinstance(self.screening, ScreeningRecord) else None


class TemplateRecord(RecordPart):
    """A template of texts of a class. possible: the number of different sentences that it can make."""

    model_config = ConfigDict(populate_by_name=True)

    label: str = Field(validation_alias="class", serialization_alias="class")
    text: str
    possible: int


class SynthesizeNotes(StageNotes):
    """What synthesize can make of its templates. templates: empty for images."""

    OPTIONAL = frozenset({"templates"})

    templates: tuple[TemplateRecord, ...] = ()


class ClassPrecision(RecordPart):
    """Held-out rows that are predicted as a class, and their precision; None without such a row."""

    rows: int
    precision: EstimateRecord | None


class FilterTrial(RecordPart):
    """A filter of pseudo-labels on held-out rows.

    kept: rows; precision: of the kept rows, None without one; gain: correct labels above chance per row;
    probability_better: that it gains more than keeping all rows.
    """

    filter: str
    kept: int
    precision: EstimateRecord | None
    gain: float
    probability_better: float


class PseudoLabelAudit(RecordPart):
    """The expected precision of the kept pseudo-labels, measured on held-out labeled rows treated like the pool.

    temperature: of the teacher's probabilities; teacher_weight: of a teacher's prediction relative to a label, None
    without a neighbor graph; rows: held-out rows; kept: held-out rows that the filter keeps; classes: by predicted
    class; filters: the comparison of all filters.
    """

    temperature: float
    teacher_weight: float | None
    rows: int
    filter: str
    kept: int
    precision: EstimateRecord | None
    classes: dict[str, ClassPrecision]
    filters: tuple[FilterTrial, ...]


class PseudoLabelNotes(StageNotes):
    """How reliable a round's pseudo-labels are. skipped: whether the loop had stopped before this round."""

    OPTIONAL = frozenset({"skipped", "audit"})

    skipped: bool = False
    audit: PseudoLabelAudit | None = None


NOTES_BY_STAGE: dict[str, type[StageNotes]] = {
    "scrape": ScrapeNotes,
    "validate": ValidateNotes,
    "augment": AugmentNotes,
    "synthesize": SynthesizeNotes,
    "pseudo_label": PseudoLabelNotes,
}


def notes_class(stage: str) -> type[StageNotes]:
    """The class of a stage's notes. stage: with or without its round, as in `pseudo_label@1`."""
    return NOTES_BY_STAGE.get(stage.partition("@")[0], StageNotes)
