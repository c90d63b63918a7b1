"""Results of evaluate: all in reports/evaluation.json, the headline metrics for DVC in reports/metrics.json.

Read by the report, the cards, `seedling status`, `seedling compare` and the run records.
"""

from __future__ import annotations

import json
from pathlib import Path

from seedling.files.reading import reading
from seedling.records.evaluation import EvaluationRecord, EvaluationSummary
from seedling.workspace import EVALUATION, METRICS

MARK = "cross_validation"  # a key of all results, in every version


def read_evaluation(reports: Path) -> EvaluationRecord | None:
    """All results in the folder reports/; None if nothing was evaluated yet.

    Raises DamagedFile if the file is truncated, or of another version.
    """
    contents = _contents(reports)
    with reading(reports / next(iter(contents), EVALUATION)):
        content = _with_results(*contents.values())
        return None if content is None else EvaluationRecord.parse(content)


def read_evaluation_summary(reports: Path) -> EvaluationSummary | None:
    """The results in the folder reports/ that all versions have; None if nothing was evaluated yet.

    Raises DamagedFile if the file is truncated, or of a later version.
    """
    contents = _contents(reports)
    with reading(reports / next(iter(contents), EVALUATION)):
        return parse_evaluation_summary(*contents.values())


def parse_evaluation_summary(*contents: bytes | None) -> EvaluationSummary | None:
    """The results that all versions have, from the contents of evaluation.json and metrics.json."""
    content = _with_results(*contents)
    return None if content is None else EvaluationSummary.parse(content)


def _contents(reports: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name in (EVALUATION, METRICS) if (path := reports / name).is_file()}


def _with_results(*contents: bytes | None) -> bytes | None:
    """The first content with all results. Before evaluation.json existed, metrics.json contained them."""
    return next((content for content in contents if content is not None and MARK in json.loads(content)), None)
