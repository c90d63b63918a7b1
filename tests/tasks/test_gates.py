"""Gates: what passes, what is said when it does not, and what cannot be switched off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from seedling.dataset.generation import GenerationWriter, Row
from seedling.errors import InputError
from seedling.gates.checking import (
    asked_with_others,
    check,
    explain,
    load_gates,
    read_checks,
    wanted_columns,
    write_checks,
    write_comparisons,
)
from seedling.gates.columns import gated_rows, offered, remember
from seedling.gates.on_disk import GatedRows
from seedling.gates.user_expectations import Own, own_expectations
from seedling.media import images

ROWS = pd.DataFrame(
    {"id": ["a", "b", "c"], "split": ["train", "train", "pool"], "x": [1.0, 2.0, 9.0], "made_from_held_out_row": False}
)


def frame_of(rows: GatedRows) -> pd.DataFrame:
    """All that a gate sees."""
    return rows.read(rows.columns)


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
    *_, mean, values = check("augment", GatedRows.of(ROWS), gates, tmp_path / "gx")
    assert (mean.passed, mean.observed, mean.severity) == (True, "4.0", "critical")
    assert (values.passed, values.rows, values.stops) == (False, ["c"], False)
    assert "1 of 3 rows unexpected, such as 9.0" in values.observed


def test_the_default_gates_hold_without_a_gates_file_saying_so(tmp_path: Path) -> None:
    """Ids that repeat, and a child of a held-out row, stop the line even with an empty gates.yaml."""
    bad = ROWS.assign(id=["a", "a", "c"], made_from_held_out_row=[False, True, False])
    unique, parents = check("augment", GatedRows.of(bad), load_gates(write(tmp_path, "{}")), tmp_path / "gx")
    assert unique.stops
    assert parents.stops


def test_a_near_duplicate_of_a_test_row_in_training_stops_validate(tmp_path: Path) -> None:
    """The gate looks at groups and splits, not at what validate says it rejected."""
    with GenerationWriter(tmp_path / "validate", stage="validate", modality="text") as writer:
        for name, split, group in (("a", "test", "g"), ("b", "train", "g"), ("c", "train", "h")):
            writer.keep(Row(name * 16, split, group=group, payload=name))
        writer.close(rows_in=3)
    rows = gated_rows("validate", tmp_path / "validate")
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
        check("augment", GatedRows.of(ROWS), load_gates(write(tmp_path, text)), tmp_path / "gx")


def test_the_message_of_a_failed_gate_says_what_to_do(tmp_path: Path) -> None:
    """Stage, expectation, observed value, limit, rows, quarantine, remedy."""
    gates = load_gates(write(tmp_path, "augment: [expect_column_values_to_be_between: {column: x, max_value: 5}]"))
    said = explain(
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
        assert part in said


def generation(folder: Path, rows: list[Row]) -> Path:
    """A generation of texts in this folder."""
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


def test_what_a_gate_names_is_measured_on_any_stage(tmp_path: Path) -> None:
    """Words and characters counted by hand; the class's share of four labeled rows; no column that nobody named."""
    folder = generation(
        tmp_path / "g", [*rows_of("two words", "<b>now</b>", "x@y.org"), *rows_of("z", label="y", start=3)]
    )
    wanted = {"text", "words", "markup", "personal_data", "class_share"}
    frame = frame_of(gated_rows("scrape", folder, wanted=wanted)).set_index("text")
    assert frame["words"].to_dict() == {"two words": 2, "<b>now</b>": 1, "x@y.org": 1, "z": 1}
    assert frame["markup"].tolist() == [False, True, False, False]
    assert frame["personal_data"].tolist() == [False, False, True, False]
    assert frame["class_share"].tolist() == [0.75, 0.75, 0.75, 0.25]
    assert "class_share" not in gated_rows("scrape", folder).columns


