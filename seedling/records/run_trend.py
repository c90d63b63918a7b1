"""A workspace's runs over time, from .seedling/runs: one point per run, including records of older versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from seedling.pipeline import stage_kinds
from seedling.records.run_records import read_run_records


@dataclass(frozen=True)
class RunPoint:
    """One run as a point of the trend.

    accuracy, log_loss: {value, low, high}, None if nothing was held out; evaluated_on: `test` or `cross_validation`;
    label_issues: flagged labels, None if not recorded; seconds: by stage, of the stages that were run.
    """

    name: str
    ended: str
    what_changed: str
    outcome: str
    evaluated_on: str
    test_digest: str | None
    accuracy: Mapping[str, float] | None
    log_loss: Mapping[str, float] | None
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
    points = []
    for record in read_run_records(workspace):
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            points.append(point_of(record))
    return points


def point_of(record: Mapping[str, Any]) -> RunPoint:
    """The point of one run's record. Raises KeyError or TypeError if it is not a record."""
    metrics = record.get("metrics") or {}
    evaluated_on = "test" if metrics.get("test") else "cross_validation"
    evaluation = metrics.get(evaluated_on) or {}
    issues = record.get("label_issues") or {}
    return RunPoint(
        name=record["name"],
        ended=record["ended"],
        what_changed=record.get("what_changed") or "",
        outcome=record.get("outcome") or "",
        evaluated_on=evaluated_on,
        test_digest=metrics.get("test_digest"),
        accuracy=evaluation.get("accuracy"),
        log_loss=evaluation.get("log_loss"),
        evaluation_rows=int(evaluation.get("rows") or 0),
        rows=_rows_kept(metrics),
        labeled_rows=record.get("labeled_rows"),
        label_issues=issues.get("flagged"),
        expected_label_errors=issues.get("expected"),
        seconds=_seconds_by_kind(record.get("stages") or ()),
    )


def _rows_kept(metrics: Mapping[str, Any]) -> int | None:
    kept = ((metrics.get("rows") or {}).get("validate") or {}).get("kept")
    return None if kept is None else int(kept)


def _seconds_by_kind(stages: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    seconds = dict.fromkeys(stage_kinds(), 0.0)
    for stage in stages:
        kind = str(stage["stage"]).partition("@")[0]
        if stage["how"] != "unchanged":
            seconds[kind] = seconds.get(kind, 0.0) + float(stage["seconds"])
    return seconds


def new_test_rows(points: Sequence[RunPoint]) -> set[str]:
    """Names of runs that were evaluated on other rows than the previous run, so that the two are not comparable."""
    return {
        after.name
        for before, after in pairwise(points)
        if (before.evaluated_on, before.test_digest) != (after.evaluated_on, after.test_digest)
    }
