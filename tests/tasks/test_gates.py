"""Gates: what passes, what is said when it does not, and what cannot be switched off."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tasks.errors import InputError
from tasks.gates import build_data_docs, check, explain, load_gates, stage_rows
from tasks.generation import GenerationWriter, Row

ROWS = pd.DataFrame(
    {"id": ["a", "b", "c"], "split": ["train", "train", "pool"], "x": [1.0, 2.0, 9.0], "made_from_held_out_row": False}
)


def write(folder: Path, text: str) -> Path:
    (folder / "gates.yaml").write_text(text, encoding="utf-8")
    return folder


def test_expectations_run_by_great_expectations_own_names(tmp_path: Path) -> None:
    """One met, one missed with the observed value and the row's id."""
    gates = load_gates(
        write(
            tmp_path,
            "augment:\n- expect_column_mean_to_be_between: {column: x, min_value: 3, max_value: 5}\n"
            "- expect_column_values_to_be_between: {column: x, max_value: 5, severity: warning}\n",
        )
    )
    *_, mean, values = check("augment", ROWS, gates, tmp_path / "gx")
    assert (mean.passed, mean.observed, mean.severity) == (True, "4.0", "critical")
    assert (values.passed, values.rows, values.stops) == (False, ["c"], False)
    assert "1 of 3 rows unexpected, such as 9.0" in values.observed


def test_the_default_gates_hold_without_a_gates_file_saying_so(tmp_path: Path) -> None:
    """Ids that repeat, and a child of a held-out row, stop the line even with an empty gates.yaml."""
    bad = ROWS.assign(id=["a", "a", "c"], made_from_held_out_row=[False, True, False])
    unique, parents = check("augment", bad, load_gates(write(tmp_path, "{}")), tmp_path / "gx")
    assert unique.stops
    assert parents.stops


def test_a_near_duplicate_of_a_test_row_in_training_stops_validate(tmp_path: Path) -> None:
    """The gate looks at groups and splits, not at what validate says it rejected."""
    with GenerationWriter(tmp_path / "validate", stage="validate", modality="text") as writer:
        for name, split, group in (("a", "test", "g"), ("b", "train", "g"), ("c", "train", "h")):
            writer.keep(Row(name * 16, split, group=group, payload=name))
        writer.close(rows_in=3)
    rows = stage_rows("validate", tmp_path / "validate", None)
    leak = check("validate", rows, {}, tmp_path / "gx")[-1]
    assert leak.stops
    assert leak.rows == ["b" * 16]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("augment: [expect_column_mean_to_be_betwen: {column: x}]", "did you mean 'expect_column_mean_to_be_between'"),
        ("augment: [expect_column_mean_to_be_between: {column: y}]", "no column 'y'.*there are id, split, x"),
        ("augment: [expect_column_mean_to_be_between: {column: x, minimum: 1}]", "minimum"),
        ("augmented: []", "'augmented' is no stage"),
        ("augment: [just words]", "write `- expect_"),
    ],
)
def test_a_gates_file_that_cannot_be_used_is_explained(tmp_path: Path, text: str, said: str) -> None:
    """Unknown expectations, columns, arguments and stages, each by name and with the nearest."""
    with pytest.raises(InputError, match=said):
        check("augment", ROWS, load_gates(write(tmp_path, text)), tmp_path / "gx")


def test_the_message_of_a_failed_gate_says_what_to_do(tmp_path: Path) -> None:
    """Stage, expectation, observed value, limit, rows, quarantine, remedy."""
    gates = load_gates(write(tmp_path, "augment: [expect_column_values_to_be_between: {column: x, max_value: 5}]"))
    said = explain("augment", check("augment", ROWS, gates, tmp_path / "gx"), Path("quarantine/augment-1"))
    for part in (
        "stage 'augment'",
        "expect_column_values_to_be_between",
        "1 of 3",
        "max_value=5",
        "rows: c",
        "quarantine/augment-1",
        "gates.yaml",
    ):
        assert part in said


def test_data_docs_show_the_checks(tmp_path: Path) -> None:
    """Great Expectations' own pages, built from the stored results."""
    check("augment", ROWS, {}, tmp_path)
    page = build_data_docs(tmp_path)
    assert "augment" in page.read_text(encoding="utf-8")
    assert list(page.parent.glob("validations/augment/**/*.html"))
