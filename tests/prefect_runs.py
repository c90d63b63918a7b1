"""Prefect runs in tests: an environment of their own, waiting for conditions, and the processes of a command."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

Found = TypeVar("Found")
BUSY_RETRIES = 30  # a second apart
MARK = "SEEDLING_TEST_MARK"  # environment variable by which all descendants of a command are found, orphans too


def wait_for(check: Callable[[], Found | None], seconds: float = 120, message: Callable[[], str] = str) -> Found:
    """Poll `check` and return its first true result."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError, httpx.HTTPError):
            if result := check():
                return result
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {message()}")


def free_port() -> int:
    """A loopback port without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def own_environment(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a command that has its own Prefect home, its own server port and a mark."""
    home = folder / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_") or name == "PREFECT_SERVER_ANALYTICS_ENABLED"
    }
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_PORT": str(free_port()),
        MARK: uuid.uuid4().hex,
        **variables,
    }


def command_line(process: psutil.Process) -> str:
    """The command of the process; empty if it has ended."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def processes(environment: dict[str, str]) -> list[psutil.Process]:
    """All living processes that were started in this environment, whoever their parent is now."""
    living = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if (
                process.environ().get(MARK) == environment[MARK]
                and process.status() != psutil.STATUS_ZOMBIE
                and process.pid != os.getpid()
            ):
                living.append(process)
    return living


def assert_no_process_is_left(environment: dict[str, str], seconds: float = 30) -> None:
    """All processes of this environment end by themselves within the time."""
    left = lambda: [" ".join(process.cmdline())[:120] for process in processes(environment)]  # noqa: E731
    wait_for(lambda: not processes(environment), seconds, lambda: str(left()))


def kill_all(environment: dict[str, str]) -> None:
    """Kills all processes of this environment."""
    for process in processes(environment):
        with suppress(psutil.Error):
            process.kill()


def flow_run_states(environment: dict[str, str]) -> list[tuple[str, str]]:
    """(type, name) of the state of each flow run in the SQLite database of this environment, the oldest first."""
    database = Path(environment["PREFECT_HOME"]) / "prefect.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        return list(connection.execute("SELECT state_type, state_name FROM flow_run ORDER BY created"))


def post(api_url: str, route: str, body: Mapping[str, Any]) -> Any:
    """The answer of a Prefect API to a POST, which is repeated while the server's database is locked, as Prefect's client does."""
    for _ in range(BUSY_RETRIES):
        response = httpx.post(f"{api_url}/{route}", json=dict(body), timeout=60)
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(1)
    response.raise_for_status()
    return response.json() if response.content else None


def flow_runs(api_url: str, **filters: Any) -> list[dict[str, Any]]:
    """The flow runs that the API has, the oldest first."""
    runs: list[dict[str, Any]] = post(api_url, "flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC", **filters})
    return runs
