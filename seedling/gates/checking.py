"""Asking a stage's gate: expectations in, checks out.

gates.yaml lists, a stage, expectations by Great Expectations' own names with their own arguments and a severity.
The gates in ALWAYS stand before them and cannot be switched off.
"""

from __future__ import annotations

import difflib
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.config.params import read_yaml
from seedling.dataset.generation import SPLITS, write_json
from seedling.errors import InputError
from seedling.files.reading import read_json
from seedling.gates.columns import RELATIVE
from seedling.gates.conditions import check_condition, check_patterns
from seedling.gates.on_disk import GatedRows
from seedling.gates.store import remove_damaged_store
from seedling.gates.user_expectations import FILE as OWN_FILE
from seedling.gates.user_expectations import Own, arguments_of, digest_of, own_expectations

Expectations = Sequence[tuple[str, dict[str, Any]]]

UNIQUE: Expectations = [("expect_column_values_to_be_unique", {"column": "id"})]
NO_HELD_OUT_PARENT: Expectations = [
    ("expect_column_values_to_be_in_set", {"column": "made_from_held_out_row", "value_set": [False]})
]
ALWAYS: dict[str, Expectations] = {
    "scrape": [("expect_compound_columns_to_be_unique", {"column_list": ["id", "origin"]})],
    "validate": [
        *UNIQUE,
        ("expect_column_values_to_be_in_set", {"column": "near_duplicate_held_out_elsewhere", "value_set": [False]}),
    ],
    "augment": [*UNIQUE, *NO_HELD_OUT_PARENT],
    "synthesize": [*UNIQUE, *NO_HELD_OUT_PARENT],
    "pseudo_label": [*UNIQUE, *NO_HELD_OUT_PARENT],
    "train": UNIQUE,
    "evaluate": UNIQUE,
}
GATE = "gate.json"
MAY_MAKE_NOTHING = {"augment", "synthesize", "pseudo_label"}
MEANINGS = {"unknown_split": f" (a split is {', '.join(SPLITS)}, or empty)"}
UNJUDGED = "could not be judged"
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation's result. `rows` are up to five ids of unexpected rows; `source` is a hash of the user's file where the expectation
    is written there.
    """

    expectation: str
    arguments: dict[str, Any]
    severity: str
    passed: bool
    observed: str
    rows: list[str]
    source: str | None = None

    @property
    def stops(self) -> bool:
        """Whether it stops the line."""
        return not self.passed and self.severity == "critical"

    @property
    def compares(self) -> bool:
        """Whether it compares with the generation before."""
        return self.arguments.get("column") in RELATIVE

    @property
    def limit(self) -> str:
        """The arguments in words: what was expected."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


def load_gates(workspace: Path) -> dict[str, Expectations]:
    """gates.yaml. Raises InputError that names an unknown stage, or an entry that is no expectation."""
    path = workspace / "gates.yaml"
    lists = read_yaml(path) or {}
    gates: dict[str, Expectations] = {}
    for stage, entries in lists.items():
        if stage not in ALWAYS:
            raise InputError(f"{path}: '{stage}' is no stage: the stages are {', '.join(ALWAYS)}.")
        found = []
        for entry in entries or []:
            if not isinstance(entry, dict) or len(entry) != 1:
                raise InputError(f"{path}: {stage}: write `- expect_…: {{column: …}}`, not {entry!r}.")
            ((name, arguments),) = entry.items()
            if isinstance(arguments, dict):
                check_condition(arguments.get("row_condition"), f"{path}: {stage}: {name}")
                check_patterns(arguments, f"{path}: {stage}: {name}")
            found.append((str(name), dict(arguments or {})))
        gates[stage] = found
    return gates


def wanted_columns(stage: str, gates: Mapping[str, Expectations]) -> set[str]:
    """What the stage's gate names: columns, and the words of its conditions on rows."""
    kind, found = stage.partition("@")[0], set[str]()
    for _, arguments in [*ALWAYS[kind], *gates.get(kind, [])]:
        named = [arguments.get(key) for key in ("column", "column_A", "column_B")]
        found |= {str(one) for one in [*named, *(arguments.get("column_list") or [])] if one is not None}
        found |= {*re.findall(r"\w+", str(arguments.get("row_condition") or ""))}
    return found


