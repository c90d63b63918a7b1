"""Gates over rows on disk: the results equal those of one frame in memory, and memory use stays constant."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.registry import get_expectation_impl

from seedling.errors import IncompleteGeneration
from seedling.gates.engine import engine_over
from seedling.gates.on_disk import GatedRows, StoredRows

ROWS, ROWS_PER_FILE = 60, 13


def columns() -> dict[str, pa.Array[Any]]:
    """Sixty rows: a repeated id, texts and numbers with gaps, and a column without values."""
    numbers = np.arange(ROWS)
    ids: list[str | None] = [f"{number:04x}" for number in numbers]
    ids[41], ids[58] = ids[3], None
    words = [
        None if number % 11 == 5 else ["ein Wort", "naïve", "", "a1", "2024-02-30", '{"a": 1}'][number % 6]
        for number in numbers
    ]
    return {
        "id": pa.array([f"row{number}" for number in numbers]),
        "key": pa.array(ids, pa.string()),
        "word": pa.array(words, pa.string()),
        "json": pa.array(['{"a": 1}' if number % 3 else "[1]" for number in numbers]),
        "day": pa.array([f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}" for number in numbers]),
        "label": pa.array([None if number % 7 == 0 else "abc"[number % 3] for number in numbers], pa.string()),
        "count": pa.array(numbers % 5, pa.int8(), mask=numbers >= 50),  # gaps only in the last files
        "whole": pa.array(numbers * 3, pa.int64()),
        "share": pa.array(np.where(numbers % 9 == 4, np.nan, np.sin(numbers)), pa.float32(), mask=numbers % 13 == 2),
        "flag": pa.array((numbers % 4 == 0).tolist(), pa.bool_()),
        "perhaps": pa.array([None if number == 59 else bool(number % 2) for number in numbers], pa.bool_()),
        "nothing": pa.nulls(ROWS, pa.string()),
    }


EXPECTATIONS: list[tuple[str, dict[str, Any]]] = [
    ("expect_table_row_count_to_be_between", {"min_value": 60, "max_value": 61}),
    ("expect_table_row_count_to_equal", {"value": 59}),
    ("expect_table_column_count_to_equal", {"value": 13}),
    ("expect_table_columns_to_match_set", {"column_set": ["id", "made"], "exact_match": False}),
    ("expect_column_to_exist", {"column": "share"}),
    *(
        ("expect_column_values_to_be_unique", {"column": column})
        for column in ("id", "key", "word", "whole", "share", "nothing", "made")
    ),
    ("expect_compound_columns_to_be_unique", {"column_list": ["key", "label"]}),
    *(
        ("expect_compound_columns_to_be_unique", {"column_list": ["word", "label"], "ignore_row_if": condition})
        for condition in ("all_values_are_missing", "any_value_is_missing", "never")
    ),
    ("expect_compound_columns_to_be_unique", {"column_list": ["count", "share"]}),
    ("expect_select_column_values_to_be_unique_within_record", {"column_list": ["word", "label"]}),
    *(
        ("expect_column_values_to_not_be_null", {"column": column, "mostly": 0.9})
        for column in ("key", "word", "share", "count", "made", "nothing")
    ),
    *(
        ("expect_column_values_to_be_null", {"column": column, "mostly": 0.5})
        for column in ("label", "nothing", "perhaps")
    ),
    ("expect_column_values_to_be_in_set", {"column": "label", "value_set": ["a", "b"]}),
    ("expect_column_values_to_be_in_set", {"column": "count", "value_set": [0, 1, 2, 3], "mostly": 0.8}),
    ("expect_column_values_to_be_in_set", {"column": "perhaps", "value_set": [True]}),
    ("expect_column_values_to_not_be_in_set", {"column": "word", "value_set": ["a1", ""]}),
    ("expect_column_values_to_be_between", {"column": "share", "min_value": -0.5, "max_value": 0.9}),
    ("expect_column_values_to_be_between", {"column": "count", "max_value": 3, "strict_max": True}),
    ("expect_column_values_to_be_between", {"column": "made", "max_value": 10}),
    ("expect_column_values_to_match_regex", {"column": "word", "regex": "^[a-z]"}),
    ("expect_column_values_to_not_match_regex", {"column": "word", "regex": "\\d"}),
    ("expect_column_values_to_match_regex_list", {"column": "word", "regex_list": ["W", "1"], "match_on": "any"}),
    ("expect_column_values_to_not_match_regex_list", {"column": "word", "regex_list": ["W", "1"]}),
    ("expect_column_values_to_match_strftime_format", {"column": "day", "strftime_format": "%Y-%m-%d"}),
    ("expect_column_values_to_be_dateutil_parseable", {"column": "word"}),
    ("expect_column_values_to_be_json_parseable", {"column": "word"}),
    ("expect_column_values_to_match_json_schema", {"column": "json", "json_schema": {"type": "object"}}),
    ("expect_column_value_lengths_to_be_between", {"column": "word", "min_value": 1, "max_value": 7}),
    ("expect_column_value_lengths_to_equal", {"column": "key", "value": 4}),
    *(
        ("expect_column_values_to_be_of_type", {"column": column, "type_": kind})
        for column, kind in (
            ("count", "float64"),
            ("whole", "int64"),
            ("word", "str"),
            ("flag", "bool"),
            ("perhaps", "bool"),
        )
    ),
    ("expect_column_values_to_be_in_type_list", {"column": "share", "type_list": ["float32", "float64"]}),
    ("expect_column_values_to_be_increasing", {"column": "whole"}),
    ("expect_column_values_to_be_decreasing", {"column": "count"}),
    ("expect_column_value_z_scores_to_be_less_than", {"column": "whole", "threshold": 1.5, "double_sided": True}),
    *(
        ("expect_column_unique_value_count_to_be_between", {"column": column, "min_value": 2, "max_value": 5})
        for column in ("label", "count", "share", "nothing")
    ),
    ("expect_column_proportion_of_unique_values_to_be_between", {"column": "key", "min_value": 0.9}),
    *(
        ("expect_column_distinct_values_to_be_in_set", {"column": column, "value_set": ["a", "b", "c"]})
        for column in ("label", "word")
    ),
    ("expect_column_distinct_values_to_contain_set", {"column": "label", "value_set": ["a", "z"]}),
    ("expect_column_distinct_values_to_equal_set", {"column": "count", "value_set": [0, 1, 2, 3, 4]}),
    ("expect_column_most_common_value_to_be_in_set", {"column": "label", "value_set": ["a"]}),
    *(
        (f"expect_column_{statistic}_to_be_between", {"column": column, "min_value": 0, "max_value": 60})
        for statistic in ("max", "min", "mean", "median", "sum", "stdev")
        for column in ("share", "count", "made")
    ),
    (
        "expect_column_quantile_values_to_be_between",
        {"column": "share", "quantile_ranges": {"quantiles": [0.1, 0.9], "value_ranges": [[-2, 0], [0, 0.5]]}},
    ),
    (
        "expect_column_kl_divergence_to_be_less_than",
        {
            "column": "label",
            "partition_object": {"values": ["a", "b", "c"], "weights": [0.4, 0.3, 0.3]},
            "threshold": 0.01,
        },
    ),
    ("expect_column_pair_values_to_be_equal", {"column_A": "word", "column_B": "label"}),
    ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "whole", "column_B": "made", "or_equal": True}),
    (
        "expect_column_pair_values_to_be_in_set",
        {"column_A": "label", "column_B": "count", "value_pairs_set": [["a", 0], ["b", 1]]},
    ),
    ("expect_multicolumn_sum_to_equal", {"column_list": ["whole", "made"], "sum_total": 10}),
    *(
        (name, {**arguments, "row_condition": condition, "condition_parser": "pandas"})
        for condition in (
            "whole > 30",
            'label == "a"',
            "made < 50 and flag",
            "whole.rank() > 30",
            "share > share.mean()",
        )
        for name, arguments in (
            ("expect_column_values_to_be_unique", {"column": "key"}),
            ("expect_column_values_to_be_between", {"column": "share", "max_value": 0.2}),
            ("expect_table_row_count_to_be_between", {"max_value": 20}),
            ("expect_column_distinct_values_to_be_in_set", {"column": "word", "value_set": ["a1"]}),
            ("expect_column_values_to_not_be_null", {"column": "label"}),
        )
    ),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, GatedRows]:
    """The rows as one frame, and in five files of which two form one part."""
    folder, table = tmp_path_factory.mktemp("rows"), pa.table(columns())
    files, counts = [], []
    for first in range(0, ROWS, ROWS_PER_FILE):
        files.append(folder / f"part{first:02d}.parquet")
        pq.write_table(table.slice(first, ROWS_PER_FILE), files[-1])
        counts.append(min(ROWS_PER_FILE, ROWS - first))
    made_frame = pd.DataFrame({"made": np.arange(ROWS) % 17})
    frame = pd.DataFrame({name: pd.Series(column.to_pylist(), dtype=object) for name, column in columns().items()})
    kind: Any
    for name, kind in (("count", float), ("whole", "int64"), ("share", "float32"), ("flag", bool)):
        frame[name] = frame[name].astype(kind)
    frame["made"] = made_frame["made"]
    return frame, GatedRows(StoredRows(tuple(files), tuple(counts)), tuple(columns()), made_frame, rows_at_once=20)


def results_of(rows: pd.DataFrame | GatedRows, expectations: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """The results of Great Expectations for each expectation; for a frame, with its own engine."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas("rows").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    )
    result_format = {
        "result_format": "SUMMARY",
        "unexpected_index_column_names": ["id"],
        "partial_unexpected_count": 4,
        "return_unexpected_index_query": False,
    }
    results = []
    for name, arguments in expectations:
        expectation = get_expectation_impl(name)(**arguments)
        if isinstance(rows, GatedRows):
            with engine_over(rows) as parameters:
                result = batch.get_batch(dict(parameters)).validate(expectation, result_format=result_format)
        else:
            result = batch.get_batch({"dataframe": rows}).validate(expectation, result_format=result_format)
        messages = re.findall(r'"exception_message": "([^"]*)', json.dumps(result.exception_info, default=str))
        results.append(
            (name, arguments, result.success, json.loads(json.dumps(result.to_json_dict()["result"])), messages)
        )
    return results