def test_what_validate_measured_of_a_row_is_known_in_every_later_stage(tmp_path: Path) -> None:
    """Test rows as evaluate has them, pool rows that were labeled: by id, nothing of an id that validate has not; children have other ids."""
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
    for stage, folder, near in (("evaluate", tmp_path / "reports", [0.5, None]), ("pseudo_label@1", labeled, [0.25])):
        rows = gated_rows(stage, folder, validated=tmp_path / "validate", wanted={"nearest_labeled", "id"})
        found = frame_of(rows)["nearest_labeled"]
        assert [None if np.isnan(one) else one for one in found] == near
        assert "nearest_labeled" in offered(stage, folder, tmp_path / "validate")
    assert "nearest_labeled" not in offered("augment", labeled, tmp_path / "validate")


def test_what_stands_is_compared_with_not_what_was_remembered_before(tmp_path: Path) -> None:
    """Memory of labels alone, older than the generation that stands: drift is found against that generation."""
    standing = generation(tmp_path / "standing", rows_of(*["word " * (1 + n % 7) for n in range(60)]))
    now = generation(tmp_path / "now", rows_of(*["word " * (20 + n % 7) for n in range(60)], start=200))
    memory, wanted = tmp_path / "memory.parquet", {"rows_change"}
    old = generation(tmp_path / "old", rows_of("a", "b"))
    remember(gated_rows("scrape", old, wanted=wanted), wanted, memory)
    found = frame_of(gated_rows("scrape", now, last=standing, memory=memory, wanted={"drift_p_value", "rows_change"}))
    assert found["drift_p_value"].max() < 1e-6
    assert set(found["rows_change"]) == {1.0}


def test_a_generation_is_compared_with_the_one_before(tmp_path: Path) -> None:
    """Two rows become four, one of two labels flips, and a class goes from all to half of the rows."""
    last = generation(tmp_path / "last", rows_of("a", "b"))
    now = generation(
        tmp_path / "now", [*rows_of("a", label="x"), *rows_of("b", "c", label="y", start=1), *rows_of("d", start=3)]
    )
    wanted = {"rows_change", "label_flipped", "class_share_change", "drift_p_value"}
    frame = frame_of(gated_rows("scrape", now, last=last, wanted=wanted))
    assert set(frame["rows_change"]) == {2.0}
    assert frame["label_flipped"].tolist() == [False, True, False, False]
    assert set(frame["class_share_change"]) == {0.5}
    first = frame_of(gated_rows("scrape", now, last=tmp_path / "nothing", wanted=wanted))
    assert (
        (first["rows_change"] == 1).all() and (first["drift_p_value"] == 1).all() and not first["label_flipped"].any()
    )


def test_drift_is_found_where_texts_grow_and_not_where_they_stay(tmp_path: Path) -> None:
    """A two-sample test: the same lengths give a large p-value, five times the length a tiny one."""
    last = generation(tmp_path / "last", rows_of(*["word " * (1 + n % 7) for n in range(60)]))
    same = generation(tmp_path / "same", rows_of(*["term " * (1 + n % 7) for n in range(60)], start=100))
    longer = generation(tmp_path / "longer", rows_of(*["word " * (20 + n % 7) for n in range(60)], start=200))
    wanted = {"drift_p_value"}
    assert frame_of(gated_rows("scrape", same, last=last, wanted=wanted))["drift_p_value"].max() > 0.5
    assert frame_of(gated_rows("scrape", longer, last=last, wanted=wanted))["drift_p_value"].max() < 1e-9


def test_checks_that_compare_stay_out_of_the_generation(tmp_path: Path) -> None:
    """gate.json is a function of the stage's inputs; what depends on the run before lies beside, and both are read."""
    rows = ROWS.assign(rows_change=3.0)
    text = "augment:\n- expect_column_max_to_be_between: {column: rows_change, max_value: 2, severity: warning}\n"
    gates = load_gates(write(tmp_path, text + "- expect_table_row_count_to_be_between: {min_value: 1}\n"))
    assert wanted_columns("augment", gates) == {"id", "made_from_held_out_row", "rows_change"}
    checks = check("augment", GatedRows.of(rows), gates, tmp_path / "gx")
    write_checks(checks, tmp_path)
    write_comparisons(checks, tmp_path, "augment")
    assert "rows_change" not in (tmp_path / "gate.json").read_text(encoding="utf-8")
    found = read_checks(tmp_path, "augment", tmp_path)
    assert [one["passed"] for one in found if one["arguments"].get("column") == "rows_change"] == [False]
    assert len(found) == 4


