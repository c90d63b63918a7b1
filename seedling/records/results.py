"""Results of evaluate: all in reports/evaluation.json, the headline metrics for DVC in reports/metrics.json.

Read by the report, the cards, `seedling status`, `seedling compare` and the run records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedling.files.reading import reading
from seedling.workspace import EVALUATION, METRICS

DECISION_KEYS = ("round", "decision", "reason", "stop", "accepted_round")  # required by later stages and pages
HEADLINE_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "calibration_error")


def read_evaluation(reports: Path) -> dict[str, Any] | None:
    """The results in the folder reports/; None if nothing was evaluated yet.

    Raises DamagedFile if the file is truncated.
    """
    contents = {name: path.read_bytes() for name in (EVALUATION, METRICS) if (path := reports / name).is_file()}
    with reading(reports / (EVALUATION if EVALUATION in contents else METRICS)):
        return parse_evaluation(contents.get(EVALUATION), contents.get(METRICS))


def parse_evaluation(evaluation: bytes | None, metrics: bytes | None) -> dict[str, Any] | None:
    """The results from the contents of evaluation.json and metrics.json; None if neither contains them.

    Before evaluation.json existed, metrics.json contained all results; such files are still read.
    """
    for content in (evaluation, metrics):
        if content is not None:
            results: dict[str, Any] = json.loads(content)
            if "cross_validation" in results:
                return results
    return None


def read_decision(path: Path) -> dict[str, Any]:
    """A round's decision. Raises DamagedFile if a required key is missing, and FileNotFoundError."""
    with reading(path):
        round_decision: dict[str, Any] = json.loads(path.read_bytes())
        missing = [key for key in DECISION_KEYS if key not in round_decision]
        if missing:
            raise KeyError(", ".join(missing))
        round_decision["round"], round_decision["accepted_round"] = (
            int(round_decision["round"]),
            int(round_decision["accepted_round"]),
        )
    return round_decision


def headline_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """At most twelve numbers, from the test split if there is one, otherwise from cross-validation.

    `test_rows` is 0 if the numbers are from cross-validation.
    """
    metrics = evaluation["test"] or evaluation["cross_validation"] or {}
    columns: dict[str, float] = {
        name: metrics[name]["value"] for name in HEADLINE_METRICS if metrics.get(name) is not None
    }
    if evaluation["cross_validation"]:
        columns["cross_validated_accuracy"] = evaluation["cross_validation"]["accuracy"]["value"]
    coverage, selective_accuracy = (
        evaluation["selective_prediction"]["coverage"],
        evaluation["selective_prediction"]["accuracy"],
    )
    if coverage:
        columns["coverage"] = coverage["value"]
    if selective_accuracy:
        columns["selective_accuracy"] = selective_accuracy["value"]
    columns["test_rows"] = evaluation["test"]["rows"] if evaluation["test"] else 0
    columns["accepted_round"] = evaluation["accepted_round"]
    return columns
