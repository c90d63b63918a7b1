"""models/<round>/candidates.json: the learners that train compared, and the analyses of round 0."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.records.record import Record, RecordPart

ENSEMBLE = "ensemble"  # learner of the entry for the vote of all members


class CandidateRecord(RecordPart):
    """A cross-validated candidate, or the vote of all members as learner `ensemble`.

    recipe: the stages whose rows it was trained on; accuracy, log_loss: on the evaluation rows, None if there are none;
    choice_loss: the weighted log loss that the choice minimizes, not written for the ensemble and without evaluation
    rows; chosen: whether it is a member of the model; vote: its share of the votes, 0 to 1.
    """

    learner: str
    recipe: tuple[str, ...]
    loss: str
    accuracy: EstimateRecord | None
    log_loss: float | None
    choice_loss: float | None = Field(default=None, exclude_if=lambda loss: loss is None)
    chosen: bool
    vote: float

    @property
    def name(self) -> str:
        """The name in file names and in the file of seconds."""
        return "-".join([self.learner, *self.recipe, self.loss])


class LeftOutRecord(RecordPart):
    """A candidate that was not used. reason: the seconds that it would take, or why its training failed."""

    learner: str
    recipe: tuple[str, ...]
    loss: str
    reason: str


class StepContributionRecord(RecordPart):
    """The accuracy of the same learners with a step minus their accuracy without it.

    kind: whether the step adds training data or replaces the loss; step: the stage or the loss; learners: those that
    were trained with and without it.
    """

    kind: Literal["recipe", "loss"]
    step: str
    learners: tuple[str, ...]
    difference: DifferenceRecord


class LearningCurvePointRecord(RecordPart):
    """The accuracy with this mean number of training labels."""

    labels: float
    accuracy: EstimateRecord


class LearningCurveRecord(RecordPart):
    """The accuracy of logistic regression by number of labels. labels: of all folds; rows: evaluation rows."""

    labels: int
    rows: int
    points: tuple[LearningCurvePointRecord, ...]


class FoldAccuraciesRecord(RecordPart):
    """The better learner of repeated cross-validation.

    accuracy: minimum, quartiles and maximum of its folds' accuracy.
    """

    learner: str
    accuracy: tuple[float, float, float, float, float]


class LearnerAccuracyRecord(RecordPart):
    """A learner's mean accuracy over all splits."""

    learner: str
    accuracy: EstimateRecord


class RepeatedRecord(RecordPart):
    """Cross-validation repeated with other folds.

    rows: evaluation rows; difference: accuracy of the second learner minus that of the first; agreement: share of
    repeats in which the same learner is ahead as in the mean.
    """

    repeats: int
    folds: int
    rows: int
    splits: FoldAccuraciesRecord
    learners: tuple[LearnerAccuracyRecord, ...]
    difference: EstimateRecord
    agreement: float


class HardestClassRecord(RecordPart):
    """The class whose rows are most easily taken for rows of other classes. auroc: 0.5 is chance."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(validation_alias="class", serialization_alias="class")
    auroc: float


class UnknownClassesRecord(RecordPart):
    """How well confidence separates the rows of a class without training rows from rows of known classes.

    classes: number of classes that were left out, each in turn; auroc: their mean, 0.5 is chance.
    """

    classes: int
    auroc: EstimateRecord
    hardest: HardestClassRecord


class HardestSourceRecord(RecordPart):
    """The source with the lowest accuracy if it is left out of training. rows: its evaluation rows."""

    source: str
    accuracy: EstimateRecord
    rows: int


class UnseenSourcesRecord(RecordPart):
    """The accuracy on sources that were left out of training, each in turn.

    sources: their number; rows: their evaluation rows; difference: accuracy if the source is unseen minus accuracy if
    it is seen, on the same rows.
    """

    sources: int
    rows: int
    accuracy: EstimateRecord
    difference: DifferenceRecord
    hardest: HardestSourceRecord


class AnalysesRecord(RecordPart):
    """The analyses of round 0; None for an analysis with too few rows, and in later rounds."""

    learning_curve: LearningCurveRecord | None = None
    repeated: RepeatedRecord | None = None
    unknown_classes: UnknownClassesRecord | None = None
    unseen_sources: UnseenSourcesRecord | None = None


class CandidatesRecord(AnalysesRecord, Record):
    """The candidates of a round, in the order in which they were tried, and what was learned from them."""

    candidates: tuple[CandidateRecord, ...]
    left_out: tuple[LeftOutRecord, ...]
    step_contributions: tuple[StepContributionRecord, ...]

    @property
    def tried(self) -> tuple[CandidateRecord, ...]:
        """The candidates without the ensemble."""
        return tuple(candidate for candidate in self.candidates if candidate.learner != ENSEMBLE)

    @property
    def best(self) -> CandidateRecord | None:
        """The candidate with the smallest log loss; None without evaluation rows."""
        evaluated = [(candidate.log_loss, candidate) for candidate in self.candidates if candidate.log_loss is not None]
        return min(evaluated, key=lambda scored: scored[0])[1] if evaluated else None

    @property
    def chosen_accuracy(self) -> float | None:
        """The accuracy of the chosen model, which is the ensemble or the only member; None if it is unknown."""
        ensembles = [candidate for candidate in self.candidates if candidate.learner == ENSEMBLE]
        chosen = ensembles or [candidate for candidate in self.candidates if candidate.chosen]
        return chosen[0].accuracy.value if len(chosen) == 1 and chosen[0].accuracy else None
