"""Real services for tests and benchmarks: PostgreSQL, a Prefect server, a process worker and an S3 store, each on a free loopback port.

Every service runs in a session of its own, writes its output to a file, and is stopped with all its processes at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import prefect_runs
import psutil

Value = TypeVar("Value")
BIN = Path(sys.executable).parent
START_TIMEOUT_SECONDS = 180
STOP_TIMEOUT_SECONDS = 60
TERMINAL_STATES = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(check: Callable[[], Value | None], seconds: float = START_TIMEOUT_SECONDS, what: str = "") -> Value:
    """The first truthy value of `check`, which is called twice a second. Raises AssertionError after `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(OSError, httpx.HTTPError):
            if value := check():
                return value
        time.sleep(0.5)
    raise AssertionError(f"{what or check} was not true within {seconds} s")


@dataclass
class Service:
    """A process in its own session; `start` and `stop` may be called again and again."""

    command: list[str]
    log: Path
    ready: Callable[[], Any]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process and waits until it is ready."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.env),
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=self.user,
                group=self.user,
            )

        def started() -> Any:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.command} ended: {self.log.read_text(errors='replace')[-2000:]}"
            return self.ready()

        wait_for(started, what=f"readiness of {self.command}; see {self.log}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends the signal to this process alone, as an operating system or an operator does."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=STOP_TIMEOUT_SECONDS)

    def stop(self) -> None:
        """Stops the process; what is left of its session after a while is killed."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(timeout=STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


@contextmanager
def running(service: Service) -> Iterator[Service]:
    """The service, started, and stopped at the end."""
    try:
        service.start()
        yield service
    finally:
        service.stop()


def _postgres_programs() -> tuple[Path, Path]:
    """`initdb` and `postgres`, of the newest version that Debian's packages have installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].with_name("initdb"), versions[-1]
    programs = [shutil.which(name) for name in ("initdb", "postgres")]
    assert all(programs), "PostgreSQL is needed: apt-get install postgresql"
    return Path(str(programs[0])), Path(str(programs[1]))


@contextmanager
def postgres() -> Iterator[str]:
    """An empty PostgreSQL cluster; gives its SQLAlchemy URL. The server refuses to run as root, so root runs it as `postgres`."""
    initdb, program = _postgres_programs()
    folder = Path(tempfile.mkdtemp(prefix="seedling-postgres-"))
    port, user = free_port(), "prefect"
    account = "postgres" if os.geteuid() == 0 else None
    if account:
        shutil.chown(folder, account, account)
    try:
        subprocess.run(
            [str(initdb), "-D", str(folder / "data"), "-U", user, "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
            user=account,
            group=account,
        )
        command = [
            str(program),
            "-D",
            str(folder / "data"),
            *("-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"),
        ]
        log = Path(tempfile.mkstemp(prefix="seedling-postgres-", suffix=".log")[1])

        def accepts() -> bool:
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                return True

        with running(Service(command, log, accepts, cwd=folder, stop_signal=signal.SIGINT, user=account)):
            yield f"postgresql+asyncpg://{user}@127.0.0.1:{port}/postgres"
        log.unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prefect_environment(folder: Path, port: int, database: str | None = None) -> dict[str, str]:
    """The environment of a Prefect server on that port and of its clients, with a home of its own in `folder`."""
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_UI_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    if database is not None:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    return environment


def prefect_server(folder: Path, database: str | None = None) -> Service:
    """A Prefect server, to be started, on SQLite in `folder` or on the given database."""
    port = free_port()
    env = prefect_environment(folder, port, database)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]

    def healthy() -> bool:
        with urllib.request.urlopen(f"{env['PREFECT_API_URL']}/health", timeout=2) as answer:
            return bool(answer.status == 200)

    return Service(command, folder / "prefect-server.log", healthy, env)


def process_worker(server: Service, folder: Path, pool: str = "default", name: str = "test-worker") -> Service:
    """A process worker of the pool, to be started in `folder`. Ready as soon as the server sees it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", name, "--type", "process"]

    def online() -> bool:
        workers = post(server, f"work_pools/{pool}/workers/filter", {})
        return any(worker["name"] == name and worker["status"] == "ONLINE" for worker in workers)

    return Service(command, folder / "worker.log", online, server.env, cwd=folder)


@contextmanager
def s3_store(folder: Path, *buckets: str) -> Iterator[tuple[Service, dict[str, str]]]:
    """An S3 server (moto's) with these buckets; gives it, and the environment with which boto3 and DVC find it."""
    import boto3

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

    def answers() -> bool:
        with urllib.request.urlopen(f"{url}/moto-api/", timeout=2) as answer:
            return bool(answer.status == 200)

    command = [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with running(Service(command, folder / "s3.log", answers)) as service:
        keys = {name.lower(): value for name, value in environment.items() if name != "AWS_DEFAULT_REGION"}
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        yield service, {**environment, "AWS_ENDPOINT_URL": url}


def post(server: Service, route: str, body: Mapping[str, Any]) -> Any:
    """The answer of the server's API to a POST."""
    return prefect_runs.post(server.env["PREFECT_API_URL"], route, body)


def deployment_of(server: Service, name: str) -> dict[str, Any]:
    """The deployment with that name."""
    (deployment,) = post(server, "deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    return dict(deployment)


def runs_of(server: Service, deployment_id: str | None = None) -> list[dict[str, Any]]:
    """Flow runs by start, those of one deployment where it is named, without those that are only scheduled."""
    body: dict[str, Any] = {"sort": "EXPECTED_START_TIME_ASC", "limit": 200}
    if deployment_id is not None:
        body["deployments"] = {"id": {"any_": [deployment_id]}}
    body["flow_runs"] = {"state": {"type": {"not_any_": ["SCHEDULED"]}}}
    return list(post(server, "flow_runs/filter", body))


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """All live processes, zombies aside, whose environment has this variable with this value."""
    living = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def flow_run_processes(env: Mapping[str, str]) -> list[psutil.Process]:
    """Processes that execute a flow run for the worker with this environment."""
    flow_runs = []
    for process in processes_with("PREFECT_HOME", env["PREFECT_HOME"]):
        with suppress(psutil.Error):  # it has ended meanwhile
            if "prefect.flow_engine" in " ".join(process.cmdline()) or "PREFECT__FLOW_RUN_ID" in process.environ():
                flow_runs.append(process)
    return flow_runs
