"""Great Expectations over rows that are on disk: its own engine for pandas, shown no more of them at a time than a metric needs.

Each decision is what Great Expectations' code for pandas says. What looks at a row by itself is asked a part at a time; values that
repeat are found by DuckDB; anything else is shown the columns that it names, whole.
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

OF_ROWS = "table.row_count"
OF_SCHEMA = {"table.columns", "table.column_types", "table.column_count"}
A_ROW_BY_ITSELF = {
    *(
        f"column_values.{one}.condition"
        for one in (
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
    *(f"column_pair_values.{one}.condition" for one in ("a_greater_than_b", "equal", "in_set")),
}
OF_DISTINCT_VALUES = ("column.distinct_values", "column.max", "column.min")
UNIQUE = {"column_values.unique.condition", "compound_columns.unique.condition"}
FEW = 10_000  # distinct values
PRESENT = "column_values.nonnull.condition"
EXAMPLES = (".unexpected_values", ".unexpected_rows", ".unexpected_index_list")

Metrics = dict[Any, Any]


class _Shown(PandasBatchData):  # type: ignore[misc]
    """The frame that the engine shows at this moment."""

    @property
    def dataframe(self) -> pd.DataFrame:
        return self.execution_engine.show()


class OnDisk(PandasExecutionEngine):  # type: ignore[misc]
    """The engine for `rows`."""

    rows: ClassVar[GatedRows]

    def __init__(self, **given: Any) -> None:
        super().__init__(caching=False, **given)  # what is asked twice is asked of other parts
        self._known_values: dict[tuple[str, ...], pd.DataFrame] = {}
        self.show: Callable[[], pd.DataFrame] = lambda: self.rows.empty

    def get_batch_data_and_markers(self, batch_spec: Any) -> tuple[Any, Any]:
        """The batch is what `show` gives, whenever it is looked at."""
        data, markers = super().get_batch_data_and_markers(batch_spec)
        return _Shown(self, data.dataframe), markers

    def resolve_metrics(
        self, metrics_to_resolve: Iterable[Any], metrics: Metrics | None = None, runtime_configuration: Any = None
    ) -> Metrics:
        """One metric after the other, each with what it is to be shown."""
        found: Metrics = {}
        for one in metrics_to_resolve:

            def ask(show: Callable[[], pd.DataFrame], known: Metrics, one: Any = one) -> Any:
                self.show = show
                return super(OnDisk, self).resolve_metrics([one], known, runtime_configuration)[one.id]

            found[one.id] = self._answer(one, ask, {**(metrics or {}), **found})
        return found

    def _answer(self, one: Any, ask: Callable[..., Any], known: Metrics) -> Any:
        name, rows, columns = one.metric_name, self.rows, self._columns(one)
        condition_on_rows = one.metric_domain_kwargs.get("row_condition")
        of_all_rows = not condition_on_rows
        if _of_many_rows(condition_on_rows) and name not in OF_SCHEMA:
            return ask(lambda: rows.read(columns), known)
        if name == OF_ROWS and of_all_rows:
            return len(rows)
        if name in OF_SCHEMA:
            return ask(lambda: rows.empty, known)
        if name in {PRESENT, *UNIQUE} and of_all_rows and rows.texts_on_disk(columns):
            _, *domain = ask(lambda: rows.empty, known)
            return self._of_texts(one, columns), *domain
        if name in A_ROW_BY_ITSELF:
            return self._by_parts(one, ask, known, columns)
        if name.startswith(OF_DISTINCT_VALUES) and of_all_rows:
            return ask(lambda: self._distinct(columns), known)
        if name.endswith(EXAMPLES) and one.metric_value_kwargs["result_format"]["result_format"] != "COMPLETE":
            wrong = one.metric_dependencies["unexpected_condition"].id
            condition, *domain = known[wrong]
            limit = one.metric_value_kwargs["result_format"]["partial_unexpected_count"]
            places = condition.index[condition.to_numpy(dtype=bool)][:limit]
            first = (pd.Series(True, index=places, dtype=bool), *domain)
            return ask(lambda: rows.at(places, columns), {**known, wrong: first})
        return ask(lambda: rows.read(columns), known)

    def _distinct(self, columns: list[str]) -> pd.DataFrame:
        found = self._known_values.get(tuple(columns))
        if found is None:
            found = self.rows.distinct(columns)
            if (
                len(found) <= FEW
            ):  # several checks ask for the values of a column of few; many are not worth their memory
                self._known_values[tuple(columns)] = found
        return found

    def _of_texts(self, one: Any, columns: list[str]) -> pd.Series:
        """The rows that are not as expected, of those that the metric is about: where a text is missing, or stands again."""
        if one.metric_name == PRESENT:
            return pd.Series(self.rows.missing(columns, in_all=False))
        several = "column_list" in one.metric_domain_kwargs
        ignored = one.metric_domain_kwargs.get("ignore_row_if", "never") if several else "any_value_is_missing"
        again = self.rows.repeated(columns)
        if ignored == "never":
            return pd.Series(again)
        left_out = self.rows.missing(columns, in_all=ignored == "all_values_are_missing")
        return _ranged(pd.Series(again[~left_out], index=np.flatnonzero(~left_out)), len(again))

    def _columns(self, one: Any) -> list[str]:
        """What the metric names, in its domain, its condition on rows or its examples; all where that cannot be told."""
        domain, values = one.metric_domain_kwargs, one.metric_value_kwargs
        named = {domain.get(key) for key in ("column", "column_A", "column_B")} | {*(domain.get("column_list") or ())}
        provider, _ = get_metric_provider(one.metric_name, self)
        ours = one.metric_name.startswith("column_values.own.") or provider.__module__ == limited_patterns.__name__
        if not any(named) or not (ours or provider.__module__.startswith("great_expectations.")):
            return self.rows.columns
        named |= {*((values.get("result_format") or {}).get("unexpected_index_column_names") or ())}
        named |= {*re.findall(r"\w+", str(domain.get("row_condition") or ""))}
        return [name for name in self.rows.columns if name in named]

    def _by_parts(self, one: Any, ask: Callable[..., Any], known: Metrics, columns: list[str]) -> Any:
        found, domain = [], []
        lengths = [known_id.id for name, known_id in one.metric_dependencies.items() if name.endswith(".map")]
        for part in self.rows.parts(columns):
            last = part.index[-1] if len(part) else -1
            sliced = {
                key: (known[key][0].loc[part.index[0] if len(part) else 0 : last], *known[key][1:]) for key in lengths
            }
            said, *domain = ask(lambda part=part: part, {**known, **sliced})
            found.append(said)
        return _ranged(found[0] if len(found) == 1 else pd.concat(found), len(self.rows)), *domain


def _of_many_rows(condition: Any) -> bool:
    """Whether a condition on rows, in pandas' words, may call what looks at more than one of them."""
    words = condition.get("pass_through_filter") if isinstance(condition, dict) else condition
    words = getattr(words, "pass_through_filter", words)
    return isinstance(words, str) and re.search(r"[(\[@]", words) is not None


def _ranged(values: pd.Series, rows: int) -> pd.Series:
    """With the lighter index where no row is left out."""
    return values.set_axis(pd.RangeIndex(rows)) if len(values) == rows else values


@contextmanager
def over(rows: GatedRows) -> Iterator[Mapping[str, pd.DataFrame]]:
    """Within the block Great Expectations' pandas sources are these rows; gives the parameters of the batch."""
    PandasDatasource.execution_engine_override = type("OnDisk", (OnDisk,), {"rows": rows})
    try:
        yield {"dataframe": rows.empty}
    finally:
        PandasDatasource.execution_engine_override = None
