"""reports/metrics.json: the headline metrics for DVC, at most a dozen numbers."""

from __future__ import annotations

from typing import Any

from seedling.records.evaluation import EvaluationSummary
from seedling.records.intervals import EstimateRecord
from seedling.records.record import Record


class HeadlineMetricsRecord(Record):
    """Metrics of the test split if there is one, otherwise of cross-validation.

    DVC shows each key as a column, so a key without a value is left out, and so is version 1.

    coverage, selective_accuracy: at the threshold that train chose; test_rows: 0 if the metrics are of
    cross-validation.
    """

    accuracy: float | None = None
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    log_loss: float | None = None
    brier: float | None = None
    calibration_error: float | None = None
    cross_validated_accuracy: float | None = None
    coverage: float | None = None
    selective_accuracy: float | None = None
    test_rows: int | None = None
    accepted_round: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"version"} if self.version == 1 else None)


def headline_metrics(evaluation: EvaluationSummary) -> HeadlineMetricsRecord:
    """The headline metrics of these results."""
    metrics, cross_validation = evaluation.metrics, evaluation.cross_validation
    selective = evaluation.selective_prediction
    return HeadlineMetricsRecord(
        accuracy=_value(metrics.accuracy if metrics else None),
        balanced_accuracy=_value(metrics.balanced_accuracy if metrics else None),
        macro_f1=_value(metrics.macro_f1 if metrics else None),
        log_loss=_value(metrics.log_loss if metrics else None),
        brier=_value(metrics.brier if metrics else None),
        calibration_error=_value(metrics.calibration_error if metrics else None),
        cross_validated_accuracy=_value(cross_validation.accuracy if cross_validation else None),
        coverage=_value(selective.coverage if selective else None),
        selective_accuracy=_value(selective.accuracy if selective else None),
        test_rows=(evaluation.test.rows or 0) if evaluation.test else 0,
        accepted_round=evaluation.accepted_round,
    )


def _value(estimate: EstimateRecord | None) -> float | None:
    return estimate.value if estimate else None
