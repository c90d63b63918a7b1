"""The results of gates: gate.json, and the lines of the history of all gates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seedling.errors import DamagedFile
from seedling.gates.checking import read_checks, user_expectations_changed, write_checks, write_comparisons
from seedling.gates.history import gate_history, record_gate
from seedling.records.gate import Check, GateRecord, GateResult
from seedling.workspace import Workspace

UNIQUE = Check(
    expectation="expect_column_values_to_be_unique",
    arguments={"column": "id"},
    severity="critical",
    passed=False,
    observed="2 of 9 rows unexpected",
    rows=("a", "b"),
)
DRIFT = Check(
    expectation="expect_column_min_to_be_between",
    arguments={"column": "drift_p_value", "min_value": 0.01},
    severity="warning",
    passed=True,
    observed="0.3",
)
UNIQUE_JSON = """{
      "arguments": {
        "column": "id"
      },
      "expectation": "expect_column_values_to_be_unique",
      "observed": "2 of 9 rows unexpected",
      "passed": false,
      "rows": [
        "a",
        "b"
      ],
      "severity": "critical",
      "source": null
    }"""


def test_gate_json_has_the_checks_and_a_version(tmp_path: Path) -> None:
    """Checks that compare with earlier rows are in another file; what is read is written with equal bytes."""
    write_checks([UNIQUE, DRIFT], tmp_path)
    write_comparisons([UNIQUE, DRIFT], tmp_path, "validate")
    path = tmp_path / "gate.json"
    content = path.read_text(encoding="utf-8")
    assert content == f'{{\n  "checks": [\n    {UNIQUE_JSON}\n  ],\n  "version": 1\n}}\n'
    GateResult.read(path).write(path)
    assert path.read_text(encoding="utf-8") == content
    assert read_checks(tmp_path, "validate", tmp_path) == [UNIQUE, DRIFT]


def test_gate_json_of_earlier_versions_is_the_list_of_checks(tmp_path: Path) -> None:
    """Generations in DVC's cache have such files."""
    (tmp_path / "gate.json").write_text(f"[{UNIQUE_JSON}]", encoding="utf-8")
    assert read_checks(tmp_path, "validate", tmp_path) == [UNIQUE]
    assert not user_expectations_changed(tmp_path, tmp_path)


def test_gate_json_of_a_later_version_is_named(tmp_path: Path) -> None:
    """It is not read as if it were known."""
    (tmp_path / "gate.json").write_text('{"version": 2, "checks": []}', encoding="utf-8")
    with pytest.raises(DamagedFile, match=r"gate\.json.*version 2 is of a later Seedling"):
        read_checks(tmp_path, "validate", tmp_path)


def test_a_check_that_failed_stops_only_if_it_is_critical() -> None:
    """A warning is shown, and a passed check is neither."""
    assert UNIQUE.stops
    assert not UNIQUE.model_copy(update={"severity": "warning"}).stops
    assert not UNIQUE.model_copy(update={"passed": True}).stops
    assert (UNIQUE.is_relative, DRIFT.is_relative) == (False, True)
    assert (DRIFT.column, DRIFT.limit) == ("drift_p_value", "column='drift_p_value', min_value=0.01")


def test_a_run_of_a_gate_is_one_line_of_the_history(tmp_path: Path) -> None:
    """A documented expectation has its meaning there; lines of earlier versions have no version."""
    record_gate(tmp_path, "validate", [UNIQUE, DRIFT], {UNIQUE.expectation: "rows are different"})
    (line,) = Workspace(tmp_path).gate_history.read_text(encoding="utf-8").splitlines()
    content = json.loads(line)
    assert content["version"] == 1
    assert [check.get("meaning") for check in content["checks"]] == ["rows are different", None]
    assert "meaning" not in content["checks"][1]
    (record,) = gate_history(tmp_path)
    assert record.line() == f"{line}\n"
    assert not record.passed
    del content["version"]
    assert GateRecord.parse(json.dumps(content)) == record
