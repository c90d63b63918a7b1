"""The command `seedling compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained


def compare(
    old: Annotated[
        str, typer.Argument(help="A run, a DVC experiment or a git revision; `workspace` for what lies here.")
    ],
    new: Annotated[str, typer.Argument(help="Likewise.")] = "workspace",
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Rows by stage and metrics of two runs, with the paired difference and its interval; also as HTML."""
    with explained(debug):
        from seedling.comparison import show_comparison

        show_comparison(workspace.resolve(), old, new)