def check(
    stage: str,
    rows: GatedRows,
    gates: Mapping[str, Expectations],
    documents: Path,
    own: Own | None = None,
    columns: Sequence[str] = (),
) -> list[Check]:
    """Runs the stage's gate over its rows; results also go to Great Expectations' own stores below `documents`.

    own: the workspace's own expectations; columns: those that a gate may name besides the rows', for the message. Raises
    InputError for an expectation that neither they nor Great Expectations have, or arguments that it does not take.
    """
    kind = stage.partition("@")[0]
    always = [(name, {**arguments, "severity": "critical"}) for name, arguments in ALWAYS[kind]]
    wanted = [*always, *gates.get(kind, [])]
    _check_columns(kind, wanted, rows, columns)
    own = own or Own()
    with _one_at_a_time:  # the import too: two threads in the package's circular imports would meet half-made modules
        for name, function in own.functions.items():
            _register(name, function)
        expectations = [_expectation(kind, *one) for one in wanted]
        try:
            results = _run(stage, expectations, rows, documents)
        except Exception:
            if not remove_damaged_store(documents / "gx"):
                raise
            results = _run(stage, [_expectation(kind, *one) for one in wanted], rows, documents)
    checks = [
        _as_check(name, arguments, result, own.digest if own.holds(name) else None)
        for (name, arguments), result in zip(wanted, results, strict=True)
    ]
    return [_of_nothing(one) if not len(rows) and kind in MAY_MAKE_NOTHING else one for one in checks]


def _of_nothing(one: Check) -> Check:
    """Where a stage made no row there is no value that could be unexpected; how many rows there are is still asked."""
    about_values = "column" in one.arguments or "column_list" in one.arguments
    return replace(one, passed=True, observed="there are no rows") if about_values else one


def load_own(workspace: Path, gates: Mapping[str, Expectations]) -> Own:
    """The workspace's own expectations, where the gates name one. One stage at a time imports them, and Great Expectations with them."""
    with _one_at_a_time:
        return own_expectations(workspace, [name for listed in gates.values() for name, _ in listed])


def asked_with_others(workspace: Path, folder: Path) -> bool:
    """Whether the gate of the generation in `folder` was asked with other expectations of the user's own than there are now."""
    path, now = folder / GATE, digest_of(workspace)
    checks = read_json(path) if path.is_file() else []
    return any(one.get("source") not in {None, now} for one in checks)


def _check_columns(kind: str, wanted: Expectations, rows: GatedRows, columns: Sequence[str]) -> None:
    offered = list(dict.fromkeys([*rows.columns, *columns]))
    for name, arguments in wanted:
        for column in [*map(arguments.get, ("column", "column_A", "column_B")), *(arguments.get("column_list") or [])]:
            if column is not None and column not in rows.columns and name != "expect_column_to_exist":
                near = difflib.get_close_matches(str(column), offered, n=1)
                hint = f" (did you mean '{near[0]}'?)" if near else ""
                raise InputError(
                    f"gates.yaml: {kind}: {name}: there is no column '{column}'{hint}; there are {', '.join(offered)}."
                )


