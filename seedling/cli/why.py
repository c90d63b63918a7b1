"""The command `seedling why`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained


def why(
    row: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a row, its first digits, or a part of its origin or text.")
    ],
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Show the provenance of a row and its use: labels, related rows, rejections, and models trained on it."""
    with explained(debug):
        from seedling.row_story import show_story

        show_story(workspace.resolve(), row)
