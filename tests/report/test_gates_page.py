"""The page of all gates and its history file; the page of all runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from seedling.gates.history import gate_history, record_gate
from seedling.records.gate import Check, GateRecord
from seedling.records.run_trend import new_test_rows, run_points
from seedling.report.gates_page import stage_histories, write_gates_page
from seedling.report.history_page import write_history_page
from seedling.report.trend_charts import accuracy_image
from seedling.workspace import Workspace


def check(passed: bool, observed: str, **arguments: Any) -> Check:
    """One expectation's result as gate.json has it."""
    return Check(
        expectation="expect_column_values_to_be_between",
        arguments={"column": "width", **arguments},
        severity="critical",
        passed=passed,
        observed=observed,
    )


def gate_record(day: int, result: Check) -> GateRecord:
    """A run of validate's gate on this day of a month."""
    return GateRecord(stage="validate", time=f"2026-11-{day:02d}T06:00:00+00:00", checks=(result,))


def run_record(number: int, accuracy: float, digest: str = "a", **extra: Any) -> dict[str, Any]:
    """A run's record as seedling.records.run_history writes it."""
    estimate = {"value": accuracy, "low": accuracy - 0.1, "high": min(1.0, accuracy + 0.1)}
    return {
        "name": f"202611{number:02d}-060000-grow",
        "ended": f"2026-11-{number:02d}T06:00:00+00:00",
        "stages": [{"stage": "train@0", "how": "done", "seconds": 10.0 * number}],
        "metrics": {
            "test": {"accuracy": estimate, "log_loss": {"value": 0.5, "low": 0.4, "high": 0.6}, "rows": 40},
            "test_digest": digest,
            "rows": {"validate": {"kept": 100 + number}},
        },
        **extra,
    }


def write_records(workspace: Path, *records: dict[str, Any]) -> None:
    """Puts the records where runs leave them."""
    for record in records:
        path = workspace / ".seedling" / "runs" / f"{record['name']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record), encoding="utf-8")


def assert_nothing_is_fetched(page: str) -> None:
    """No address of a script, style sheet, image, font or frame leads out of the page."""
    assert re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=[\"'](?!data:)[^\"']+", page) == []
    assert "<link" not in page and "@import" not in page and not re.search(r"url\([\"']?https?:", page)


def test_the_page_says_since_when_an_expectation_fails(tmp_path: Path) -> None:
    """Three evaluations, the last two failed: it fails since the second one."""
    evaluations = [(True, "0 rows"), (False, "3 rows"), (False, "4 rows")]
    records = [gate_record(day, check(passed, observed)) for day, (passed, observed) in enumerate(evaluations, start=1)]
    ((stage,), (expectation,)) = (stages := stage_histories(records)), stages[0].expectations
    assert (stage.evaluations, expectation.passed, expectation.observed) == (3, False, "4 rows")
    assert expectation.since == "2026-11-02T06:00:00+00:00"


def test_an_expectation_with_other_arguments_begins_a_history_of_its_own() -> None:
    """A changed limit is another expectation: the old one's results are not counted to it."""
    records = [
        gate_record(1, check(False, "3 rows", min_value=1000)),
        gate_record(2, check(True, "0 rows", min_value=8)),
    ]
    (expectation,) = stage_histories(records)[0].expectations
    assert len(expectation.results) == 1 and expectation.passed


def test_the_page_of_gates_shows_every_result_and_fetches_nothing(tmp_path: Path) -> None:
    """Observed values are escaped, and a user's expectation is explained by its docstring."""
    record_gate(tmp_path, "scrape", [check(True, "0 rows")])
    failed = check(False, "such as <b>1</b>", min_value=8)
    record_gate(tmp_path, "validate", [failed], {failed.expectation: "are large enough"})
    page = write_gates_page(tmp_path).read_text(encoding="utf-8")
    assert "are large enough" in page and "such as &lt;b&gt;1&lt;/b&gt;" in page and "min_value=8" in page
    assert_nothing_is_fetched(page)


def test_a_line_that_a_kill_cut_short_costs_only_itself(tmp_path: Path) -> None:
    """The evaluations before and after it are read."""
    record_gate(tmp_path, "scrape", [check(True, "0 rows")])
    with Workspace(tmp_path).gate_history.open("a", encoding="utf-8") as file:
        file.write('{"stage": "scrape", "ti\n')
    record_gate(tmp_path, "scrape", [check(False, "1 row")])
    assert [record.passed for record in gate_history(tmp_path)] == [True, False]


def test_the_history_of_gates_is_bounded(tmp_path: Path) -> None:
    """Past the limit each stage keeps its newest evaluations."""
    limits: dict[str, Any] = {"max_bytes": 20_000, "max_records_per_stage": 5}
    record_gate(tmp_path, "validate", [check(True, "the only one")], **limits)
    for number in range(200):
        record_gate(tmp_path, "scrape", [check(True, str(number))], **limits)
    records = gate_history(tmp_path)
    assert Workspace(tmp_path).gate_history.stat().st_size < 21_000
    assert records[-1].checks[0].observed == "199"
    assert [record.stage for record in records].count("validate") == 1


@pytest.mark.slow
def test_the_page_of_runs_reads_old_and_new_records(tmp_path: Path) -> None:
    """A record without the newer fields, one with them, and one that a kill cut short, which is left out."""
    issues = {"flagged": 3, "expected": 2.5, "labels": 60}
    write_records(
        tmp_path,
        run_record(1, 0.8),
        run_record(2, 0.85, what_changed="data +12", outcome="accepted", label_issues=issues, labeled_rows=60),
    )
    (tmp_path / ".seedling/runs/cut.json").write_text('{"name": "cu', encoding="utf-8")
    old, new = run_points(tmp_path)
    assert (old.what_changed, old.label_issues, old.rows) == ("", None, 101)
    assert (new.what_changed, new.label_issues, new.total_seconds) == ("data +12", 3, 20.0)
    page = write_history_page(tmp_path).read_text(encoding="utf-8")
    assert "data +12" in page and "not recorded" in page and "0.850" in page
    assert page.count('<svg class="chart"') == 5
    assert page.count('role="img" aria-label="') >= 5
    assert_nothing_is_fetched(page)


def test_runs_on_other_test_rows_are_marked(tmp_path: Path) -> None:
    """Their numbers cannot be compared with those before."""
    write_records(tmp_path, run_record(1, 0.8), run_record(2, 0.7, digest="b"), run_record(3, 0.7, digest="b"))
    points = run_points(tmp_path)
    assert new_test_rows(points) == {points[1].name}
    assert "other evaluation rows" in write_history_page(tmp_path).read_text(encoding="utf-8")


def test_a_workspace_without_runs_has_a_page_that_says_so(tmp_path: Path) -> None:
    """And no chart."""
    page = write_history_page(tmp_path).read_text(encoding="utf-8")
    assert "No run has finished yet" in page and "<svg" not in page
    assert accuracy_image([]) is None
