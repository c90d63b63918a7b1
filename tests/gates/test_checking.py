"""Gates: what passes, what the message of a failure states, and what cannot be switched off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from seedling.dataset.generation import GenerationWriter, Row
from seedling.errors import InputError
from seedling.gates.checking import (
    check,
    columns_in_gate,
    explain,
    load_gates,
    read_checks,
    user_expectations_changed,
    write_checks,
    write_comparisons,
)
from seedling.gates.columns import GateInput, available_columns, gated_rows, save_for_comparison
from seedling.gates.on_disk import GatedRows
from seedling.gates.user_expectations import UserExpectations, import_user_expectations
from seedling.media import images

ROWS = pd.DataFrame(
    {"id": ["a", "b", "c"], "split": ["train", "train", "pool"], "x": [1.0, 2.0, 9.0], "made_from_held_out_row": False}
)


def frame_of(rows: GatedRows) -> pd.DataFrame:
    """All columns that a gate reads."""
    return rows.read(rows.columns)


def write(folder: Path, text: str) -> Path:
    (folder / "gates.yaml").write_text(text, encoding="utf-8")
    return folder


def test_expectations_run_by_their_great_expectations_names(tmp_path: Path) -> None:
    """One passes and one fails, with the observed value and the row's id."""
    gates = load_gates(
        write(
            tmp_path,
            "augment:\n- expect_column_mean_to_be_between: {column: x, min_value: 3, max_value: 5}\n"
            "- expect_column_values_to_be_between: {column: x, max_value: 5, severity: warning}\n",
        )
    )
    *_, mean, values = check("augment", GatedRows.of(ROWS), gates, tmp_path / "gx")
    assert (mean.passed, mean.observed, mean.severity) == (True, "4.0", "critical")
    assert (values.passed, values.rows, values.stops) == (False, ("c",), False)
    assert "1 of 3 rows unexpected, such as 9.0" in values.observed


def test_the_required_expectations_run_without_a_gates_file(tmp_path: Path) -> None:
    """Repeated ids, and an augmented row of a held-out row, stop the pipeline even with an empty gates.yaml."""
    bad = ROWS.assign(id=["a", "a", "c"], made_from_held_out_row=[False, True, False])
    unique, parents = check("augment", GatedRows.of(bad), load_gates(write(tmp_path, "{}")), tmp_path / "gx")
    assert unique.stops
    assert parents.stops


def test_a_near_duplicate_of_a_test_row_in_training_stops_validate(tmp_path: Path) -> None:
    """The gate checks groups and splits, not what validate rejected."""
    with GenerationWriter(tmp_path / "validate", stage="validate", modality="text") as writer:
        for name, split, group in (("a", "test", "g"), ("b", "train", "g"), ("c", "train", "h")):
            writer.keep(Row(name * 16, split, group=group, payload=name))
        writer.close(rows_in=3)
    rows = gated_rows("validate", GateInput(tmp_path / "validate"))
    leak = check("validate", rows, {}, tmp_path / "gx")[-1]
    assert leak.stops
    assert leak.rows == ("b" * 16,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("augment: [expect_column_mean_to_be_betwen: {column: x}]", "did you mean 'expect_column_mean_to_be_between'"),
        ("augment: [expect_column_mean_to_be_between: {column: y}]", "no column 'y'.*there are id, split, x"),
        ("augment: [expect_column_mean_to_be_between: {column: x, minimum: 1}]", "minimum"),
        ("augmented: []", "'augmented' is not a stage"),
        ("augment: [just words]", "write `- expect_"),
    ],
)
def test_an_invalid_gates_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    """Unknown expectations, columns, arguments and stages are named, with the most similar name."""
    with pytest.raises(InputError, match=message):
        check("augment", GatedRows.of(ROWS), load_gates(write(tmp_path, text)), tmp_path / "gx")


