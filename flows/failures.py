"""Ends a stage or run with a user's error in a Failed state with one sentence, without tracebacks in Prefect's log."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from prefect import State
from prefect.exceptions import CancelledRun
from prefect.states import Failed

from seedling.errors import GateFailed, SeedlingError, SourceUnreachable
from seedling.records.gate import Check
from seedling.terminal.printable import make_printable
from seedling.workspace import QUARANTINE

P = ParamSpec("P")
R = TypeVar("R")
MAX_SHOWN_EXPECTATIONS = 3
MAX_SHOWN_ROWS = 3


def errors_as_failed_states(function: Callable[P, R]) -> Callable[P, R]:
    """Wraps the function of a flow or task: errors that a user can fix are returned as Failed states.

    Prefect logs the traceback of each error that a function raises, once per level; a returned state is one line. The
    state's result still raises the error. SourceUnreachable is raised directly, since the task can be retried.
    """

    @functools.wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> Any:
        try:
            return function(*arguments, **named)
        except SourceUnreachable:
            raise
        except SeedlingError as error:
            return Failed(message=sentence_of(error), data=error)

    return cast(Callable[P, R], run)  # Prefect uses the state as the run's, and returns or raises its result


class StageTask:
    """A Prefect task whose call raises the error that `errors_as_failed_states` has put into a Failed state."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Runs the task here. Raises the stage's errors."""
        returned = self.task(*arguments, **named)
        return returned.result(raise_on_failure=True) if isinstance(returned, State) else returned

    def submit(self, *arguments: Any, **named: Any) -> Any:
        """Runs the task on the flow's task runner; the future's result raises the stage's errors."""
        return self.task.submit(*arguments, **named)


def _is_not_returned_state(record: logging.LogRecord) -> bool:
    """Filters out the record of a returned Failed state, since Prefect also logs that the run finished in it."""
    return not record.getMessage().startswith("Task run failed with state: Failed(")


def _is_not_logged_again(record: logging.LogRecord) -> bool:
    """Filters out records of an error that was logged: at exit, a deployed run logs its error twice with traceback."""
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    is_expected = isinstance(error, SeedlingError | CancelledRun)
    return not (is_expected and "exited with unexpected exception" in record.getMessage())


logging.getLogger("prefect.task_runs").addFilter(_is_not_returned_state)
for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(make_printable)
for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_is_not_logged_again)


def sentence_of(error: BaseException) -> str:
    """Returns the error's message in one line; for a failed gate, the stage and the failed expectations."""
    if not isinstance(error, GateFailed):
        return str(error).partition("\n")[0] or type(error).__name__
    heading, _, details = str(error).partition("\n")
    failed = [check for check in error.checks if check.stops]
    if not failed:
        return heading
    parts = [
        f"{check.expectation}{_column(check)} observed {check.observed}, expected {_limit(check)}"
        for check in failed[:MAX_SHOWN_EXPECTATIONS]
    ]
    remainder = f"; and {len(failed) - len(parts)} more" if len(failed) > len(parts) else ""
    lines = [line.strip() for line in details.splitlines()]
    rows = [f"{row[:12]}…" for check in failed for row in check.rows][:MAX_SHOWN_ROWS]
    shown_rows = f" Rows: {', '.join(rows)}." if rows else ""
    quarantine_line = next((line for line in lines if f"{QUARANTINE}/" in line), "")
    return f"{heading.rstrip('.')}: {'; '.join(parts)}{remainder}.{shown_rows} {quarantine_line} {lines[-1]}".rstrip()


def _column(check: Check) -> str:
    return f" ({check.column})" if check.column else ""


def _limit(check: Check) -> str:
    limits = [f"{name}={value!r}" for name, value in check.arguments.items() if name != "column"]
    return ", ".join(limits) or "to be true"
