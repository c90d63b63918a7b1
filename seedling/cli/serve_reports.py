"""The command `seedling serve-reports`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import AllowHost, Debug, explained


def serve_reports(
    workspaces: Annotated[
        list[Path] | None,
        typer.Option("--workspace", "-w", help="Workspace to serve. May be repeated.", show_default="this folder"),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every address of the machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any free port.")] = 4300,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Address that links begin with, if a proxy is in front of the server.", show_default="host and port"
        ),
    ] = None,
    allow_host: AllowHost = None,
    debug: Debug = False,
) -> None:
    """Serve the pages of workspaces over HTTP, for the links in Prefect's UI, until stopped."""
    with explained(debug):
        from seedling.extras import require

        require("serve", "`seedling serve-reports`")
        from seedling.serving.http_clients import checked_hosts
        from seedling.serving.report_server import serve_reports as serve_pages

        serve_pages(workspaces or [Path()], host, port, base_url, checked_hosts(allow_host or ()))
