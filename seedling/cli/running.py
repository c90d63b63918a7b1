"""`seedling run` and `seedling stage`: the flow, or one stage of it, with a live table."""

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

from seedling.cli.live_table import Board
from seedling.config.params import load, set_value
from seedling.flows.temporary_server import temporary_server
from seedling.lock import workspace_lock
from seedling.parallel.memory_limit import expected_rows, memory_warning
from seedling.pipeline import find_stage
from seedling.records.results import read_evaluation
from seedling.records.summaries import headline
from seedling.runner import write_page
from seedling.terminal.console import PrintableConsole
from seedling.terminal.notices import state_once
from seedling.versioning.pushing import read_push_state

HEAVY = (
    "great_expectations",
    "torch",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.svm",
    "albumentations",
    "prefect.task_engine",
)


class RunConsole(PrintableConsole):
    """A console whose reader may leave: the run goes on without it."""

    def on_broken_pipe(self) -> None:
        """Sends standard output nowhere from now on, where rich would end the process."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def run_line(workspace: Path, effort: str | None, as_of: str | None, *, visit: bool = False) -> None:
    """Runs the flow on the workspace, shows its stages, and ends with the headline and where the report lies."""
    params = load(workspace)
    if warning := memory_warning(expected_rows(workspace), params.modality):
        state_once(warning)
    console = RunConsole()
    with workspace_lock(workspace):  # said before Prefect's server starts, which takes seconds
        _upgrade(workspace, console)
    if effort is not None:
        set_value(workspace, ["effort"], effort)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # the table speaks here, logs in the UI
    with (
        console.status("Starting Prefect …"),
        importing_in_bulk(),
        temporary_server(workspace, partial(_announce, console)) as temporary,
    ):
        from seedling.flows.grow import grow
        from seedling.versioning.ledger import open_ledger

        board, ledger = Board(console), open_ledger(workspace)
        ledger.watch, ledger.finished = board.watch, board.finish
        if ledger.states():  # where nothing changed, nothing of it is needed
            for name in HEAVY:
                importlib.import_module(name)
    began = time.monotonic()
    with board.live(), nobody_waits_for_heartbeats(temporary):
        state = grow(str(workspace), as_of=as_of, visit=visit, return_state=True)
    if state.is_failed() or state.is_crashed():
        _raise_of(state)
    metrics = read_evaluation(workspace / "reports") or {}
    console.print(f"\n{headline(metrics)}", style="bold green", highlight=False)
    console.print(
        f"{time.monotonic() - began:.0f} s. Report: {workspace / 'reports' / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )
    if load(workspace).push and (push := read_push_state(workspace)):
        style = None if push["complete"] else "yellow"
        console.print(push["message"], style=style, markup=False, highlight=False, soft_wrap=True)
    if changed := state.result().changed_during_run:
        console.print(
            f"Changed during the run: {', '.join(changed)}. `seedling run` takes it in.",
            highlight=False,
            soft_wrap=True,
        )


def _upgrade(workspace: Path, console: PrintableConsole) -> None:
    """Upgrades what an earlier version wrote, and prints what was changed."""
    from seedling.upgrading import upgrade_workspace

    for change in upgrade_workspace(workspace):
        console.print(change, highlight=False, soft_wrap=True)


def _announce(console: PrintableConsole, sentence: str) -> None:
    console.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def importing_in_bulk() -> Iterator[None]:
    """The garbage collector rests meanwhile, and never looks at the modules again: a quarter of the imports' time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def nobody_waits_for_heartbeats(temporary: bool) -> Iterator[None]:
    """A server that ends with the run has no use for the run's heartbeats, whose thread takes a second to stop."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}) if temporary else nullcontext():
        yield


def _raise_of(state: object) -> None:
    """Raises what stopped the flow, so that the command line can explain it and leave with its exit code."""
    state.result(raise_on_failure=True)  # type: ignore[attr-defined]


def run_one(workspace: Path, name: str, *, force: bool) -> None:
    """Brings one stage up to date, without Prefect."""
    from seedling.versioning.ledger import open_ledger

    find_stage(name)
    load(workspace)
    console = RunConsole()
    board, ledger = Board(console), open_ledger(workspace)
    ledger.watch, ledger.finished = board.watch, board.finish
    with workspace_lock(workspace), board.live():
        ledger.run(name, force=force)
    if page := write_page(name, workspace):
        what = "Report" if name == "evaluate" else "Data page"
        console.print(f"{what}: {page}", highlight=False, soft_wrap=True)
