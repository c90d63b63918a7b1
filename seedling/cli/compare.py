"""The command `seedling compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained


def compare(
    old: Annotated[str, typer.Argument(help="Run, DVC experiment or git revision; `workspace` is the current state.")],
    new: Annotated[str, typer.Argument(help="Run, DVC experiment or git revision to compare it with.")] = "workspace",
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Compare two runs: rows by stage, and metrics with paired differences and intervals; also as an HTML page."""
    with explained(debug):
        from seedling.comparison import show_comparison

        show_comparison(workspace.resolve(), old, new)
