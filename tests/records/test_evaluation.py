"""evaluation.json and metrics.json: their exact content, and files of earlier and later versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_records import estimate, evaluation, metrics, selective

import seedling
from seedling.comparison import RESULT_FILES
from seedling.errors import DamagedFile
from seedling.records.evaluation import EvaluationRecord, EvaluationSummary, RobustnessRecord
from seedling.records.headline_metrics import HeadlineMetricsRecord, headline_metrics
from seedling.records.results import parse_evaluation_summary, read_evaluation, read_evaluation_summary

UNIT_INTERVAL = '"high": 1.0,\n{indent}"low": 0.0,\n{indent}"value": {value}'


def written(value: float, indent: int) -> str:
    """An estimate with the interval from 0 to 1, as written at this indent."""
    return (
        "{\n" + " " * indent + UNIT_INTERVAL.format(indent=" " * indent, value=value) + "\n" + " " * (indent - 2) + "}"
    )


def split_metrics(accuracy: float, rows: int) -> str:
    """The metrics of a split as written."""
    return f"""{{
    "accuracy": {written(accuracy, 6)},
    "balanced_accuracy": {written(0.5, 6)},
    "brier": {written(0.5, 6)},
    "calibration_error": {written(0.5, 6)},
    "effective_rows": {rows}.0,
    "log_loss": {written(0.5, 6)},
    "macro_f1": {written(0.5, 6)},
    "rows": {rows}
  }}"""


EVALUATION = f"""{{
  "accepted_round": 0,
  "baseline": {{
    "accuracy": 0.5,
    "name": "a"
  }},
  "confidence": 0.95,
  "cross_validation": {split_metrics(0.75, 60)},
  "folds": [],
  "learning_curve": null,
  "next": [],
  "operating_points": [],
  "out_of_scope": null,
  "per_class": [
    {{
      "class": "a",
      "precision": {written(0.8, 8)},
      "recall": {written(0.9, 8)},
      "rows": 20
    }},
    {{
      "class": "b",
      "precision": null,
      "recall": {written(0.7, 8)},
      "rows": 20
    }}
  ],
  "repeated": null,
  "robustness": null,
  "rounds": [],
  "rows": {{
    "validate": {{
      "in": 100,
      "kept": 90,
      "reasons": {{
        "too_small": 10
      }},
      "rejected": 10
    }}
  }},
  "selective_prediction": {{
    "accuracy": null,
    "coverage": {written(1.0, 6)},
    "out_of_scope": 0,
    "target_accuracy": 0.95,
    "threshold": 0.0
  }},
  "slices": [],
  "step_contributions": [],
  "test": {split_metrics(0.8, 40)},
  "test_digest": "digest",
  "test_labels": null,
  "unknown_classes": null,
  "unseen_sources": null,
  "version": 1
}}
"""


def test_the_content_of_evaluation_json_is_exact(tmp_path: Path) -> None:
    """Keys of the file that are words of Python, a class without a prediction, and the version."""
    evaluation().write(tmp_path / "evaluation.json")
    assert (tmp_path / "evaluation.json").read_text(encoding="utf-8") == EVALUATION


def test_a_record_that_is_read_is_written_with_the_same_bytes(tmp_path: Path) -> None:
    """Also with metrics that only data sets with many or ordered classes have."""
    changes = {
        "test": metrics(top_3_accuracy=estimate(0.9), steps_off=estimate(0.25)),
        "robustness": {
            "rows": 20,
            "accuracy": 0.85,
            "changes": [
                {
                    "change": "blurred",
                    "accuracy": 0.75,
                    "difference": {"value": -0.1, "low": -0.25, "high": 0.05, "probability_worse": 0.9},
                }
            ],
            "minimal_perturbation": {
                "unit": "levels",
                "rows": 4,
                "flipped": 0,
                "median": None,
                "quartiles": [None, None],
            },
        },
    }
    for record in (evaluation(), evaluation(**changes), evaluation(test=None, test_digest=None)):
        record.write(tmp_path / "evaluation.json")
        read = EvaluationRecord.read(tmp_path / "evaluation.json")
        read.write(tmp_path / "again.json")
        assert read == record
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "evaluation.json").read_bytes()
    assert isinstance(evaluation(**changes).robustness, RobustnessRecord)
    assert '"top_3_accuracy"' not in EVALUATION and '"steps_off"' not in EVALUATION


def test_numbers_keep_their_type(tmp_path: Path) -> None:
    """An integer stays one, and a float that is whole is written with its point."""
    evaluation().write(tmp_path / "evaluation.json")
    content = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert (type(content["test"]["rows"]), type(content["test"]["effective_rows"])) == (int, float)


def test_metrics_json_has_a_number_per_column() -> None:
    """No version and no key without a value, since DVC shows each key as a column."""
    results = evaluation(selective_prediction=selective(accuracy=estimate(0.9)))
    assert headline_metrics(results).as_json() == {
        "accuracy": 0.8,
        "balanced_accuracy": 0.5,
        "macro_f1": 0.5,
        "log_loss": 0.5,
        "brier": 0.5,
        "calibration_error": 0.5,
        "cross_validated_accuracy": 0.75,
        "coverage": 1.0,
        "selective_accuracy": 0.9,
        "test_rows": 40,
        "accepted_round": 0,
    }
    without_rows = evaluation(test=None, cross_validation=None, selective_prediction=selective(coverage=None))
    assert headline_metrics(without_rows).as_json() == {"test_rows": 0, "accepted_round": 0}


def test_a_file_of_a_later_version_names_the_version(tmp_path: Path) -> None:
    """By the report's reader, by the one of `status` and `compare`, and by the Python API."""
    reports = tmp_path / "reports"
    reports.mkdir()
    content = json.dumps({**json.loads(EVALUATION), "version": 2, "key_of_version_2": 1})
    (reports / "evaluation.json").write_text(content, encoding="utf-8")
    for reader in (read_evaluation, read_evaluation_summary):
        with pytest.raises(DamagedFile, match=r"evaluation\.json .*version 2 is of a later Seedling"):
            reader(reports)
    with pytest.raises(ValueError, match="version 2 is of a later Seedling"):
        parse_evaluation_summary(content.encode(), None)
    (reports / "metrics.json").write_text('{"accuracy": 0.5, "version": 2}', encoding="utf-8")
    with pytest.raises(DamagedFile, match=r"metrics\.json .*version 2 is of a later Seedling"):
        _ = seedling.GrowResult(tmp_path).metrics