def test_the_message_of_a_failed_gate_states_what_to_do(tmp_path: Path) -> None:
    """Stage, expectation, observed value, limit, rows, quarantine, fix."""
    gates = load_gates(write(tmp_path, "augment: [expect_column_values_to_be_between: {column: x, max_value: 5}]"))
    message = explain(
        "augment",
        check("augment", GatedRows.of(ROWS), gates, tmp_path / "gx"),
        Path("quarantine/augment-1"),
        Path("docs/index.html"),
        {"empty": 2, "unknown_split": 1_200},
    )
    for part in (
        "1,200 as unknown_split (a split is train, validation, test, pool, out_of_scope, or empty)",
        "2 as empty",
        "stage 'augment'",
        "expect_column_values_to_be_between",
        "1 of 3",
        "max_value=5",
        "rows: c",
        "quarantine/augment-1",
        "gates.yaml",
        "docs/index.html",
    ):
        assert part in message


def generation(folder: Path, rows: list[Row]) -> Path:
    """A generation of texts in the folder."""
    with GenerationWriter(folder, stage="scrape", modality="text") as writer:
        for row in rows:
            writer.keep(row)
        writer.close(rows_in=len(rows))
    return folder


def rows_of(*texts: str, label: str | None = "x", start: int = 0) -> list[Row]:
    """Rows with these texts."""
    return [
        Row(f"{number:032x}", "train", label=label, origin=f"f{number}", payload=text)
        for number, text in enumerate(texts, start)
    ]


def test_metrics_that_a_gate_names_are_computed_for_any_stage(tmp_path: Path) -> None:
    """Words counted by hand, and the class share of four labeled rows; other columns are not computed."""
    folder = generation(
        tmp_path / "g", [*rows_of("two words", "<b>now</b>", "x@y.org"), *rows_of("z", label="y", start=3)]
    )
    columns = {"text", "words", "markup", "personal_data", "class_share"}
    frame = frame_of(gated_rows("scrape", GateInput(folder), columns)).set_index("text")
    assert frame["words"].to_dict() == {"two words": 2, "<b>now</b>": 1, "x@y.org": 1, "z": 1}
    assert frame["markup"].tolist() == [False, True, False, False]
    assert frame["personal_data"].tolist() == [False, False, True, False]
    assert frame["class_share"].tolist() == [0.75, 0.75, 0.75, 0.25]
    assert "class_share" not in gated_rows("scrape", GateInput(folder)).columns


def test_columns_of_validate_are_available_in_later_stages_with_the_same_ids(tmp_path: Path) -> None:
    """They are joined by id for evaluate and pseudo_label, null for unknown ids; augmented rows have other ids."""
    with GenerationWriter(
        tmp_path / "validate", stage="validate", modality="text", extra=[pa.field("nearest_labeled", pa.float32())]
    ) as writer:
        for name, near in (("a", 0.25), ("b", 0.5)):
            writer.keep(Row(name * 32, "test", group=name, payload=name, extra={"nearest_labeled": near}))
        writer.close(rows_in=2)
    predicted = {
        "id": ["b" * 32, "c" * 32],
        "label": ["x", "y"],
        "predicted": ["x", "x"],
        "probabilities": [[1, 0]] * 2,
    }
    (tmp_path / "reports").mkdir()
    pd.DataFrame(predicted).to_parquet(tmp_path / "reports/predictions.parquet")
    labeled = generation(tmp_path / "pseudo_label", [Row("a" * 32, "pool", payload="a")])
    nearest: Sequence[float | None]
    for stage, folder, nearest in (
        ("evaluate", tmp_path / "reports", [0.5, None]),
        ("pseudo_label@1", labeled, [0.25]),
    ):
        rows = gated_rows(stage, GateInput(folder, validated=tmp_path / "validate"), {"nearest_labeled", "id"})
        values = frame_of(rows)["nearest_labeled"]
        assert [None if np.isnan(value) else value for value in values] == nearest
        assert "nearest_labeled" in available_columns(stage, folder, tmp_path / "validate")
    assert "nearest_labeled" not in available_columns("augment", labeled, tmp_path / "validate")


