"""The command `seedling serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import AllowHost, Debug, Workspace, explained
from seedling.errors import InputError


def serve(
    cron: Annotated[str | None, typer.Option(hidden=True)] = None,
    host: Annotated[str, typer.Option(help="Where it listens; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    megabytes: Annotated[float, typer.Option(min=0.001, help="A request may have.")] = 8.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests a second of one client.")] = 50.0,
    connections: Annotated[
        int, typer.Option(min=2, max=10_000, help="Open connections of one client; twice as many in all.")
    ] = 128,
    allow_host: AllowHost = None,
    token_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with the token that requests must send: Authorization: Bearer TOKEN.",
            show_default="SEEDLING_API_TOKEN, where it is set",
        ),
    ] = None,
    number: Annotated[int | None, typer.Option("--round", help="Whose model.", show_default="the accepted one")] = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Serves the model over HTTP: POST /predict, GET /health, /metrics, /openapi.json; until stopped."""
    with explained(debug):
        if cron is not None:
            raise InputError(
                "`seedling serve` serves the model over HTTP. Scheduled runs are: seedling schedule --cron '...'"
            )
        from seedling.models.predictor import Predictor
        from seedling.serving.api import TOKEN_VARIABLE, Limits, reserved, serve_api
        from seedling.serving.http_clients import AllowedHosts, checked_hosts, is_loopback
        from seedling.serving.http_guard import token_from

        hosts = AllowedHosts(host, checked_hosts(allow_host or ()))
        token = token_from(dict(os.environ), token_env, TOKEN_VARIABLE)
        place = reserved(host, port)
        predictor = Predictor.of(workspace.resolve(), number)
        print(
            f"Round {predictor.round} answers at http://{host}:{port}/predict; /openapi.json describes it. Ctrl-C ends it."
        )
        if token is None and not is_loopback(host):
            print(f"Everyone who reaches {host}:{port} may use the model: --token-env demands a token.")
        serve_api(predictor, place, Limits(megabytes=megabytes, a_second=rate, connections=connections), hosts, token)
