"""The command `seedling status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for monitoring.")] = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Show the state and the rows of each stage, and the last result; also works during a run.

    Exit code: 0 up to date, 1 the last gate failed, 2 error, 3 stages to run, 4 a run is in progress.
    """
    with explained(debug):
        from seedling.status import show_status

        code = show_status(workspace.resolve(), as_json=as_json)
    raise typer.Exit(code)
