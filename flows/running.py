"""`seedling run` and `seedling stage`: the flow, or one stage of it, with a live table."""

from __future__ import annotations

import importlib
import json
import os
import threading
import time
from pathlib import Path

from rich.console import Console

from flows.board import Board
from tasks.busy import workspace_lock
from tasks.errors import SeedlingError
from tasks.params import load, set_value
from tasks.stages import find, headline

HEAVY = ("great_expectations", "torch", "sklearn.ensemble", "sklearn.linear_model", "sklearn.svm", "albumentations")


def run_line(workspace: Path, effort: str | None, as_of: str | None) -> None:
    """Runs the flow on the workspace, shows its stages, and ends with the headline and where the report lies."""
    load(workspace)
    with workspace_lock(workspace):
        pass  # said before Prefect's server starts, which takes seconds
    if effort is not None:
        set_value(workspace, ["effort"], effort)
    console = Console()
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # the table speaks here, logs in the UI
    with console.status("Starting Prefect …"):
        from flows.grow import grow
        from flows.ledger import open_ledger

        board, ledger = Board(console), open_ledger(workspace)
        ledger.watch, ledger.finished = board.watch, board.finish
        if ledger.states():  # where nothing changed, nothing of it is needed
            start_and_import()
    began = time.monotonic()
    with board.live():
        state = grow(str(workspace), as_of=as_of, return_state=True)
    if state.is_failed() or state.is_crashed():
        _raise_of(state)
    metrics = json.loads((workspace / "reports" / "metrics.json").read_text(encoding="utf-8"))
    console.print(f"\n[bold green]{headline(metrics)}[/]", highlight=False)
    console.print(
        f"{time.monotonic() - began:.0f} s. Report: {workspace / 'reports' / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )


def start_and_import() -> None:
    """Imports what the stages will need (seconds) while Prefect's temporary server starts (seconds more)."""
    from prefect.client.base import ServerType, determine_server_type

    server: threading.Thread | None = None
    if determine_server_type() == ServerType.EPHEMERAL:
        from prefect.server.api.server import SubprocessASGIServer

        # The very server that the flow will use; Prefect takes it for ready once started, so it is waited for here.
        server = threading.Thread(target=SubprocessASGIServer().start, daemon=True)
        server.start()
    for name in HEAVY:
        importlib.import_module(name)
    if server is not None:
        server.join()


def _raise_of(state: object) -> None:
    """Raises what stopped the flow, so that the command line can say it and leave with its exit code."""
    try:
        state.result(raise_on_failure=True)  # type: ignore[attr-defined]
    except SeedlingError:
        raise
    except KeyboardInterrupt:
        raise
    except Exception as error:
        raise SeedlingError(
            f"The run broke off: {type(error).__name__}: {str(error).rstrip('.')}. `seedling run --debug` shows where."
        ) from error


def run_one(workspace: Path, name: str, *, force: bool) -> None:
    """Brings one stage up to date, without Prefect."""
    from flows.ledger import open_ledger

    find(name)
    load(workspace)
    console = Console()
    board, ledger = Board(console), open_ledger(workspace)
    ledger.watch, ledger.finished = board.watch, board.finish
    with workspace_lock(workspace), board.live():
        if name == "scrape":
            ledger.track_data()
        ledger.run(name, force=force)
    if name == "evaluate":
        from tasks.evaluate.report import write_report

        console.print(f"Report: {write_report(workspace)}", highlight=False, soft_wrap=True)
