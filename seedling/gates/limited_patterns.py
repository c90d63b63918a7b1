"""Great Expectations' metrics for regular expressions and JSON schemas in pandas, with a time limit per search.

If pandas passes a pattern to Arrow, whose engine runs in linear time, its result is used as it is. A JSON schema cannot
load another schema, because `$ref` could contain an internal address.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import referencing
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnMapMetricProvider,
    column_condition_partial,
)
from jsonschema import validators

from seedling.config.patterns import Pattern


def matches(column: pd.Series, pattern: str) -> pd.Series:
    """(n_rows,): whether the value contains a match of the pattern."""
    texts = column.astype(str)
    if _runs_in_arrow(texts, pattern):
        return texts.str.contains(pattern)
    limited = Pattern(pattern)
    return texts.map(lambda text: limited.search(text) is not None).astype(bool)


def _runs_in_arrow(texts: pd.Series, pattern: str) -> bool:
    """Whether pandas passes the pattern to Arrow's engine, and that engine accepts it."""
    needs_python = getattr(texts.array, "_needs_python_regex", None)  # pandas' own rule, if this version has one
    if needs_python is None or needs_python(pattern):
        return False
    try:
        pc.match_substring_regex(pa.array(["a"]), pattern)
    except pa.ArrowInvalid:
        return False
    return True


class MatchRegex(ColumnMapMetricProvider):  # type: ignore[misc]
    """`expect_column_values_to_match_regex`."""

    condition_metric_name = "column_values.match_regex"
    condition_value_keys = ("regex",)

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: Any, regex: str, **_: Any) -> Any:  # noqa: N805
        return matches(column, regex)


class NotMatchRegex(ColumnMapMetricProvider):  # type: ignore[misc]
    """`expect_column_values_to_not_match_regex`."""

    condition_metric_name = "column_values.not_match_regex"
    condition_value_keys = ("regex",)

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: Any, regex: str, **_: Any) -> Any:  # noqa: N805
        return ~matches(column, regex)


class MatchRegexList(ColumnMapMetricProvider):  # type: ignore[misc]
    """`expect_column_values_to_match_regex_list`."""

    condition_metric_name = "column_values.match_regex_list"
    condition_value_keys = ("regex_list", "match_on")
    default_kwarg_values = {"match_on": "any"}  # noqa: RUF012  (a plain dict, as in the base class)

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: Any, regex_list: list[str], match_on: str, **_: Any) -> Any:  # noqa: N805
        if match_on not in {"any", "all"}:
            raise ValueError("match_on must be either 'any' or 'all'")
        matched = pd.concat([matches(column, pattern) for pattern in regex_list], axis=1, ignore_index=True)
        return matched.any(axis="columns") if match_on == "any" else matched.all(axis="columns")


class NotMatchRegexList(ColumnMapMetricProvider):  # type: ignore[misc]
    """`expect_column_values_to_not_match_regex_list`."""

    condition_metric_name = "column_values.not_match_regex_list"
    condition_value_keys = ("regex_list",)

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: Any, regex_list: list[str], **_: Any) -> Any:  # noqa: N805
        matched = pd.concat([matches(column, pattern) for pattern in regex_list], axis=1, ignore_index=True)
        return ~matched.any(axis="columns")


class MatchJsonSchema(ColumnMapMetricProvider):  # type: ignore[misc]
    """`expect_column_values_to_match_json_schema`."""

    condition_metric_name = "column_values.match_json_schema"
    condition_value_keys = ("json_schema",)

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: Any, json_schema: Mapping[str, Any], **_: Any) -> Any:  # noqa: N805
        validator = limited_validator(json_schema)
        return column.map(lambda text: validator.is_valid(json.loads(text)))


def limited_validator(schema: Mapping[str, Any]) -> Any:
    """A jsonschema validator with a time limit per pattern, which does not load other schemas."""
    standard = validators.validator_for(schema)
    standard.check_schema(schema)
    limited = validators.extend(
        standard,
        {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
        },
    )
    return limited(schema, registry=referencing.Registry())


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[Any]:
    if isinstance(instance, str) and Pattern(pattern).search(instance) is None:
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, _: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        for pattern, subschema in patterns.items():
            limited = Pattern(pattern)
            for name, value in instance.items():
                if limited.search(name) is not None:
                    yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    limited = [Pattern(pattern) for pattern in schema.get("patternProperties", {})]
    for name, value in instance.items():
        if name in schema.get("properties", {}) or any(pattern.search(name) is not None for pattern in limited):
            continue
        if isinstance(allowed, dict):
            yield from validator.descend(value, allowed, path=name)
        elif not allowed:
            yield jsonschema.ValidationError(f"{name!r} is not a property of the schema")
