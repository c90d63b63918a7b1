"""The command `seedling schedule`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained


def schedule(
    cron: Annotated[str, typer.Option(help='Cron expression: "0 6 * * *" is every day at six.')],
    timezone: Annotated[str, typer.Option(help="Time zone of --cron, by its IANA name.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="Name of the deployment.", show_default="the workspace's")] = None,
    reports_host: Annotated[str, typer.Option(help="Address to serve the reports on.")] = "127.0.0.1",
    reports_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to serve the reports on; a free one if it is taken.")
    ] = 4300,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Run the workspace on a schedule, as a Prefect deployment, until stopped."""
    from seedling.flows.stopping import SCHEDULE_GRACE_SECONDS, stops_in_time

    with explained(debug), stops_in_time(SCHEDULE_GRACE_SECONDS):
        from seedling.flows.scheduling import schedule_workspace

        schedule_workspace(
            workspace.resolve(), cron, timezone, name, reports_host=reports_host, reports_port=reports_port
        )
