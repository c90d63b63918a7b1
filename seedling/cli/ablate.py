"""The command `seedling ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, NoPlugins, Workspace, explained


def ablate(
    minutes: Annotated[
        float, typer.Option(min=0, help="Time limit in minutes; what has been computed is reused by the next call.")
    ] = 30.0,
    no_plugins: NoPlugins = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Measure what each step contributes: run the pipeline without it, and compare on the same cross-validated rows."""
    with explained(debug):
        from seedling.ablation import ablate as run_ablation

        run_ablation(workspace.resolve(), minutes)
