"""The record of a run: its exact content, and records of earlier and later versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_records import evaluation

from seedling.records.run_records import (
    LabelIssuesRecord,
    RunInputs,
    RunRecord,
    StageRunRecord,
    read_run_records,
)
from seedling.records.run_trend import run_points

RECORD = RunRecord(
    name="20261128-180300-grow",
    started="2026-11-28T18:03:00.000+00:00",
    ended="2026-11-28T18:03:59+00:00",
    what_changed="data +12",
    outcome="accepted",
    inputs=RunInputs("d41d", 72, {"seed": 0, "train": {"steps": 5}}, "9f86"),
    label_issues=LabelIssuesRecord(flagged=3, expected=2.5, labels=60),
    labeled_rows=60,
    stages=(StageRunRecord(stage="train@0", how="done", seconds=10.25),),
)
CONTENT = """{
  "ended": "2026-11-28T18:03:59+00:00",
  "inputs": {
    "data_digest": "d41d",
    "data_files": 72,
    "gates": "9f86",
    "params": {
      "seed": 0,
      "train": {
        "steps": 5
      }
    }
  },
  "label_issues": {
    "expected": 2.5,
    "flagged": 3,
    "labels": 60
  },
  "labeled_rows": 60,
  "metrics": null,
  "name": "20261128-180300-grow",
  "outcome": "accepted",
  "stages": [
    {
      "how": "done",
      "seconds": 10.25,
      "stage": "train@0"
    }
  ],
  "started": "2026-11-28T18:03:00.000+00:00",
  "version": 1,
  "what_changed": "data +12"
}
"""


def write(workspace: Path, name: str, content: str) -> None:
    """Puts the content where a run leaves its record."""
    path = workspace / ".seedling" / "runs" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def test_the_content_of_a_record_is_exact(tmp_path: Path) -> None:
    """And it is read as it was written."""
    RECORD.write(tmp_path / "run.json")
    assert (tmp_path / "run.json").read_text(encoding="utf-8") == CONTENT
    write(tmp_path, "run", CONTENT)
    assert read_run_records(tmp_path) == [RECORD]


def test_a_record_contains_all_results_of_evaluate(tmp_path: Path) -> None:
    """Not only those that are read again, so that another program can read them."""
    results = evaluation()
    record = RECORD.model_copy(update={"metrics": results})
    assert record.as_json()["metrics"] == results.as_json()
    record.write(tmp_path / ".seedling" / "runs" / "run.json")
    (read,) = read_run_records(tmp_path)
    assert read.metrics is not None
    assert (read.metrics.test_digest, read.metrics.kept("validate")) == ("digest", 90)


def test_a_record_of_an_earlier_version_is_a_point_of_the_trend(tmp_path: Path) -> None:
    """Without inputs, with a former name of the number of labels, and with results that have other keys."""
    former = {
        "name": "a",
        "ended": "2026-11-01T06:00:00+00:00",
        "label_issues": {"flagged": 2, "expected": 1.5, "judged": 60},
        "metrics": {
            "abstain": {"below": 0.5},
            "cross_validation": {"accuracy": {"value": 0.75, "low": 0.5, "high": 0.9}, "rows": 60},
            "rows": {"validate": {"in": 100, "kept": 90, "rejected": 10, "reasons": {}}},
            "test": None,
        },
    }
    write(tmp_path, "a", json.dumps(former))
    (point,) = run_points(tmp_path)
    assert point.accuracy is not None
    assert (point.accuracy.value, point.evaluated_on, point.evaluation_rows) == (0.75, "cross_validation", 60)
    assert (point.rows, point.label_issues, point.log_loss, point.what_changed) == (90, 2, None, "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (CONTENT.replace('"version": 1', '"version": 2'), "version 2 is of a later Seedling"),
        (CONTENT.replace("60", '"sixty"'), "label_issues.labels"),
        ("[]", "it is not a record of a run"),
    ],
)
def test_a_record_that_cannot_be_read_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, reason: str
) -> None:
    """Of a later version, with a value of another type, and not a record: the reason is on standard error."""
    write(tmp_path, "other", content)
    RECORD.write(tmp_path / ".seedling" / "runs" / "run.json")
    assert read_run_records(tmp_path) == [RECORD]
    message = capsys.readouterr().err
    assert "other.json" in message and reason in message and "left out of the history" in message
