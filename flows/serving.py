"""`seedling serve --cron`: the workspace as a Prefect deployment, with the server and its UI where none is reachable."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from rich.console import Console

from tasks.errors import InputError, SeedlingError
from tasks.params import load

LOCAL_API = "http://127.0.0.1:4200/api"
PATIENCE = 90.0  # seconds for a server to start


def serve_workspace(workspace: Path, cron: str, name: str | None) -> None:
    """Serves until stopped. Raises InputError for a schedule that is none."""
    load(workspace)
    _check_cron(cron)
    console = Console()
    with _server(console) as api:
        os.environ["PREFECT_API_URL"] = api
        from flows.grow import scheduled

        title = name or workspace.name
        console.print(
            f"Serving '{title}' at '{cron}'. UI: {api.removesuffix('/api')}. Ctrl-C stops.",
            highlight=False,
            soft_wrap=True,
        )
        scheduled.serve(name=title, cron=cron, parameters={"workspace": str(workspace)}, print_starting_message=False)


def _check_cron(cron: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        raise InputError(f"'{cron}' is no schedule: write five fields as in crontab, such as \"0 6 * * *\".") from error


@contextmanager
def _server(console: Console) -> Iterator[str]:
    """The API that PREFECT_API_URL names, or one on loopback, started here where it is not running."""
    named = os.environ.get("PREFECT_API_URL")
    if named:
        yield named
        return
    if _answers(LOCAL_API):
        yield LOCAL_API
        return
    with console.status("Starting Prefect's server …"):
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", "4200"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + PATIENCE
        while not _answers(LOCAL_API):
            if server.poll() is not None or time.monotonic() > until:
                server.terminate()
                raise SeedlingError("Prefect's server did not start: `prefect server start` shows why.")
            time.sleep(0.5)
    try:
        yield LOCAL_API
    finally:
        server.terminate()
        server.wait(timeout=15)


def _answers(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as answer:  # noqa: S310  (our own loopback address)
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
