"""Great Expectations' pandas engine for rows on disk. It loads only the rows and columns that a metric needs.

Great Expectations' own pandas code computes every result. Metrics of single rows run on one part at a time, DuckDB
finds missing and repeated values, and any other metric gets all values of the columns that it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from great_expectations.datasource.fluent import PandasDatasource
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.pandas_batch_data import PandasBatchData
from great_expectations.expectations.registry import get_metric_provider

from seedling.gates import limited_patterns  # registers its metrics in place of Great Expectations' own
from seedling.gates.on_disk import GatedRows

ROW_COUNT = "table.row_count"
SCHEMA_METRICS = {"table.columns", "table.column_types", "table.column_count"}
SINGLE_ROW_METRICS = {
    *(
        f"column_values.{name}.condition"
        for name in (
            "between",
            "dateutil_parseable",
            "in_set",
            "json_parseable",
            "match_json_schema",
            "match_regex",
            "match_regex_list",
            "match_strftime_format",
            "nonnull",
            "not_in_set",
            "not_match_regex",
            "not_match_regex_list",
            "null",
            "value_length.between",
            "value_length.equals",
        )
    ),
    "column_values.value_length.map",
    *(f"column_pair_values.{name}.condition" for name in ("a_greater_than_b", "equal", "in_set")),
}
DISTINCT_VALUE_METRICS = ("column.distinct_values", "column.max", "column.min")
UNIQUE_METRICS = {"column_values.unique.condition", "compound_columns.unique.condition"}
MAX_CACHED_VALUES = 10_000  # distinct values of a column
NON_NULL_METRIC = "column_values.nonnull.condition"
EXAMPLE_SUFFIXES = (".unexpected_values", ".unexpected_rows", ".unexpected_index_list")

Metrics = dict[Any, Any]


class _CurrentFrame(PandasBatchData):  # type: ignore[misc]
    """Batch data whose frame is the one that the engine loads for the current metric."""

    @property
    def dataframe(self) -> pd.DataFrame:
        frame: pd.DataFrame = self.execution_engine.load_frame()
        return frame


class OnDiskEngine(PandasExecutionEngine):  # type: ignore[misc]
    """The engine for `rows`."""

    rows: ClassVar[GatedRows]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(caching=False, **arguments)  # the same metric is computed on different parts
        self._distinct_values: dict[tuple[str, ...], pd.DataFrame] = {}
        self.load_frame: Callable[[], pd.DataFrame] = lambda: self.rows.empty

    def get_batch_data_and_markers(self, batch_spec: Any) -> tuple[Any, Any]:
        """Return a batch that calls `load_frame` whenever its frame is used."""
        data, markers = super().get_batch_data_and_markers(batch_spec)
        return _CurrentFrame(self, data.dataframe), markers

    def resolve_metrics(
        self, metrics_to_resolve: Iterable[Any], metrics: Metrics | None = None, runtime_configuration: Any = None
    ) -> Metrics:
        """Compute the metrics one after the other, each on the rows that it needs."""
        results: Metrics = {}
        for metric in metrics_to_resolve:

            def compute(load_frame: Callable[[], pd.DataFrame], available: Metrics, metric: Any = metric) -> Any:
                self.load_frame = load_frame
                inherited = super(OnDiskEngine, self).resolve_metrics
                return inherited([metric], available, runtime_configuration)[metric.id]

            results[metric.id] = self._resolve(metric, compute, {**(metrics or {}), **results})
        return results

    def _resolve(self, metric: Any, compute: Callable[..., Any], available: Metrics) -> Any:
        """Compute one metric.

        compute: calls Great Expectations' code on a frame; available: the results of the metrics that it depends on.
        """
        name, rows, columns = metric.metric_name, self.rows, self._columns(metric)
        row_condition = metric.metric_domain_kwargs.get("row_condition")
        if _needs_several_rows(row_condition) and name not in SCHEMA_METRICS:
            return compute(lambda: rows.read(columns), available)
        if name == ROW_COUNT and not row_condition:
            return len(rows)
        if name in SCHEMA_METRICS:
            return compute(lambda: rows.empty, available)
        if name in {NON_NULL_METRIC, *UNIQUE_METRICS} and not row_condition and rows.texts_on_disk(columns):
            _, *domain = compute(lambda: rows.empty, available)
            return self._unexpected_texts(metric, columns), *domain
        if name in SINGLE_ROW_METRICS:
            return self._resolve_by_parts(metric, compute, available, columns)
        if name.startswith(DISTINCT_VALUE_METRICS) and not row_condition:
            return compute(lambda: self._distinct(columns), available)
        if name.endswith(EXAMPLE_SUFFIXES):
            result_format = metric.metric_value_kwargs["result_format"]
            if result_format["result_format"] != "COMPLETE":
                return self._resolve_examples(metric, compute, available, columns)
        return compute(lambda: rows.read(columns), available)

    def _resolve_examples(
        self, metric: Any, compute: Callable[..., Any], available: Metrics, columns: list[str]
    ) -> Any:
        """Compute examples of unexpected rows on the first unexpected rows only."""
        condition_id = metric.metric_dependencies["unexpected_condition"].id
        condition, *domain = available[condition_id]
        limit = metric.metric_value_kwargs["result_format"]["partial_unexpected_count"]
        row_numbers = condition.index[condition.to_numpy(dtype=bool)][:limit]
        first = (pd.Series(True, index=row_numbers, dtype=bool), *domain)
        return compute(lambda: self.rows.at(row_numbers, columns), {**available, condition_id: first})

    def _distinct(self, columns: list[str]) -> pd.DataFrame:
        values = self._distinct_values.get(tuple(columns))
        if values is None:
            values = self.rows.distinct(columns)
            if len(values) <= MAX_CACHED_VALUES:  # several checks may use them; more values would take too much memory
                self._distinct_values[tuple(columns)] = values
        return values

    def _unexpected_texts(self, metric: Any, columns: list[str]) -> pd.Series:
        """Whether each row is unexpected, of the rows in the metric's domain: its text is missing, or is repeated."""
        if metric.metric_name == NON_NULL_METRIC:
            return pd.Series(self.rows.missing(columns, in_all=False))
        is_compound = "column_list" in metric.metric_domain_kwargs
        ignored = metric.metric_domain_kwargs.get("ignore_row_if", "never") if is_compound else "any_value_is_missing"
        repeated = self.rows.repeated(columns)
        if ignored == "never":
            return pd.Series(repeated)
        left_out = self.rows.missing(columns, in_all=ignored == "all_values_are_missing")
        unexpected = pd.Series(repeated[~left_out], index=np.flatnonzero(~left_out))
        return _with_range_index(unexpected, len(repeated))

    def _columns(self, metric: Any) -> list[str]:
        """The columns in the metric's domain, row condition or examples; all columns if they cannot be determined."""
        domain, values = metric.metric_domain_kwargs, metric.metric_value_kwargs
        names = {domain.get(key) for key in ("column", "column_A", "column_B")} | {*(domain.get("column_list") or ())}
        provider, _ = get_metric_provider(metric.metric_name, self)
        is_ours = metric.metric_name.startswith("column_values.own.") or (
            provider.__module__ == limited_patterns.__name__
        )
        if not any(names) or not (is_ours or provider.__module__.startswith("great_expectations.")):
            return self.rows.columns
        names |= {*((values.get("result_format") or {}).get("unexpected_index_column_names") or ())}
        names |= {*re.findall(r"\w+", str(domain.get("row_condition") or ""))}
        return [name for name in self.rows.columns if name in names]

    def _resolve_by_parts(
        self, metric: Any, compute: Callable[..., Any], available: Metrics, columns: list[str]
    ) -> Any:
        results, domain = [], []
        map_ids = [dependency.id for name, dependency in metric.metric_dependencies.items() if name.endswith(".map")]
        for part in self.rows.parts(columns):
            first, last = (part.index[0], part.index[-1]) if len(part) else (0, -1)
            sliced = {key: (available[key][0].loc[first:last], *available[key][1:]) for key in map_ids}
            result, *domain = compute(lambda part=part: part, {**available, **sliced})
            results.append(result)
        unexpected = results[0] if len(results) == 1 else pd.concat(results)
        return _with_range_index(unexpected, len(self.rows)), *domain


def _needs_several_rows(condition: Any) -> bool:
    """Whether a row condition in pandas' syntax may call a function of several rows."""
    text = condition.get("pass_through_filter") if isinstance(condition, dict) else condition
    text = getattr(text, "pass_through_filter", text)
    return isinstance(text, str) and re.search(r"[(\[@]", text) is not None


def _with_range_index(values: pd.Series, rows: int) -> pd.Series:
    """The values with a range index, which takes less memory, if no row is left out."""
    return values.set_axis(pd.RangeIndex(rows)) if len(values) == rows else values


@contextmanager
def engine_over(rows: GatedRows) -> Iterator[Mapping[str, pd.DataFrame]]:
    """Let Great Expectations' pandas sources use these rows within the block. Yields the batch parameters."""
    PandasDatasource.execution_engine_override = type("OnDiskEngine", (OnDiskEngine,), {"rows": rows})
    try:
        yield {"dataframe": rows.empty}
    finally:
        PandasDatasource.execution_engine_override = None
