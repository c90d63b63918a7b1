"""Values of the report that several of its sentences use, derived from the results of evaluate."""

from __future__ import annotations

from dataclasses import dataclass

from seedling.records.evaluation import EvaluatedSplit, EvaluationRecord
from seedling.records.intervals import EstimateRecord


@dataclass(frozen=True)
class Headline:
    """The accuracy of the first screen. rows: evaluation rows; accuracy: None if nothing was held out."""

    where: EvaluatedSplit
    rows: int
    accuracy: EstimateRecord | None

    @classmethod
    def of(cls, evaluation: EvaluationRecord) -> Headline:
        """Take it from the test split if there is one, otherwise from cross-validation."""
        metrics = evaluation.metrics
        return cls(evaluation.split, metrics.rows if metrics else 0, metrics.accuracy if metrics else None)


@dataclass(frozen=True)
class Subject:
    """What the model classifies, and its training rows.

    never_predicted: the classes that no evaluation row was predicted as; labeled: number of training labels; unchecked:
    number of labels that no person gave; sources: number of labels by source; pseudo_labeled: number of pool rows with
    a pseudo-label; few_labels: the classes with fewer than five training labels, as a phrase, "" if there are none.
    """

    modality: str
    classes: tuple[str, ...]
    labeled: int
    unchecked: int
    sources: tuple[tuple[str, int], ...]
    pseudo_labeled: int
    learners: str
    never_predicted: tuple[str, ...] = ()
    few_labels: str = ""


@dataclass(frozen=True)
class ThresholdResult:
    """A confidence threshold with its coverage and error rate, as OperatingPointRecord has them.

    allowed: the maximum error rates that it was chosen for, the lowest first.
    """

    threshold: float | None
    allowed: tuple[float, ...]
    coverage: EstimateRecord | None
    errors: EstimateRecord | None
