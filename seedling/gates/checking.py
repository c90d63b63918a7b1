"""Run a stage's gate: from expectations to checks.

gates.yaml lists expectations per stage, by Great Expectations' names, with their arguments and a severity. The
`REQUIRED_EXPECTATIONS` run before them and cannot be switched off.
"""

from __future__ import annotations

import difflib
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.config.params import read_yaml
from seedling.dataset.generation import SPLITS
from seedling.errors import InputError
from seedling.gates.conditions import check_condition, check_patterns
from seedling.gates.on_disk import GatedRows
from seedling.gates.store import remove_damaged_store
from seedling.gates.user_expectations import UserExpectations, arguments_of, digest_of, import_user_expectations
from seedling.records.gate import Check, GateResult
from seedling.workspace import EXPECTATIONS_FILE, GATE, VALIDATION_RESULTS, Workspace

Expectations = Sequence[tuple[str, dict[str, Any]]]

UNIQUE_ID: Expectations = [("expect_column_values_to_be_unique", {"column": "id"})]
NO_HELD_OUT_PARENT: Expectations = [
    ("expect_column_values_to_be_in_set", {"column": "made_from_held_out_row", "value_set": [False]})
]
REQUIRED_EXPECTATIONS: dict[str, Expectations] = {
    "scrape": [("expect_compound_columns_to_be_unique", {"column_list": ["id", "origin"]})],
    "validate": [
        *UNIQUE_ID,
        ("expect_column_values_to_be_in_set", {"column": "near_duplicate_held_out_elsewhere", "value_set": [False]}),
    ],
    "augment": [*UNIQUE_ID, *NO_HELD_OUT_PARENT],
    "synthesize": [*UNIQUE_ID, *NO_HELD_OUT_PARENT],
    "pseudo_label": [*UNIQUE_ID, *NO_HELD_OUT_PARENT],
    "train": UNIQUE_ID,
    "evaluate": UNIQUE_ID,
}
STAGES_WITHOUT_ROWS = {"augment", "synthesize", "pseudo_label"}  # these may produce no rows
REASON_MEANINGS = {"unknown_split": f" (a split is {', '.join(SPLITS)}, or empty)"}
NOT_EVALUATED = "could not be evaluated"
MAX_ROW_IDS = 5  # unexpected rows per check
MAX_EXAMPLES = 3  # unexpected values per check
_one_at_a_time = threading.Lock()


def load_gates(workspace: Path) -> dict[str, Expectations]:
    """Read gates.yaml. Raises InputError that names an unknown stage, or an entry that is not an expectation."""
    path = Workspace(workspace).gates_file
    lists = read_yaml(path) or {}
    gates: dict[str, Expectations] = {}
    for stage, entries in lists.items():
        if stage not in REQUIRED_EXPECTATIONS:
            raise InputError(f"{path}: '{stage}' is not a stage. Use one of {', '.join(REQUIRED_EXPECTATIONS)}.")
        expectations = []
        for entry in entries or []:
            if not isinstance(entry, dict) or len(entry) != 1:
                raise InputError(f"{path}: {stage}: write `- expect_…: {{column: …}}`, not {entry!r}.")
            ((name, arguments),) = entry.items()
            if isinstance(arguments, dict):
                check_condition(arguments.get("row_condition"), f"{path}: {stage}: {name}")
                check_patterns(arguments, f"{path}: {stage}: {name}")
            expectations.append((str(name), dict(arguments or {})))
        gates[stage] = expectations
    return gates


def columns_in_gate(stage: str, gates: Mapping[str, Expectations]) -> set[str]:
    """The names in the stage's gate: its columns, and the words of its row conditions."""
    kind, names = stage.partition("@")[0], set[str]()
    for _, arguments in [*REQUIRED_EXPECTATIONS[kind], *gates.get(kind, [])]:
        columns = [arguments.get(key) for key in ("column", "column_A", "column_B")]
        names |= {str(column) for column in [*columns, *(arguments.get("column_list") or [])] if column is not None}
        names |= {*re.findall(r"\w+", str(arguments.get("row_condition") or ""))}
    return names


