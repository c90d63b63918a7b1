"""reports/evaluation.json: every result of evaluate, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, Field

from seedling.records.candidates import (
    LearningCurvePointRecord,
    RepeatedRecord,
    StepContributionRecord,
    UnknownClassesRecord,
    UnseenSourcesRecord,
)
from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.records.record import Record, RecordPart

EvaluatedSplit = Literal["test", "cross_validation"]
AdviceKind = Literal[
    "set_encoder",
    "label_classes",
    "label",
    "collect",
    "check_labels",
    "fix_source",
    "collect_class",
    "leave_out",
    "slice",
]


class MetricsSummary(RecordPart):
    """The metrics of one split, as every version writes them; None for a metric that a version does not have.

    rows: number of evaluation rows.
    """

    model_config = ConfigDict(extra="ignore")

    accuracy: EstimateRecord
    balanced_accuracy: EstimateRecord | None = None
    macro_f1: EstimateRecord | None = None
    log_loss: EstimateRecord | None = None
    brier: EstimateRecord | None = None
    calibration_error: EstimateRecord | None = None
    top_3_accuracy: EstimateRecord | None = Field(default=None, exclude_if=lambda estimate: estimate is None)
    steps_off: EstimateRecord | None = Field(default=None, exclude_if=lambda estimate: estimate is None)
    rows: int | None = None
    effective_rows: float | None = None

    @property
    def names(self) -> list[str]:
        """The names of the metrics that were measured."""
        return [name for name in type(self).model_fields if isinstance(getattr(self, name), EstimateRecord)]

    def estimate(self, metric: str) -> EstimateRecord | None:
        """The estimate of a metric by its name; None if it was not measured."""
        estimate: EstimateRecord | None = getattr(self, metric)
        return estimate


class MetricsRecord(MetricsSummary):
    """The metrics of one split.

    brier: 0 to 2; top_3_accuracy: with six classes or more; steps_off: mean distance in ranks, with ordered classes;
    effective_rows: the number of rows that the near-duplicate groups are worth.
    """

    model_config = ConfigDict(extra="forbid")

    balanced_accuracy: EstimateRecord
    macro_f1: EstimateRecord
    log_loss: EstimateRecord
    brier: EstimateRecord
    calibration_error: EstimateRecord
    rows: int
    effective_rows: float


class ClassNameRecord(RecordPart):
    """The name of a class, which every version writes."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: str = Field(validation_alias="class", serialization_alias="class")


class ClassResultRecord(ClassNameRecord):
    """One class. rows: its evaluation rows; recall, precision: None if no row has the class, or was predicted as it."""

    model_config = ConfigDict(extra="forbid")

    rows: int
    recall: EstimateRecord | None
    precision: EstimateRecord | None


class FoldRecord(RecordPart):
    """The accuracy on one fold of cross-validation."""

    fold: int
    rows: int
    accuracy: float


class WrongTestLabelsRecord(RecordPart):
    """The estimated share of wrong test labels, and the accuracy against the true classes."""

    rate: EstimateRecord
    accuracy: EstimateRecord


class SliceRecord(RecordPart):
    """The accuracy on the rows with one value of a column. worse: significantly worse than on the other rows."""

    column: str
    value: str
    rows: int
    accuracy: EstimateRecord
    worse: bool


class RoundRecord(RecordPart):
    """A trained round.

    worth_in_labels: how many labels the gain is worth, None if it cannot be estimated; harmed: classes with a
    significantly lower recall; accuracy: cross-validated, None without labeled rows; difference: accuracy of this round
    minus that of the accepted one, None if they were not compared.
    """

    round: int
    decision: Literal["accepted", "rejected"]
    reason: str
    worth_in_labels: EstimateRecord | None
    harmed: tuple[str, ...]
    accuracy: EstimateRecord | None
    difference: DifferenceRecord | None


class MajorityBaselineRecord(RecordPart):
    """The class with most training labels, and the accuracy of always predicting it."""

    name: str
    accuracy: float


class SelectivePredictionRecord(RecordPart):
    """Coverage and accuracy of the covered rows at the threshold that train chose.

    threshold: confidence below which the model abstains, 0 if it never does; out_of_scope: number of out-of-scope rows
    that the threshold was chosen on; coverage: None without rows; accuracy: None if no row is covered.
    """

    threshold: float
    target_accuracy: float
    out_of_scope: int
    coverage: EstimateRecord | None
    accuracy: EstimateRecord | None


class OperatingPointRecord(RecordPart):
    """The threshold for a maximum error rate among the covered rows.

    threshold: None if no threshold is enough; coverage: None without rows; errors: error rate of the covered rows, None
    if there are none.
    """

    max_error_rate: float
    threshold: float | None
    coverage: EstimateRecord | None
    errors: EstimateRecord | None


class OutOfScopeRecord(RecordPart):
    """Rows that belong to none of the classes.

    auroc: of telling them from the other rows by confidence; coverage: share on which the model does not abstain.
    """

    rows: int
    auroc: EstimateRecord
    coverage: EstimateRecord


class CorruptionRecord(RecordPart):
    """The accuracy on the same rows after a change, and the difference to the unchanged rows."""

    change: str
    accuracy: float
    difference: DifferenceRecord


