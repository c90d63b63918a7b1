"""The command `seedling run`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.killed_run import announced_if_killed
from seedling.cli.options import Debug, NoPlugins, Workspace, explained
from seedling.parallel.launcher import LAUNCH


class Effort(StrEnum):
    """How much a run tries."""

    quick = "quick"
    normal = "normal"
    thorough = "thorough"


def run(
    effort: Annotated[
        Effort | None, typer.Option(help="How much time to spend on better results; written to params.yaml.")
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(help="Name of a visit to the web sources; a new name makes the scrape stage visit them again."),
    ] = None,
    visit: Annotated[
        bool, typer.Option("--visit", help="Visit the web sources for new rows, as a scheduled run does.")
    ] = False,
    launch: Annotated[
        str | None,
        typer.Option(
            envvar=LAUNCH, help="Launcher for training in several processes: 'accelerate launch --num_processes 4'."
        ),
    ] = None,
    no_plugins: NoPlugins = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Run the pipeline: bring the dataset, the model and the report up to date."""
    from seedling.flows.stopping import stops_in_time

    with explained(debug), announced_if_killed(workspace.absolute()), stops_in_time():
        from seedling.cli.running import run_workspace

        if launch is not None:
            os.environ[LAUNCH] = launch

        run_workspace(workspace.resolve(), None if effort is None else effort.value, as_of, visit=visit)