def check(
    stage: str,
    rows: GatedRows,
    gates: Mapping[str, Expectations],
    documents: Path,
    user: UserExpectations | None = None,
    columns: Sequence[str] = (),
) -> list[Check]:
    """Run the stage's gate over its rows. The results also go to Great Expectations' own stores below `documents`.

    user: the workspace's own expectations; columns: names that a gate may use besides the columns of `rows`, for the
    error message.

    Raises InputError for an unknown expectation, or for arguments that the expectation does not accept.
    """
    kind = stage.partition("@")[0]
    required = [(name, {**arguments, "severity": "critical"}) for name, arguments in REQUIRED_EXPECTATIONS[kind]]
    entries = [*required, *gates.get(kind, [])]
    _check_columns(kind, entries, rows, columns)
    user = user or UserExpectations()
    with _one_at_a_time:  # also the import: threads that import the package's circular modules at once see partial ones
        for name, function in user.functions.items():
            _register(name, function)
        expectations = [_expectation(kind, *entry) for entry in entries]
        try:
            results = _run(stage, expectations, rows, documents)
        except Exception:
            if not remove_damaged_store(documents / VALIDATION_RESULTS):
                raise
            results = _run(stage, [_expectation(kind, *entry) for entry in entries], rows, documents)
    checks = [
        _as_check(name, arguments, result, user.digest if user.defines(name) else None)
        for (name, arguments), result in zip(entries, results, strict=True)
    ]
    is_empty = not len(rows) and kind in STAGES_WITHOUT_ROWS
    return [_pass_without_values(result) if is_empty else result for result in checks]


def _pass_without_values(result: Check) -> Check:
    """Pass a check of values if the stage produced no rows. Checks of the number of rows stay as they are."""
    about_values = "column" in result.arguments or "column_list" in result.arguments
    return result.model_copy(update={"passed": True, "observed": "there are no rows"}) if about_values else result


def load_user_expectations(workspace: Path, gates: Mapping[str, Expectations]) -> UserExpectations:
    """Load the workspace's own expectations if the gates name one.

    Only one stage at a time imports them, and with them Great Expectations.
    """
    with _one_at_a_time:
        return import_user_expectations(workspace, [name for entries in gates.values() for name, _ in entries])


def user_expectations_changed(workspace: Path, folder: Path) -> bool:
    """Whether the user's expectations have changed since the gate of the generation in `folder` ran."""
    path, digest = folder / GATE, digest_of(workspace)
    checks = GateResult.read(path).checks if path.is_file() else ()
    return any(result.source not in {None, digest} for result in checks)


def _check_columns(kind: str, entries: Expectations, rows: GatedRows, columns: Sequence[str]) -> None:
    available = list(dict.fromkeys([*rows.columns, *columns]))
    for name, arguments in entries:
        for column in [*map(arguments.get, ("column", "column_A", "column_B")), *(arguments.get("column_list") or [])]:
            if column is not None and column not in rows.columns and name != "expect_column_to_exist":
                raise InputError(
                    f"gates.yaml: {kind}: {name}: there is no column '{column}'{_hint(str(column), available)}; "
                    f"there are {', '.join(available)}."
                )


def _hint(name: str, available: Sequence[str]) -> str:
    """The most similar available name as a question, or an empty string."""
    similar = difflib.get_close_matches(name, available, n=1)
    return f" (did you mean '{similar[0]}'?)" if similar else ""


def _expectation(kind: str, name: str, arguments: Mapping[str, Any]) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    try:
        expectation_class = get_expectation_impl(name)
    except ExpectationNotFoundError as error:
        hint = _hint(name, list_registered_expectation_implementations())
        raise InputError(
            f"gates.yaml: {kind}: neither Great Expectations nor {EXPECTATIONS_FILE} has '{name}'{hint}."
        ) from error
    try:
        return expectation_class(**{"severity": "critical", **arguments})
    except (ValueError, TypeError) as error:
        raise InputError(f"gates.yaml: {kind}: {name}: {_short_message(error)}") from error