def test_results_of_an_earlier_version_are_compared_but_not_reported(tmp_path: Path) -> None:
    """Pipeline version 15 has other keys for selective prediction and step contributions; the metrics are the same."""
    content = json.loads(EVALUATION)
    for name, former_name in (("selective_prediction", "abstain"), ("step_contributions", "bought")):
        content[former_name] = content.pop(name)
    del content["version"]
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")
    summary = read_evaluation_summary(reports)
    assert summary is not None and summary.metrics is not None
    assert (summary.metrics.accuracy, summary.kept("validate")) == (estimate(0.8), 90)
    assert [result.name for result in summary.per_class] == ["a", "b"]
    assert headline_metrics(summary).as_json()["accuracy"] == 0.8
    with pytest.raises(DamagedFile, match="delete this file and run `seedling run`"):
        read_evaluation(reports)


def test_results_that_metrics_json_contains_are_read(tmp_path: Path) -> None:
    """Before evaluation.json existed, metrics.json contained all results; the headline metrics alone are no results."""
    (tmp_path / "metrics.json").write_text(EVALUATION, encoding="utf-8")
    assert read_evaluation(tmp_path) == evaluation()
    HeadlineMetricsRecord(accuracy=0.5).write(tmp_path / "metrics.json")
    assert read_evaluation(tmp_path) is read_evaluation_summary(tmp_path) is None
    assert parse_evaluation_summary(*[None] * len(RESULT_FILES)) is None


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """With the file and the remedy."""
    content = json.loads(EVALUATION)
    del content["test"]["log_loss"]
    (tmp_path / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DamagedFile, match=r"evaluation\.json is damaged .*test\.log_loss: Field required"):
        read_evaluation(tmp_path)
    assert isinstance(read_evaluation_summary(tmp_path), EvaluationSummary)