OWN = """
def expect_column_values_to_be_odd(values, above=0):
    \"\"\"are odd\"\"\"
    return (values % 2 == 1) & (values > above)


def expect_column_values_to_break(values):
    raise RuntimeError("as written")
"""


def test_a_users_own_function_is_an_expectation(tmp_path: Path) -> None:
    """Values 1, 2 and 9: 2 is even; above 5 only 9 is left; `mostly` works as in Great Expectations."""
    (tmp_path / "expectations.py").write_text(OWN, encoding="utf-8")
    lines = [
        "augment:",
        "- expect_column_values_to_be_odd: {column: x}",
        "- expect_column_values_to_be_odd: {column: x, above: 5, severity: warning}",
        "- expect_column_values_to_be_odd: {column: x, mostly: 0.6}",
    ]
    gates = load_gates(write(tmp_path, "\n".join(lines)))
    *_, odd, above, mostly = check("augment", GatedRows.of(ROWS), gates, tmp_path, own_expectations(tmp_path))
    assert (odd.passed, odd.rows) == (False, ["b"])
    assert (above.rows, above.severity) == (["a", "b"], "warning")
    assert mostly.passed
    assert own_expectations(tmp_path).meanings["expect_column_values_to_be_odd"] == "are odd"


def test_a_users_expectation_that_raises_stops_and_says_what(tmp_path: Path) -> None:
    """Never a silent pass: the error's own words are what was observed."""
    (tmp_path / "expectations.py").write_text(OWN, encoding="utf-8")
    gates = load_gates(write(tmp_path, "augment: [expect_column_values_to_break: {column: x}]"))
    broken = check("augment", GatedRows.of(ROWS), gates, tmp_path, own_expectations(tmp_path))[-1]
    assert broken.stops
    assert broken.observed == "could not be judged: RuntimeError: as written"
    said = explain("augment", [broken], Path("quarantine"), None)
    assert "expectations.py" in said
    assert "Mend the data" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = (", "line 2: SyntaxError"),
        ("import os\n\nos.nothing", "line 3: AttributeError"),
        ("def expect_table_to_be_good(rows):\n    return True", "must be called expect_column_values_"),
    ],
)
def test_a_file_of_expectations_that_cannot_be_used_is_explained(tmp_path: Path, text: str, said: str) -> None:
    """The file, the line and the error."""
    (tmp_path / "expectations.py").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        own_expectations(tmp_path)


def test_a_condition_on_rows_and_a_column_that_is_derived_go_together(tmp_path: Path) -> None:
    """An expectation about the table beside one on a derived column, and one with a condition: all are judged."""
    folder = generation(tmp_path / "g", rows_of("a b", "c"))
    lines = [
        "scrape:",
        "- expect_table_column_count_to_be_between: {min_value: 3}",
        "- expect_column_max_to_be_between: {column: rows_change, max_value: 1}",
        "- expect_column_values_to_be_between: {column: words, max_value: 2, row_condition: 'split==\"train\"', condition_parser: pandas}",
    ]
    gates = load_gates(write(tmp_path, "\n".join(lines)))
    checks = check("scrape", gated_rows("scrape", folder, wanted=wanted_columns("scrape", gates)), gates, tmp_path)
    assert [one.passed for one in checks] == [True] * 4


def test_what_passed_is_remembered_for_the_next(tmp_path: Path) -> None:
    """Labels alone where only labels are compared; what was measured too where drift is; nothing where nothing compares."""
    folder, memory = generation(tmp_path / "g", rows_of("a b", "c")), tmp_path / "memory.parquet"
    for wanted, kept in (
        ({"id"}, None),
        ({"label_flipped"}, {"id", "label"}),
        ({"drift_p_value"}, {"words", "mojibake"}),
    ):
        remember(gated_rows("scrape", folder, wanted=wanted), wanted, memory)
        assert memory.is_file() is (kept is not None)
        assert kept is None or kept <= set(pd.read_parquet(memory).columns)
    assert pd.read_parquet(memory)["words"].tolist() == [2, 1]
    later = generation(tmp_path / "later", rows_of("a b", "c", "d", "e"))
    assert set(frame_of(gated_rows("scrape", later, memory=memory, wanted={"rows_change"}))["rows_change"]) == {2.0}


