"""A workspace's runs over time, from .seedling/runs: one point per run, including records of older versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from seedling.pipeline import stage_kinds
from seedling.records.evaluation import EvaluatedSplit
from seedling.records.intervals import EstimateRecord
from seedling.records.run_records import RunRecord, StageRunRecord, read_run_records


@dataclass(frozen=True)
class RunPoint:
    """One run as a point of the trend.

    accuracy, log_loss: None if nothing was held out; evaluated_on: the split of these metrics;
    label_issues: flagged labels, None if not recorded; seconds: by stage, of the stages that were run.
    """

    name: str
    ended: str
    what_changed: str
    outcome: str
    evaluated_on: EvaluatedSplit
    test_digest: str | None
    accuracy: EstimateRecord | None
    log_loss: EstimateRecord | None
    evaluation_rows: int
    rows: int | None
    labeled_rows: int | None
    label_issues: int | None
    expected_label_errors: float | None
    seconds: dict[str, float]

    @property
    def day(self) -> str:
        """The end of the run as 2026-11-28 18:03."""
        return f"{self.ended[:10]} {self.ended[11:16]}"

    @property
    def total_seconds(self) -> float:
        """Sum over all stages, even if they ran at the same time."""
        return sum(self.seconds.values())


def run_points(workspace: Path) -> list[RunPoint]:
    """The finished runs of the workspace, the oldest first; unreadable records are left out."""
    return [point_of(record) for record in read_run_records(workspace)]


def point_of(record: RunRecord) -> RunPoint:
    """The point of one run's record."""
    results, issues = record.metrics, record.label_issues
    metrics = results.metrics if results else None
    return RunPoint(
        name=record.name,
        ended=record.ended,
        what_changed=record.what_changed or "",
        outcome=record.outcome or "",
        evaluated_on=results.split if results else "cross_validation",
        test_digest=results.test_digest if results else None,
        accuracy=metrics.accuracy if metrics else None,
        log_loss=metrics.log_loss if metrics else None,
        evaluation_rows=(metrics.rows or 0) if metrics else 0,
        rows=results.kept("validate") if results else None,
        labeled_rows=record.labeled_rows,
        label_issues=issues.flagged if issues else None,
        expected_label_errors=issues.expected if issues else None,
        seconds=_seconds_by_kind(record.stages),
    )


def _seconds_by_kind(stages: Sequence[StageRunRecord]) -> dict[str, float]:
    seconds = dict.fromkeys(stage_kinds(), 0.0)
    for stage in stages:
        kind = stage.stage.partition("@")[0]
        if stage.how != "unchanged":
            seconds[kind] = seconds.get(kind, 0.0) + stage.seconds
    return seconds


def new_test_rows(points: Sequence[RunPoint]) -> set[str]:
    """Names of runs that were evaluated on other rows than the previous run, so that the two are not comparable."""
    return {
        after.name
        for before, after in pairwise(points)
        if (before.evaluated_on, before.test_digest) != (after.evaluated_on, after.test_digest)
    }