@pytest.mark.slow
def test_the_generation_on_disk_is_preferred_to_the_saved_one(tmp_path: Path) -> None:
    """The saved file has only labels and is older: drift is tested against the generation on disk."""
    standing = generation(tmp_path / "standing", rows_of(*["word " * (1 + n % 7) for n in range(60)]))
    now = generation(tmp_path / "now", rows_of(*["word " * (20 + n % 7) for n in range(60)], start=200))
    memory, columns = tmp_path / "memory.parquet", {"rows_change"}
    old = generation(tmp_path / "old", rows_of("a", "b"))
    save_for_comparison(gated_rows("scrape", GateInput(old), columns), columns, memory)
    frame = frame_of(
        gated_rows("scrape", GateInput(now, last=standing, memory=memory), {"drift_p_value", "rows_change"})
    )
    assert frame["drift_p_value"].max() < 1e-6
    assert set(frame["rows_change"]) == {1.0}


def test_a_generation_is_compared_with_the_previous_one(tmp_path: Path) -> None:
    """Two rows become four, one of two labels flips, and the share of a class changes from all rows to half."""
    last = generation(tmp_path / "last", rows_of("a", "b"))
    now = generation(
        tmp_path / "now", [*rows_of("a", label="x"), *rows_of("b", "c", label="y", start=1), *rows_of("d", start=3)]
    )
    columns = {"rows_change", "label_flipped", "class_share_change", "drift_p_value"}
    frame = frame_of(gated_rows("scrape", GateInput(now, last=last), columns))
    assert set(frame["rows_change"]) == {2.0}
    assert frame["label_flipped"].tolist() == [False, True, False, False]
    assert set(frame["class_share_change"]) == {0.5}
    first = frame_of(gated_rows("scrape", GateInput(now, last=tmp_path / "nothing"), columns))
    assert (
        (first["rows_change"] == 1).all() and (first["drift_p_value"] == 1).all() and not first["label_flipped"].any()
    )


@pytest.mark.slow
def test_drift_is_found_if_texts_become_longer(tmp_path: Path) -> None:
    """The same lengths give a large p-value of the two-sample test, longer texts a tiny one."""
    last = generation(tmp_path / "last", rows_of(*["word " * (1 + n % 7) for n in range(60)]))
    same = generation(tmp_path / "same", rows_of(*["term " * (1 + n % 7) for n in range(60)], start=100))
    longer = generation(tmp_path / "longer", rows_of(*["word " * (20 + n % 7) for n in range(60)], start=200))
    columns = {"drift_p_value"}
    assert frame_of(gated_rows("scrape", GateInput(same, last=last), columns))["drift_p_value"].max() > 0.5
    assert frame_of(gated_rows("scrape", GateInput(longer, last=last), columns))["drift_p_value"].max() < 1e-9


def test_checks_that_compare_generations_are_stored_outside_of_them(tmp_path: Path) -> None:
    """gate.json depends only on the stage's inputs; comparisons with the previous run are in another file."""
    rows = ROWS.assign(rows_change=3.0)
    text = "augment:\n- expect_column_max_to_be_between: {column: rows_change, max_value: 2, severity: warning}\n"
    gates = load_gates(write(tmp_path, text + "- expect_table_row_count_to_be_between: {min_value: 1}\n"))
    assert columns_in_gate("augment", gates) == {"id", "made_from_held_out_row", "rows_change"}
    checks = check("augment", GatedRows.of(rows), gates, tmp_path / "gx")
    write_checks(checks, tmp_path)
    write_comparisons(checks, tmp_path, "augment")
    assert "rows_change" not in (tmp_path / "gate.json").read_text(encoding="utf-8")
    stored = read_checks(tmp_path, "augment", tmp_path)
    assert [entry.passed for entry in stored if entry.column == "rows_change"] == [False]
    assert len(stored) == 4


OWN = """
def expect_column_values_to_be_odd(values, above=0):
    \"\"\"are odd\"\"\"
    return (values % 2 == 1) & (values > above)


def expect_column_values_to_break(values):
    raise RuntimeError("as written")
"""