def _register(name: str, function: Callable[..., Any]) -> None:
    """Register a user's function of a column's values as an expectation of Great Expectations."""
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import ColumnMapExpectation
    from great_expectations.expectations.metrics import ColumnMapMetricProvider, column_condition_partial

    parameters, metric = arguments_of(function), f"column_values.own.{name}"

    def condition(cls: type, column: Any, **arguments: Any) -> Any:
        passed = {parameter: arguments[parameter] for parameter in parameters if arguments.get(parameter) is not None}
        return _boolean_series(name, function(column, **passed), column)

    metric_attributes: dict[str, Any] = {"condition_metric_name": metric, "condition_value_keys": parameters}
    metric_attributes["_pandas"] = column_condition_partial(engine=PandasExecutionEngine)(condition)
    type(ColumnMapMetricProvider)(f"Metric_{name}", (ColumnMapMetricProvider,), metric_attributes)
    expectation_attributes: dict[str, Any] = {
        **dict.fromkeys(parameters),
        "__annotations__": dict.fromkeys(parameters, Any),
        "__module__": __name__,
        "__doc__": function.__doc__,
        "map_metric": metric,
        "success_keys": ("mostly", *parameters),
        "args_keys": ("column", *parameters),
    }
    title = "".join(part.title() for part in name.split("_"))
    type(ColumnMapExpectation)(title, (ColumnMapExpectation,), expectation_attributes)


def _boolean_series(name: str, returned: Any, column: Any) -> Any:
    """The function's result as booleans. Raises TypeError unless it is one boolean per value of the column."""
    if np.ndim(returned) == 0 or len(returned) != len(column):
        result = f"{len(returned)} results" if np.ndim(returned) else f"{returned!r}"
        raise TypeError(f"{name} returned {result} for {len(column)} values: it must return one boolean per value")
    values = np.asarray(returned, dtype=object)
    if not all(isinstance(value, bool | np.bool_) for value in values):
        raise TypeError(f"{name} returned values that are not booleans: it must return one boolean per value")
    return pd.Series(values.astype(bool), index=column.index)


def _short_message(error: Exception) -> str:
    """Pydantic's message per argument, once, without the names of its inner types."""
    if not hasattr(error, "errors"):
        return str(error)
    messages = {".".join(str(step) for step in entry["loc"]): entry["msg"] for entry in reversed(error.errors())}
    return "; ".join(
        message if location == "__root__" else f"'{location}': {message}" for location, message in messages.items()
    )


def _run(stage: str, expectations: list[Any], rows: GatedRows, documents: Path) -> list[Any]:
    """Great Expectations' results, in the order of the expectations."""
    import great_expectations as gx

    from seedling.gates.engine import engine_over

    context = _context(documents)
    # Each run would add its results to those of earlier runs.
    shutil.rmtree(documents / VALIDATION_RESULTS / "uncommitted" / "validations" / stage, ignore_errors=True)
    source = context.data_sources.add_or_update_pandas(f"seedling {stage}")
    batch = source.add_dataframe_asset(stage).add_batch_definition_whole_dataframe("rows")
    suite = context.suites.add_or_update(gx.ExpectationSuite(name=stage, expectations=expectations))
    definition = gx.ValidationDefinition(name=stage, data=batch, suite=suite)
    result_format = {
        "result_format": "SUMMARY",
        "unexpected_index_column_names": ["id"],
        "partial_unexpected_count": MAX_ROW_IDS,
        "return_unexpected_index_query": False,
    }
    definition = context.validation_definitions.add_or_update(definition)
    with engine_over(rows) as parameters:
        results = definition.run(batch_parameters=dict(parameters), result_format=result_format)
    # Great Expectations returns sorted results; each contains the arguments of its expectation.
    remaining, ordered = list(results.results), []
    for expectation in suite.expectations:
        match = next(result for result in remaining if _same(result.expectation_config, expectation.configuration))
        remaining.remove(match)
        ordered.append(match)
    return ordered


def _same(configuration: Any, other: Any) -> bool:
    def arguments(configuration: Any) -> dict[str, Any]:
        return {key: value for key, value in configuration.kwargs.items() if key != "batch_id"}

    return bool(configuration.type == other.type and arguments(configuration) == arguments(other))


def _context(documents: Path) -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    documents.mkdir(parents=True, exist_ok=True)
    context = gx.get_context(mode="file", project_root_dir=str(documents))
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _as_check(name: str, arguments: Mapping[str, Any], result: Any, source: str | None) -> Check:
    details = result.result or {}
    index = details.get("partial_unexpected_index_list") or []
    ids = [str(entry["id"]) for entry in index if isinstance(entry, dict) and "id" in entry]
    return Check(
        expectation=name,
        arguments={key: value for key, value in arguments.items() if key != "severity"},
        severity=str(arguments.get("severity", "critical")),
        passed=bool(result.success),
        observed=_observed(details, result.exception_info or {}),
        rows=tuple(ids[:MAX_ROW_IDS]),
        source=source,
    )