@pytest.fixture(scope="module")
def results(both: tuple[pd.DataFrame, GatedRows]) -> list[Any]:
    """The result of each expectation over the rows on disk."""
    return results_of(both[1], EXPECTATIONS)


@pytest.mark.slow
def test_every_result_is_that_of_one_frame_in_memory(both: tuple[pd.DataFrame, GatedRows], results: list[Any]) -> None:
    """Success, counts, shares, values and rows of a hundred expectations are those of the whole frame."""
    for of_frame, on_disk in zip(results_of(both[0], EXPECTATIONS), results, strict=True):
        assert on_disk == of_frame


@pytest.mark.slow
def test_the_hundred_expectations_pass_and_fail_without_errors(results: list[Any]) -> None:
    """Some pass, some fail, and none raises an error."""
    assert len(results) > 100 and {success for _, _, success, _, _ in results} == {True, False}
    assert [result for result in results if result[4]] == []


def test_a_folder_named_like_a_glob_pattern_is_read_literally(tmp_path: Path) -> None:
    """The rows of `w[1]` are read and not those of `w1`; a wrong number of rows is an error."""
    for name, ids in (("w[1]", ["a", "a", "b"]), ("w1", ["a", "b", "c"])):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"id": ids}), tmp_path / name / "rows.parquet")
    path = tmp_path / "w[1]" / "rows.parquet"
    nothing = pd.DataFrame(index=pd.RangeIndex(3))
    assert GatedRows(StoredRows((path,), (3,)), ("id",), nothing).repeated(["id"]).tolist() == [True, True, False]
    with pytest.raises(IncompleteGeneration, match="has 3 rows instead of 4"):
        GatedRows(StoredRows((path,), (4,)), ("id",), nothing).repeated(["id"])


