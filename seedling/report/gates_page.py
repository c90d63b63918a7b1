"""reports/gates.html: each stage's expectations, their last results, and since when they pass or fail.

The page is written after each gate, by every command that runs a stage. It needs no network.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedling.gates.history import gate_history
from seedling.records.gate import Check, GateRecord
from seedling.report.pages import environment
from seedling.workspace import Workspace

MAX_RESULTS = 30
MAX_FAILURES = 50


@dataclass(frozen=True)
class ExpectationHistory:
    """One expectation of one stage over time. results: (time, passed, observed), the oldest first."""

    expectation: str
    arguments: str
    severity: str
    meaning: str
    results: list[tuple[str, bool, str]]

    @property
    def passed(self) -> bool:
        """Whether the last evaluation passed."""
        return self.results[-1][1]

    @property
    def observed(self) -> str:
        """The observed value of the last evaluation."""
        return self.results[-1][2]

    @property
    def since(self) -> str:
        """Time since which all evaluations had the same result as the last one."""
        first = self.results[-1][0]
        for time, passed, _ in reversed(self.results):
            if passed != self.passed:
                break
            first = time
        return first

    @property
    def recent(self) -> list[tuple[str, bool, str]]:
        """The newest MAX_RESULTS results."""
        return self.results[-MAX_RESULTS:]


@dataclass(frozen=True)
class StageHistory:
    """The gate of one stage: its current expectations, and the number of evaluations."""

    stage: str
    last: GateRecord
    evaluations: int
    expectations: list[ExpectationHistory]


def write_gates_page(workspace: Path) -> Path:
    """Writes the page from the history of the gates; returns its path."""
    records = gate_history(workspace)
    stages = stage_histories(records)
    failing = [(stage.stage, expectation) for stage in stages for expectation in stage.expectations]
    page = (
        environment("gates.html.jinja")
        .get_template("gates.html.jinja")
        .render(
            name=workspace.resolve().name,
            stages=stages,
            expectations=sum(len(stage.expectations) for stage in stages),
            failing=[(stage, expectation) for stage, expectation in failing if not expectation.passed],
            failures=[record for record in reversed(records) if not record.passed][:MAX_FAILURES],
            updated=max((record.time for record in records), default=None),
        )
    )
    path = Workspace(workspace).gates_page
    path.parent.mkdir(parents=True, exist_ok=True)
    replacement = path.with_name(
        f".{path.name}.{os.getpid()}.{threading.get_ident()}"
    )  # two stages may end at the same time
    replacement.write_text(page, encoding="utf-8")
    replacement.replace(path)
    return path


def stage_histories(records: Sequence[GateRecord]) -> list[StageHistory]:
    """The gates by stage, in the order of their first evaluations."""
    by_stage: dict[str, list[GateRecord]] = {}
    for record in records:
        by_stage.setdefault(record.stage, []).append(record)
    return [
        StageHistory(stage, evaluations[-1], len(evaluations), _expectations(evaluations))
        for stage, evaluations in by_stage.items()
        if evaluations[-1].checks
    ]


def _expectations(evaluations: Sequence[GateRecord]) -> list[ExpectationHistory]:
    """The expectations of the last evaluation with all their results; removed expectations are left out."""
    results: dict[str, list[tuple[str, bool, str]]] = {}
    for record in evaluations:
        for check in record.checks:
            results.setdefault(_key(check), []).append((record.time, check.passed, check.observed))
    return [
        ExpectationHistory(
            expectation=check.expectation,
            arguments=in_words(check.arguments),
            severity=check.severity,
            meaning=check.meaning or "",
            results=results[_key(check)],
        )
        for check in {_key(check): check for check in evaluations[-1].checks}.values()
    ]


def _key(check: Check) -> str:
    """Identifies an expectation by its name and arguments; the severity may change."""
    return json.dumps([check.expectation, check.arguments], sort_keys=True, default=str)


def in_words(arguments: Mapping[str, Any]) -> str:
    """An expectation's arguments as `column=width, min_value=8`."""
    return ", ".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
