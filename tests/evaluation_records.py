"""Parts of evaluation.json for tests, complete and with values that are easy to check by hand."""

from __future__ import annotations

from typing import Any

from seedling.records.evaluation import EvaluationRecord, MetricsRecord, SelectivePredictionRecord
from seedling.records.intervals import EstimateRecord


def estimate(value: float, low: float = 0.0, high: float = 1.0) -> EstimateRecord:
    """A value with its interval."""
    return EstimateRecord(value=value, low=low, high=high)


def metrics(accuracy: float = 0.8, rows: int = 40, **changes: EstimateRecord) -> MetricsRecord:
    """The metrics of a split, all with the interval from 0 to 1."""
    names = ("balanced_accuracy", "macro_f1", "log_loss", "brier", "calibration_error")
    return MetricsRecord.model_validate(
        {
            "accuracy": estimate(accuracy),
            **{name: estimate(0.5) for name in names},
            "rows": rows,
            "effective_rows": float(rows),
            **changes,
        }
    )


def selective(**changes: Any) -> SelectivePredictionRecord:
    """A model that never abstains, with these changes."""
    values = {"threshold": 0.0, "target_accuracy": 0.95, "out_of_scope": 0, "coverage": estimate(1.0), "accuracy": None}
    return SelectivePredictionRecord.model_validate({**values, **changes})


def evaluation(**changes: Any) -> EvaluationRecord:
    """The results of a model of two classes, evaluated on 40 test rows, with these changes."""
    values: dict[str, Any] = {
        "accepted_round": 0,
        "confidence": 0.95,
        "test": metrics(),
        "cross_validation": metrics(0.75, 60),
        "test_digest": "digest",
        "test_labels": None,
        "folds": (),
        "repeated": None,
        "per_class": (
            {"class": "a", "rows": 20, "recall": estimate(0.9), "precision": estimate(0.8)},
            {"class": "b", "rows": 20, "recall": estimate(0.7), "precision": None},
        ),
        "slices": (),
        "rounds": (),
        "step_contributions": (),
        "selective_prediction": selective(),
        "operating_points": (),
        "out_of_scope": None,
        "unknown_classes": None,
        "unseen_sources": None,
        "robustness": None,
        "learning_curve": None,
        "next": (),
        "baseline": {"name": "a", "accuracy": 0.5},
        "rows": {"validate": {"in": 100, "kept": 90, "rejected": 10, "reasons": {"too_small": 10}}},
    }
    return EvaluationRecord.model_validate({**values, **changes})