def _observed(details: Mapping[str, Any], exception_info: Mapping[str, Any]) -> str:
    """The observed value, the missing values, or the number of unexpected rows with examples, as text."""
    if raised := _exception_message(exception_info):
        return f"{NOT_EVALUATED}: {raised}"
    if details.get("observed_value") is not None:
        return str(_plain(details["observed_value"]))
    if "partial_missing_list" in details or "missing_list" in details:
        missing = details.get("partial_missing_list") or details.get("missing_list") or []
        return f"in no row: {', '.join(sorted(map(str, missing)))}" if missing else "each value is in a row"
    observed = f"{details.get('unexpected_count', 0)} of {details.get('element_count', 0)} rows unexpected"
    if examples := details.get("partial_unexpected_list"):
        values = dict.fromkeys(str(_plain(example)) for example in examples[:MAX_EXAMPLES])
        observed += f", such as {', '.join(values)}"
    return observed


def _exception_message(information: Mapping[str, Any]) -> str | None:
    """The error of the evaluation: of the expectation, or of the first failing metric that it needs."""
    for entry in [information, *information.values()]:
        if isinstance(entry, Mapping) and entry.get("exception_message"):
            # The first error of the traceback comes from the user's code, without Great Expectations' wrapping.
            traceback = str(entry.get("exception_traceback") or "")
            errors = re.findall(r"^\w+: .*$", traceback, flags=re.MULTILINE)
            return errors[0] if errors else str(entry["exception_message"])
    return None


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return round(value, 6) if isinstance(value, float) else value


def write_checks(checks: Sequence[Check], folder: Path) -> None:
    """Write gate.json into the generation, without the checks that compare with the previous generation.

    Those checks are not a function of the stage's inputs.
    """
    GateResult(checks=tuple(result for result in checks if not result.is_relative)).write(folder / GATE)


def write_comparisons(checks: Sequence[Check], workspace: Path, stage: str) -> None:
    """Write the checks that compare with the previous generation outside of the generations."""
    relative = tuple(result for result in checks if result.is_relative)
    GateResult(checks=relative).write(comparisons_path(workspace, stage))


def read_checks(workspace: Path, stage: str, folder: Path) -> list[Check]:
    """Read the checks of the stage with the output `folder`; an empty list if it has not run."""
    files = [folder / GATE, comparisons_path(workspace, stage)]
    return [result for file in files if file.is_file() for result in GateResult.read(file).checks]


def comparisons_path(workspace: Path, stage: str) -> Path:
    """The file of the checks that compare a stage's rows with the previous generation."""
    return Workspace(workspace).gate_comparisons(stage)


def explain(
    stage: str, checks: Sequence[Check], quarantine: Path, page: Path | None, rejected: Mapping[str, int] | None = None
) -> str:
    """The message of a failed gate: expectation, observed value, limit, rows, quarantine folder, and how to fix it.

    page: the page of all gates, if it was written; rejected: reason → number of rows that the stage rejected before the
    gate.
    """
    lines = [f"The gate of stage '{stage}' failed."]
    failed = [result for result in checks if result.stops]
    evaluated = {not result.observed.startswith(NOT_EVALUATED) for result in failed}
    for result in failed:
        if result.observed.startswith(NOT_EVALUATED):
            lines.append(f"  {result.expectation}: {result.observed} ({result.limit}).")
        else:
            lines.append(f"  {result.expectation}: observed {result.observed}; expected {result.limit}.")
        if result.rows:
            lines.append(f"    rows: {', '.join(result.rows)} (`seedling why ID` explains a row)")
    if rejected:
        most_common = sorted(rejected.items(), key=lambda item: -item[1])
        counts = (f"{rows:,} as {reason}{REASON_MEANINGS.get(reason, '')}" for reason, rows in most_common)
        lines.append(f"  Rejected before the gate: {', '.join(counts)}.")
    lines.append(f"  The rows are in {quarantine}; nothing was recorded.")
    if page is not None:
        lines.append(f"  All gates and their history: {page}.")
    if False in evaluated:
        lines.append("  Fix the expectations that could not be evaluated, in gates.yaml or expectations.py.")
    if True in evaluated:
        lines.append("  Fix the data, or change the limit in gates.yaml, and run again.")
    return "\n".join(lines)