@pytest.mark.parametrize("gives", ["None", "values[:1] > 0", "['yes'] * len(values)", "True"])
def test_an_expectation_that_does_not_answer_for_each_value_never_passes(tmp_path: Path, gives: str) -> None:
    """Nothing, too few answers, words, and one answer for all."""
    own = f"def expect_column_values_to_answer(values):\n    return {gives}\n"
    (tmp_path / "expectations.py").write_text(own, encoding="utf-8")
    gates = load_gates(write(tmp_path, "augment: [expect_column_values_to_answer: {column: x}]"))
    found = check("augment", GatedRows.of(ROWS), gates, tmp_path, own_expectations(tmp_path))[-1]
    assert found.stops and "could not be judged: TypeError" in found.observed


def test_a_gate_is_asked_again_when_the_users_file_has_changed(tmp_path: Path) -> None:
    """The generation's gate.json holds the file's hash where one of its expectations was asked; classes count too."""
    file = tmp_path / "expectations.py"
    file.write_text(OWN, encoding="utf-8")
    for text, again in (
        ("- expect_column_values_to_be_odd: {column: x, mostly: 0.1}", True),
        ("- expect_table_row_count_to_equal: {value: 3}", False),
    ):
        gates = load_gates(write(tmp_path, f"augment:\n{text}"))
        file.write_text(OWN, encoding="utf-8")
        write_checks(check("augment", GatedRows.of(ROWS), gates, tmp_path / "gx", own_expectations(tmp_path)), tmp_path)
        assert not asked_with_others(tmp_path, tmp_path)
        file.write_text(OWN + "\n# changed\n", encoding="utf-8")
        assert asked_with_others(tmp_path, tmp_path) is again
    assert Own(text="class ExpectColumnValuesToBeNice(ColumnMapExpectation): ...").holds(
        "expect_column_values_to_be_nice"
    )


def test_a_file_that_is_no_image_is_measured_as_nothing(tmp_path: Path) -> None:
    """Scrape passes it on with a reason to come; a gate on brightness judges the others."""
    folder = tmp_path / "g"
    with GenerationWriter(folder, stage="scrape", modality="image") as writer:
        for number, payload in enumerate((images.encode(np.full((9, 9, 3), 80, np.uint8)), b"no image")):
            writer.keep(Row(f"{number:032x}", payload=payload))
        writer.close(rows_in=2)
    found = frame_of(gated_rows("scrape", folder, wanted={"brightness"}))["brightness"]
    assert found.iloc[0] == 80 and found.isna().tolist() == [False, True]


def test_a_stage_that_made_no_row_meets_what_is_said_of_values(tmp_path: Path) -> None:
    """Great Expectations has no largest value of nothing; how many rows there are is still asked."""
    gates = load_gates(
        write(
            tmp_path,
            "augment:\n- expect_column_max_to_be_between: {column: x, max_value: 1}\n- expect_table_row_count_to_be_between: {min_value: 1}",
        )
    )
    *_, largest, rows = check("augment", GatedRows.of(ROWS.iloc[:0]), gates, tmp_path)
    assert (largest.passed, largest.observed) == (True, "there are no rows")
    assert rows.stops
    gates = load_gates(write(tmp_path, "train: [expect_column_max_to_be_between: {column: x, max_value: 1}]"))
    assert check("train", GatedRows.of(ROWS.iloc[:0]), gates, tmp_path)[
        -1
    ].stops  # a stage that must make rows has not met it


def test_a_users_file_that_ends_the_program_is_explained(tmp_path: Path) -> None:
    """sys.exit in expectations.py is an error like any other."""
    (tmp_path / "expectations.py").write_text("import sys\nsys.exit(3)", encoding="utf-8")
    with pytest.raises(InputError, match="line 2: SystemExit: 3"):
        own_expectations(tmp_path)