def test_a_function_of_the_user_is_an_expectation(tmp_path: Path) -> None:
    """Of 1, 2 and 9, 2 is even, and only 9 is above 5; `mostly` works as in Great Expectations."""
    (tmp_path / "expectations.py").write_text(OWN, encoding="utf-8")
    lines = [
        "augment:",
        "- expect_column_values_to_be_odd: {column: x}",
        "- expect_column_values_to_be_odd: {column: x, above: 5, severity: warning}",
        "- expect_column_values_to_be_odd: {column: x, mostly: 0.6}",
    ]
    gates = load_gates(write(tmp_path, "\n".join(lines)))
    *_, odd, above, mostly = check("augment", GatedRows.of(ROWS), gates, tmp_path, import_user_expectations(tmp_path))
    assert (odd.passed, odd.rows) == (False, ("b",))
    assert (above.rows, above.severity) == (("a", "b"), "warning")
    assert mostly.passed
    assert import_user_expectations(tmp_path).meanings["expect_column_values_to_be_odd"] == "are odd"


def test_a_users_expectation_that_raises_fails_with_the_error(tmp_path: Path) -> None:
    """It never passes silently: the observed value is the error's message."""
    (tmp_path / "expectations.py").write_text(OWN, encoding="utf-8")
    gates = load_gates(write(tmp_path, "augment: [expect_column_values_to_break: {column: x}]"))
    broken = check("augment", GatedRows.of(ROWS), gates, tmp_path, import_user_expectations(tmp_path))[-1]
    assert broken.stops
    assert broken.observed == "could not be evaluated: RuntimeError: as written"
    message = explain("augment", [broken], Path("quarantine"), None)
    assert "expectations.py" in message
    assert "Fix the data" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (", "line 2: SyntaxError"),
        ("import os\n\nos.nothing", "line 3: AttributeError"),
        ("def expect_table_to_be_good(rows):\n    return True", "must be called expect_column_values_"),
    ],
)
def test_an_invalid_expectations_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    """The message has the file, the line and the error."""
    (tmp_path / "expectations.py").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        import_user_expectations(tmp_path)


def test_row_conditions_and_computed_columns_can_be_combined(tmp_path: Path) -> None:
    """Expectations of the table, of a computed column, and with a row condition are all evaluated."""
    folder = generation(tmp_path / "g", rows_of("a b", "c"))
    lines = [
        "scrape:",
        "- expect_table_column_count_to_be_between: {min_value: 3}",
        "- expect_column_max_to_be_between: {column: rows_change, max_value: 1}",
        "- expect_column_values_to_be_between:",
        "    {column: words, max_value: 2, row_condition: 'split==\"train\"', condition_parser: pandas}",
    ]
    gates = load_gates(write(tmp_path, "\n".join(lines)))
    checks = check("scrape", gated_rows("scrape", GateInput(folder), columns_in_gate("scrape", gates)), gates, tmp_path)
    assert [result.passed for result in checks] == [True] * 4


def test_values_are_saved_for_the_next_comparison(tmp_path: Path) -> None:
    """Labels are saved if labels are compared, metrics too if drift is tested, and nothing without comparisons."""
    folder, memory = generation(tmp_path / "g", rows_of("a b", "c")), tmp_path / "memory.parquet"
    for columns, kept in (
        ({"id"}, None),
        ({"label_flipped"}, {"id", "label"}),
        ({"drift_p_value"}, {"words", "mojibake"}),
    ):
        save_for_comparison(gated_rows("scrape", GateInput(folder), columns), columns, memory)
        assert memory.is_file() is (kept is not None)
        assert kept is None or kept <= set(pd.read_parquet(memory).columns)
    assert pd.read_parquet(memory)["words"].tolist() == [2, 1]
    later = generation(tmp_path / "later", rows_of("a b", "c", "d", "e"))
    assert set(frame_of(gated_rows("scrape", GateInput(later, memory=memory), {"rows_change"}))["rows_change"]) == {2.0}


