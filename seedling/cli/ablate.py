"""The command `seedling ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, NoPlugins, Workspace, explained


def ablate(
    minutes: Annotated[float, typer.Option(min=0, help="At most; what was run is kept for the next time.")] = 30.0,
    no_plugins: NoPlugins = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """What each step contributed: the line run without it, step by step, judged on the same cross-validated rows."""
    with explained(debug):
        from seedling.ablation import ablate as work

        work(workspace.resolve(), minutes)
