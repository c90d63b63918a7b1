"""What the terminal says of the model after a run."""

from __future__ import annotations

from evaluation_records import estimate

from seedling.records.evaluation import (
    EvaluationSummary,
    MajorityBaselineRecord,
    MetricsSummary,
    SelectivePredictionRecord,
)
from seedling.records.summaries import use_of_model


def evaluated(baseline_accuracy: float, threshold: float) -> EvaluationSummary:
    """An accuracy of .48 on 200 test rows; above the threshold, .74 on 31 % of them."""
    return EvaluationSummary(
        test=MetricsSummary(accuracy=estimate(0.48, 0.41, 0.55), rows=200),
        baseline=MajorityBaselineRecord(name="folder", accuracy=baseline_accuracy),
        selective_prediction=SelectivePredictionRecord(
            threshold=threshold,
            target_accuracy=0.74,
            out_of_scope=0,
            coverage=estimate(0.31, 0.25, 0.38),
            accuracy=estimate(0.742, 0.62, 0.83),
        ),
    )


def test_the_baseline_and_the_abstention_are_named() -> None:
    """With its accuracy, the class; with the share of the rows, the confidence and the key that sets it."""
    assert use_of_model(evaluated(0.3, 0.43)) == [
        "Always predicting 'folder' has an accuracy of 0.300 on the same rows.",
        "The model abstains on 69% of the rows, those with a confidence below 0.43; on the others its accuracy is "
        "0.742. To change this, set train.target_selective_accuracy.",
    ]


def test_a_model_that_is_not_better_than_the_baseline_is_called_so() -> None:
    """The lower end of its interval, .41, is below the baseline; it never abstains, so nothing is said of that."""
    assert use_of_model(evaluated(0.42, 0.0)) == [
        "Always predicting 'folder' has an accuracy of 0.420 on the same rows. "
        "The model is not clearly better than that."
    ]


def test_without_an_evaluation_nothing_is_said() -> None:
    """No labeled row could be held out, or the results are those of an earlier version."""
    assert use_of_model(None) == []
    assert use_of_model(EvaluationSummary()) == []
    assert use_of_model(EvaluationSummary(test=MetricsSummary(accuracy=estimate(0.5), rows=10))) == []