@pytest.mark.slow
def test_parts_have_the_column_types_of_all_rows(both: tuple[pd.DataFrame, GatedRows]) -> None:
    """A part without gaps has the type of a column with gaps elsewhere, and single rows can be read."""
    frame, rows = both
    assert rows.columns == list(frame.columns)
    for part in [rows.empty, *rows.parts(rows.columns), rows.read(rows.columns)]:
        assert part.dtypes.to_dict() == frame.dtypes.to_dict()
    pd.testing.assert_frame_equal(rows.read(rows.columns), frame)
    pd.testing.assert_frame_equal(rows.at([0, 27, 59], ["key", "made"]), frame.loc[[0, 27, 59], ["key", "made"]])
    assert rows.at([], ["key"]).empty


MEASURE = """
import resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from pathlib import Path
from seedling.gates.checking import check
from seedling.gates.on_disk import GatedRows, StoredRows
import pandas as pd, great_expectations, seedling.gates.engine, duckdb
folder, rows = Path(sys.argv[1]), int(sys.argv[2])
for part in range(rows // 100_000):
    ids = [f"{part * 100_000 + one:032x}" for one in range(100_000)]
    pq.write_table(pa.table({"id": ids, "recipe": ids, "split": ["train"] * 100_000}), folder / f"{part}.parquet")
    del ids
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files = tuple(folder / f"{part}.parquet" for part in range(rows // 100_000))
stored = StoredRows(files, (100_000,) * len(files))
seen = GatedRows(stored, ("id", "recipe", "split"), pd.DataFrame({"made_from_held_out_row": np.zeros(rows, bool)}))
gates = {"augment": [("expect_column_values_to_match_regex", {"column": "recipe", "regex": "^[0-9a-f]+$"})]}
checks = check("augment", seen, gates, folder / "documents")
assert all(one.passed for one in checks) and len(checks) == 3
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_the_whole_frame_is_never_in_memory(tmp_path: Path) -> None:
    """A million rows with two long texts take 180 MB as Python objects; a gate on both needs less than half."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), "1000000"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert float(done.stdout.split()[-1]) < 90