@pytest.mark.parametrize("gives", ["None", "values[:1] > 0", "['yes'] * len(values)", "True"])
def test_an_expectation_that_does_not_return_a_boolean_per_value_never_passes(tmp_path: Path, gives: str) -> None:
    """It returns None, too few values, strings, or a single boolean."""
    function_source = f"def expect_column_values_to_answer(values):\n    return {gives}\n"
    (tmp_path / "expectations.py").write_text(function_source, encoding="utf-8")
    gates = load_gates(write(tmp_path, "augment: [expect_column_values_to_answer: {column: x}]"))
    result = check("augment", GatedRows.of(ROWS), gates, tmp_path, import_user_expectations(tmp_path))[-1]
    assert result.stops and "could not be evaluated: TypeError" in result.observed


@pytest.mark.slow
def test_a_changed_expectations_file_is_detected(tmp_path: Path) -> None:
    """gate.json has the file's hash if the gate used one of its expectations, functions or classes."""
    file = tmp_path / "expectations.py"
    file.write_text(OWN, encoding="utf-8")
    for text, again in (
        ("- expect_column_values_to_be_odd: {column: x, mostly: 0.1}", True),
        ("- expect_table_row_count_to_equal: {value: 3}", False),
    ):
        gates = load_gates(write(tmp_path, f"augment:\n{text}"))
        file.write_text(OWN, encoding="utf-8")
        write_checks(
            check("augment", GatedRows.of(ROWS), gates, tmp_path / "gx", import_user_expectations(tmp_path)), tmp_path
        )
        assert not user_expectations_changed(tmp_path, tmp_path)
        file.write_text(OWN + "\n# changed\n", encoding="utf-8")
        assert user_expectations_changed(tmp_path, tmp_path) is again
    assert UserExpectations(text="class ExpectColumnValuesToBeNice(ColumnMapExpectation): ...").defines(
        "expect_column_values_to_be_nice"
    )


def test_a_file_that_is_not_an_image_has_no_metrics(tmp_path: Path) -> None:
    """It is kept until validate rejects it; a gate on brightness checks the other rows."""
    folder = tmp_path / "g"
    with GenerationWriter(folder, stage="scrape", modality="image") as writer:
        for number, payload in enumerate((images.encode(np.full((9, 9, 3), 80, np.uint8)), b"no image")):
            writer.keep(Row(f"{number:032x}", payload=payload))
        writer.close(rows_in=2)
    brightness = frame_of(gated_rows("scrape", GateInput(folder), {"brightness"}))["brightness"]
    assert brightness.iloc[0] == 80 and brightness.isna().tolist() == [False, True]


def test_checks_of_values_pass_for_a_stage_without_rows(tmp_path: Path) -> None:
    """Great Expectations has no maximum of zero values; the number of rows is still checked."""
    gates = load_gates(
        write(
            tmp_path,
            "augment:\n- expect_column_max_to_be_between: {column: x, max_value: 1}\n"
            "- expect_table_row_count_to_be_between: {min_value: 1}",
        )
    )
    *_, largest, rows = check("augment", GatedRows.of(ROWS.iloc[:0]), gates, tmp_path)
    assert (largest.passed, largest.observed) == (True, "there are no rows")
    assert rows.stops
    gates = load_gates(write(tmp_path, "train: [expect_column_max_to_be_between: {column: x, max_value: 1}]"))
    assert check("train", GatedRows.of(ROWS.iloc[:0]), gates, tmp_path)[-1].stops  # train must have rows


def test_a_users_file_that_ends_the_program_is_explained(tmp_path: Path) -> None:
    """sys.exit in expectations.py is reported like any other error."""
    (tmp_path / "expectations.py").write_text("import sys\nsys.exit(3)", encoding="utf-8")
    with pytest.raises(InputError, match="line 2: SystemExit: 3"):
        import_user_expectations(tmp_path)
