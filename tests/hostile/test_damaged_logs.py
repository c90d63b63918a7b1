"""A damaged line of the log of test-set evaluations costs that line, in a merge of two logs, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seedling.records.test_evaluations import merge_lines, read_test_evaluations
from seedling.workspace import TEST_EVALUATIONS

GOOD = json.dumps({"time": "2026-01-01T00:00:00+00:00", "test": "t", "model": "m", "metrics": []})


@pytest.mark.parametrize(
    "line",
    [
        GOOD[:-5],
        "",
        "7",
        "[" * 100_000,
        '{"test": "t", "model": ["m"], "time": "x"}',
        '{"event": "log lost", "time": 5}',
        '{"test": "t", "model": "m"}',
    ],
)
def test_a_damaged_line_is_left_out(line: str, tmp_path: Path) -> None:
    """Cut, empty, of another kind, nested too deeply, or with values of other kinds."""
    (tmp_path / TEST_EVALUATIONS).write_text(f"{line}\n{GOOD}\n", encoding="utf-8")
    assert len(read_test_evaluations(tmp_path, "t", has_results=True).models) == 1
    assert merge_lines([[line, GOOD], [GOOD]]) == [GOOD]
