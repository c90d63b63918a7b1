"""Runs the flow (`seedling run`) or one stage (`seedling stage`) with a live table."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from seedling.cli.live_table import LiveTable
from seedling.config.params import load, set_value
from seedling.flows.temporary_server import temporary_server
from seedling.lock import workspace_lock
from seedling.parallel.memory_limit import expected_rows, memory_warning
from seedling.pipeline import find_stage
from seedling.records.next_action import next_action
from seedling.records.results import read_evaluation_summary
from seedling.records.run_records import read_run_records
from seedling.records.summaries import headline, use_of_model
from seedling.runner import write_page
from seedling.terminal.console import PrintableConsole
from seedling.terminal.notices import state_once
from seedling.versioning.pushing import read_push_state
from seedling.versioning.uncommitted import commit_command
from seedling.workspace import Workspace

if TYPE_CHECKING:
    from seedling.flows.grow import RunResult

SLOW_IMPORTS = (
    "great_expectations",
    "torch",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.svm",
    "albumentations",
    "prefect.task_engine",
)


class RunConsole(PrintableConsole):
    """A console that ignores a closed pipe, so that the run continues without a reader."""

    def on_broken_pipe(self) -> None:
        """Redirects standard output to the null device; rich would end the process."""
        self.quiet = True
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, sys.stdout.fileno())
        os.close(null_device)


def run_workspace(workspace: Path, effort: str | None, as_of: str | None, *, visit: bool = False) -> None:
    """Runs the flow on the workspace, shows its stages, and prints the headline and the path of the report."""
    began = time.monotonic()
    params = load(workspace)
    if warning := memory_warning(expected_rows(workspace), params.modality):
        state_once(warning)
    console = RunConsole()
    with workspace_lock(workspace):  # before Prefect's server starts, which takes seconds
        _upgrade(workspace, console)
    if effort is not None:
        set_value(workspace, ["effort"], effort)
    # The terminal has the table, the UI the logs.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    with (
        console.status("Starting Prefect …"),
        importing_in_bulk(),
        temporary_server(workspace, partial(_announce, console)) as temporary,
    ):
        from seedling.flows.grow import grow
        from seedling.versioning.ledger import open_ledger

        live_table, ledger = LiveTable(console), open_ledger(workspace)
        ledger.watch, ledger.finished = live_table.watch, live_table.finish
        if ledger.states():  # a run without changes does not need them
            for name in SLOW_IMPORTS:
                importlib.import_module(name)
    start_seconds = time.monotonic() - began
    with live_table.live(), without_heartbeats(temporary):
        state = grow(str(workspace), as_of=as_of, visit=visit, return_state=True)
    if state.is_failed() or state.is_crashed():
        _raise_error_of(state)
    if state.is_cancelled():  # by a person who ended the review in Prefect's UI
        console.print(str(state.message), style="yellow", highlight=False, soft_wrap=True)
        return
    seconds = f"{time.monotonic() - began:.0f} s, {start_seconds:.0f} s of them to start Prefect"
    _print_result(console, workspace, seconds, cast("RunResult", state.result()))


def _print_result(console: PrintableConsole, workspace: Path, seconds: str, result: RunResult) -> None:
    """Prints the headline, the time, the path of the report, the result of the push, and what to do next."""
    evaluation = read_evaluation_summary(Workspace(workspace).reports)
    console.print(f"\n{headline(evaluation)}", style="bold green", highlight=False)
    for sentence in use_of_model(evaluation):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if any(outcome.how != "unchanged" for outcome in result.outcomes):
        from seedling.records.predicted_gain import predicted_gain  # loads SciPy, which an unchanged run does not need

        if gain := predicted_gain(read_run_records(workspace)):
            console.print(str(gain), highlight=False, soft_wrap=True)
    console.print(
        f"{seconds}. Report: {Workspace(workspace).report_page}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(next_action(workspace), markup=False, highlight=False, soft_wrap=True)
    if load(workspace).push and (push := read_push_state(workspace)):
        style = None if push.complete else "yellow"
        console.print(push.message, style=style, markup=False, highlight=False, soft_wrap=True)
    if result.changed_during_run:
        console.print(
            f"Changed during the run: {', '.join(result.changed_during_run)}. Run `seedling run` again to "
            "use these changes.",
            highlight=False,
            soft_wrap=True,
        )
    if command := commit_command(workspace, result.name, Path.cwd()):
        console.print(f"Not in git yet; to commit the run:\n  {command}", highlight=False, soft_wrap=True)


def _upgrade(workspace: Path, console: PrintableConsole) -> None:
    """Upgrades the files of an earlier version, and prints the changes."""
    from seedling.upgrading import upgrade_workspace

    for change in upgrade_workspace(workspace):
        console.print(change, highlight=False, soft_wrap=True)


def _announce(console: PrintableConsole, sentence: str) -> None:
    console.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def importing_in_bulk() -> Iterator[None]:
    """Disables the garbage collector within the block, and excludes the imported objects from later collections.

    This saves a quarter of the import time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def without_heartbeats(temporary: bool) -> Iterator[None]:
    """Disables the heartbeats of a run on a temporary server, which does not need them: their thread ends slowly."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}) if temporary else nullcontext():
        yield


def _raise_error_of(state: object) -> None:
    """Raises the error of the flow, so that the command line can explain it and exit with its code."""
    state.result(raise_on_failure=True)  # type: ignore[attr-defined]


def run_one_stage(workspace: Path, name: str, *, force: bool) -> None:
    """Brings one stage up to date, without Prefect."""
    from seedling.versioning.ledger import open_ledger

    find_stage(name)
    load(workspace)
    console = RunConsole()
    live_table, ledger = LiveTable(console, collapse_skipped=False), open_ledger(workspace)
    ledger.watch, ledger.finished = live_table.watch, live_table.finish
    with workspace_lock(workspace), live_table.live():
        ledger.run(name, force=force)
    if page := write_page(name, workspace):
        title = "Report" if name == "evaluate" else "Data page"
        console.print(f"{title}: {page}", highlight=False, soft_wrap=True)
