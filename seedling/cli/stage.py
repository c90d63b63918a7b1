"""The command `seedling stage`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.killed_run import announced_if_killed
from seedling.cli.options import Debug, NoPlugins, Workspace, explained


def stage(
    name: Annotated[
        str, typer.Argument(help="scrape, validate, augment, synthesize, train@R, pseudo_label@R or evaluate.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Run the stage even if nothing has changed.")] = False,
    no_plugins: NoPlugins = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Run one stage if its inputs have changed, and record it."""
    from seedling.flows.stopping import stops_in_time

    with explained(debug), announced_if_killed(workspace.absolute()), stops_in_time():
        from seedling.cli.running import run_one_stage

        run_one_stage(workspace.resolve(), name, force=force)
