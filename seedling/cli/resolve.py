"""The command `seedling resolve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from seedling.cli.options import Debug, Workspace, explained
from seedling.terminal.printable import printable


def resolve(
    data: Annotated[
        Literal["ours", "theirs"] | None,
        typer.Option(help="Take the data of one side only.", show_default="the files of both sides"),
    ] = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Resolve git's conflicts in dvc.lock, data.dvc and test_evaluations.jsonl after a merge."""
    with explained(debug):
        from seedling.versioning.merging import resolve as resolve_conflicts

        changes = resolve_conflicts(workspace.resolve(), data)
        for change in changes:
            print(printable(change))
        print("Next: git commit && seedling run" if changes else "There is no conflict to resolve.")
