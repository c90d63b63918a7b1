"""The command `seedling serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import AllowHost, Debug, Round, Workspace, explained
from seedling.errors import InputError

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every address of the machine.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Megabytes = Annotated[float, typer.Option(min=0.001, help="Maximum size of a request in MB.")]
Rate = Annotated[float, typer.Option(min=0.1, help="Maximum number of requests per second and client.")]
Connections = Annotated[
    int, typer.Option(min=2, max=10_000, help="Maximum number of open connections per client; twice as many in total.")
]
TokenEnv = Annotated[
    str | None,
    typer.Option(
        help="Name of the environment variable with the token that requests must send as "
        "`Authorization: Bearer TOKEN`.",
        show_default="SEEDLING_API_TOKEN, if it is set",
    ),
]


def serve(  # noqa: PLR0913  (Typer makes an option of each argument)
    cron: Annotated[str | None, typer.Option(hidden=True)] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    megabytes: Megabytes = 8.0,
    rate: Rate = 50.0,
    connections: Connections = 128,
    allow_host: AllowHost = None,
    token_env: TokenEnv = None,
    number: Round = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Serve the model over HTTP until stopped: POST /predict, GET /health, /metrics, /openapi.json."""
    with explained(debug):
        if cron is not None:
            raise InputError(
                "`seedling serve` serves the model over HTTP. For scheduled runs, use seedling schedule --cron '...'"
            )
        from seedling.extras import require

        require("serve", "`seedling serve`")
        from seedling.models.predictor import Predictor
        from seedling.serving.api import TOKEN_VARIABLE, Limits, bind_socket, serve_api
        from seedling.serving.http_clients import AllowedHosts, checked_hosts, is_loopback
        from seedling.serving.http_guard import token_from

        hosts = AllowedHosts(host, checked_hosts(allow_host or ()))
        token = token_from(dict(os.environ), token_env, TOKEN_VARIABLE)
        listener = bind_socket(host, port)
        predictor = Predictor.of(workspace.resolve(), number)
        print(
            f"Serving the model of round {predictor.round} at http://{host}:{port}/predict; "
            "/openapi.json describes it. Press Ctrl-C to stop."
        )
        if token is None and not is_loopback(host):
            print(f"Anyone who can reach {host}:{port} can use the model. --token-env requires a token.")
        serve_api(
            predictor,
            listener,
            Limits(megabytes=megabytes, requests_per_second=rate, connections=connections),
            hosts,
            token,
        )