class MinimalPerturbationRecord(RecordPart):
    """The smallest change that flips a prediction.

    unit: `levels` (root mean square, of 255 gray levels) or `words` (share of the words); rows: right rows that were
    tried; median, quartiles: of the flipped ones, None if there are none.
    """

    unit: Literal["levels", "words"]
    rows: int
    flipped: int
    median: float | None
    quartiles: tuple[float | None, float | None]


class RobustnessRecord(RecordPart):
    """Robustness to corruptions on a sample of test rows. accuracy: on the unchanged rows.

    minimal_perturbation: None if too few rows of the sample are right.
    """

    rows: int
    accuracy: float
    changes: tuple[CorruptionRecord, ...]
    minimal_perturbation: MinimalPerturbationRecord | None = None


class ExpectedAccuracyRecord(RecordPart):
    """The accuracy to expect with `times` as many labels, with an 80 % interval."""

    times: int
    labels: int
    accuracy: EstimateRecord


class ExtrapolatedCurveRecord(RecordPart):
    """The learning curve: measured points, and expected ones. labels: the current number of labels."""

    labels: int
    points: tuple[LearningCurvePointRecord, ...]
    expected: tuple[ExpectedAccuracyRecord, ...]


class AdviceRecord(RecordPart):
    """One thing to do next.

    what: its kind; how: what to do, or why; minutes: of a person's work, None if it takes none; gain: expected gain of
    the accuracy with an 80 % interval, None if it is unknown.
    """

    what: AdviceKind
    text: str
    how: str
    minutes: int | None
    gain: EstimateRecord | None


class StageRowsSummary(RecordPart):
    """The rows of a stage, as every version writes them."""

    model_config = ConfigDict(extra="ignore")

    kept: int | None = None


class StageRowsRecord(StageRowsSummary):
    """The rows of a stage: rows_in = kept + rejected. reasons: rejected rows by reason."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    rows_in: int = Field(validation_alias="in", serialization_alias="in")
    kept: int
    rejected: int
    reasons: dict[str, int]


class EvaluationSummary(Record):
    """The results that every version writes and that are compared between runs; other keys are ignored.

    test, cross_validation: None without such rows; test_digest: identifies the test split, None without one; rows: by
    stage; selective_prediction: None in files of earlier versions, which have another key; baseline: on the rows of the
    headline, None without labels or rows and in files of earlier versions.
    """

    model_config = ConfigDict(extra="ignore")

    test: MetricsSummary | None = None
    cross_validation: MetricsSummary | None = None
    test_digest: str | None = None
    accepted_round: int | None = None
    per_class: tuple[ClassNameRecord, ...] = ()
    rows: Mapping[str, StageRowsSummary] = Field(default_factory=dict)
    learning_curve: ExtrapolatedCurveRecord | None = None
    selective_prediction: SelectivePredictionRecord | None = None
    baseline: MajorityBaselineRecord | None = None

    @property
    def split(self) -> EvaluatedSplit:
        """The split of the headline: test if there is one."""
        return "test" if self.test else "cross_validation"

    @property
    def metrics(self) -> MetricsSummary | None:
        """The metrics of the headline's split; None if nothing was held out."""
        return self.metrics_of(self.split)

    def metrics_of(self, split: EvaluatedSplit) -> MetricsSummary | None:
        """The metrics of a split; None if it has no rows."""
        return self.test if split == "test" else self.cross_validation

    def kept(self, stage: str) -> int | None:
        """The number of rows that a stage kept; None if it is unknown."""
        return self.rows[stage].kept if stage in self.rows else None


class EvaluationRecord(EvaluationSummary):
    """All results of evaluate.

    confidence: level of the intervals, such as 0.95; folds: how the accuracy varies from split to split; repeated,
    unknown_classes, unseen_sources: measured by train, None with too few rows; test_labels: None without a test split
    or with too few rows; out_of_scope: None without such rows; robustness: None without a test split, or if it is
    turned off; learning_curve: None with too few folds; next: advice, the largest expected gain first.
    """

    model_config = ConfigDict(extra="forbid")

    test: MetricsRecord | None
    cross_validation: MetricsRecord | None
    test_digest: str | None
    accepted_round: int
    confidence: float
    folds: tuple[FoldRecord, ...]
    repeated: RepeatedRecord | None
    test_labels: WrongTestLabelsRecord | None
    per_class: tuple[ClassResultRecord, ...]
    slices: tuple[SliceRecord, ...]
    rounds: tuple[RoundRecord, ...]
    step_contributions: tuple[StepContributionRecord, ...]
    selective_prediction: SelectivePredictionRecord
    operating_points: tuple[OperatingPointRecord, ...]
    out_of_scope: OutOfScopeRecord | None
    unknown_classes: UnknownClassesRecord | None
    unseen_sources: UnseenSourcesRecord | None
    robustness: RobustnessRecord | None
    learning_curve: ExtrapolatedCurveRecord | None
    next: tuple[AdviceRecord, ...]
    rows: Mapping[str, StageRowsRecord]

    @property
    def metrics(self) -> MetricsRecord | None:
        """The metrics of the headline's split; None if nothing was held out."""
        return self.metrics_of(self.split)

    def metrics_of(self, split: EvaluatedSplit) -> MetricsRecord | None:
        """The metrics of a split; None if it has no rows."""
        return self.test if split == "test" else self.cross_validation