def _expectation(kind: str, name: str, arguments: Mapping[str, Any]) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    try:
        make = get_expectation_impl(name)
    except ExpectationNotFoundError as error:
        near = difflib.get_close_matches(name, list_registered_expectation_implementations(), n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise InputError(
            f"gates.yaml: {kind}: neither Great Expectations nor {OWN_FILE} has '{name}'{hint}."
        ) from error
    try:
        return make(**{"severity": "critical", **arguments})
    except (ValueError, TypeError) as error:
        raise InputError(f"gates.yaml: {kind}: {name}: {_short(error)}") from error


def _register(name: str, function: Callable[..., Any]) -> None:
    """Makes an expectation of Great Expectations out of a user's function of a column's values."""
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import ColumnMapExpectation
    from great_expectations.expectations.metrics import ColumnMapMetricProvider, column_condition_partial

    takes, metric = arguments_of(function), f"column_values.own.{name}"

    def judge(cls: type, column: Any, **given: Any) -> Any:
        said = function(column, **{one: given[one] for one in takes if given.get(one) is not None})
        if np.ndim(said) == 0 or len(said) != len(column):
            what = f"{len(said)} answers" if np.ndim(said) else f"{said!r}"
            raise TypeError(
                f"{name} gave {what} for {len(column)} values: it must say of each whether it is as expected"
            )
        answers = np.asarray(said, dtype=object)
        if not all(isinstance(one, bool | np.bool_) for one in answers):
            raise TypeError(f"{name} gave answers that are neither true nor false")
        return pd.Series(answers.astype(bool), index=column.index)

    own_metric: dict[str, Any] = {"condition_metric_name": metric, "condition_value_keys": takes}
    own_metric["_pandas"] = column_condition_partial(engine=PandasExecutionEngine)(judge)
    type(ColumnMapMetricProvider)(f"Metric_{name}", (ColumnMapMetricProvider,), own_metric)
    own: dict[str, Any] = {
        **dict.fromkeys(takes),
        "__annotations__": dict.fromkeys(takes, Any),
        "__module__": __name__,
        "__doc__": function.__doc__,
        "map_metric": metric,
        "success_keys": ("mostly", *takes),
        "args_keys": ("column", *takes),
    }
    title = "".join(part.title() for part in name.split("_"))
    type(ColumnMapExpectation)(title, (ColumnMapExpectation,), own)


def _short(error: Exception) -> str:
    """What pydantic says, an argument once, without its types' inner names."""
    if not hasattr(error, "errors"):
        return str(error)
    said = {".".join(str(step) for step in one["loc"]): one["msg"] for one in reversed(error.errors())}
    return "; ".join(what if where == "__root__" else f"'{where}': {what}" for where, what in said.items())


def _run(stage: str, expectations: list[Any], rows: GatedRows, documents: Path) -> list[Any]:
    import great_expectations as gx

    from seedling.gates.engine import over

    context = _context(documents)
    shutil.rmtree(
        documents / "gx" / "uncommitted" / "validations" / stage, ignore_errors=True
    )  # else each run would leave its results there
    source = context.data_sources.add_or_update_pandas(f"seedling {stage}")
    batch = source.add_dataframe_asset(stage).add_batch_definition_whole_dataframe("rows")
    suite = context.suites.add_or_update(gx.ExpectationSuite(name=stage, expectations=expectations))
    definition = gx.ValidationDefinition(name=stage, data=batch, suite=suite)
    wanted = {
        "result_format": "SUMMARY",
        "unexpected_index_column_names": ["id"],
        "partial_unexpected_count": 5,
        "return_unexpected_index_query": False,
    }
    definition = context.validation_definitions.add_or_update(definition)
    with over(rows) as parameters:
        found = definition.run(batch_parameters=dict(parameters), result_format=wanted)
    # Great Expectations gives results back sorted; each carries the arguments that it was asked with.
    left, ordered = list(found.results), []
    for one in suite.expectations:
        match = next(result for result in left if _same(result.expectation_config, one.configuration))
        left.remove(match)
        ordered.append(match)
    return ordered


def _same(one: Any, other: Any) -> bool:
    def plain(config: Any) -> dict[str, Any]:
        return {key: value for key, value in config.kwargs.items() if key != "batch_id"}

    return bool(one.type == other.type and plain(one) == plain(other))


def _context(documents: Path) -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    documents.mkdir(parents=True, exist_ok=True)
    context = gx.get_context(mode="file", project_root_dir=str(documents))
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _as_check(name: str, arguments: Mapping[str, Any], result: Any, source: str | None) -> Check:
    found = result.result or {}
    if raised := _raised(result.exception_info or {}):
        observed = f"{UNJUDGED}: {raised}"
    elif found.get("observed_value") is not None:
        observed = str(_plain(found["observed_value"]))
    elif "partial_missing_list" in found or "missing_list" in found:
        missing = found.get("partial_missing_list") or found.get("missing_list") or []
        observed = f"in no row: {', '.join(sorted(str(one) for one in missing))}" if missing else "each in some row"
    else:
        observed = f"{found.get('unexpected_count', 0)} of {found.get('element_count', 0)} rows unexpected"
        if some := found.get("partial_unexpected_list"):
            observed += f", such as {', '.join(dict.fromkeys(str(_plain(one)) for one in some[:3]))}"
    index = found.get("partial_unexpected_index_list") or []
    ids = [str(one["id"]) for one in index if isinstance(one, dict) and "id" in one]
    rest = {key: value for key, value in arguments.items() if key != "severity"}
    return Check(
        name, rest, str(arguments.get("severity", "critical")), bool(result.success), observed, ids[:5], source
    )


def _raised(information: Mapping[str, Any]) -> str | None:
    """What went wrong while it was judged: said of the expectation, or of each metric that it needs."""
    for one in [information, *information.values()]:
        if isinstance(one, Mapping) and one.get("exception_message"):
            # The first error of the traceback is the user's own, without Great Expectations' wrapping.
            own = re.findall(r"^\w+: .*$", str(one.get("exception_traceback") or ""), flags=re.MULTILINE)
            return own[0] if own else str(one["exception_message"])
    return None


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return round(value, 6) if isinstance(value, float) else value


def write_checks(checks: Sequence[Check], folder: Path) -> None:
    """gate.json beside the rows: a generation carries the proof of its gate, but for what compares with the one before, which is
    no function of the stage's inputs.
    """
    write_json(folder / GATE, [asdict(one) for one in checks if not one.compares])


def write_comparisons(checks: Sequence[Check], workspace: Path, stage: str) -> None:
    """What compares with the generation before, beside the generations, once this one stands."""
    write_json(beside_generations(workspace, stage), [asdict(one) for one in checks if one.compares])


def read_checks(workspace: Path, stage: str, folder: Path) -> list[dict[str, Any]]:
    """What `write_checks` wrote of the stage, whose output is `folder`; none where it has not run."""
    files = [folder / GATE, beside_generations(workspace, stage)]
    return [one for file in files if file.is_file() for one in read_json(file)]


def beside_generations(workspace: Path, stage: str) -> Path:
    """Where checks lie that compare a stage's rows with those before."""
    return workspace / ".seedling" / "gates" / f"{stage}.json"


def explain(
    stage: str, checks: Sequence[Check], quarantine: Path, page: Path | None, rejected: Mapping[str, int] | None = None
) -> str:
    """What a failed gate says: expectation, observed value, limit, rows, where they are, and what to do.

    page: of all gates, where it was written; rejected: by reason, the rows that the stage itself did not keep, of which the checks know nothing.
    """
    lines, judged = [f"The gate of stage '{stage}' failed."], set[bool]()
    for one in (one for one in checks if one.stops):
        known = not one.observed.startswith(UNJUDGED)
        judged.add(known)
        said = f"observed {one.observed}; expected {one.limit}" if known else f"{one.observed} ({one.limit})"
        lines.append(f"  {one.expectation}: {said}.")
        if one.rows:
            lines.append(f"    rows: {', '.join(one.rows)} (`seedling why ID` tells more)")
    if rejected:
        told = (
            f"{many:,} as {reason}{MEANINGS.get(reason, '')}"
            for reason, many in sorted(rejected.items(), key=lambda one: -one[1])
        )
        lines.append(f"  Rejected before the gate: {', '.join(told)}.")
    lines.append(f"  The rows are in {quarantine}; nothing was recorded.")
    if page is not None:
        lines.append(f"  Every gate and its history: {page}.")
    if False in judged:
        lines.append("  What could not be judged is mended where it is written: gates.yaml, or expectations.py.")
    if True in judged:
        lines.append("  Mend the data, or change the limit in gates.yaml, and run again.")
    return "\n".join(lines)
