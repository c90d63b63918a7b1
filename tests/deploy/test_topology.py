"""The topology of deploy/ without containers: PostgreSQL, a Prefect server, a worker, an S3 store and two workspaces on a schedule."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from services import (
    TERMINAL_STATES,
    Service,
    deployment_of,
    flow_run_processes,
    postgres,
    prefect_server,
    process_worker,
    processes_with,
    running,
    runs_of,
    s3_store,
    wait_for,
)
from text_workspaces import TABLE, append_letters, call, deploy, make_letters_workspace

from seedling.dataset.generation import digest

pytestmark = pytest.mark.soak
NAMES = ("letters", "reviews")
INTERVAL_SECONDS = 30
RUNS_EACH = 3
MAX_WAIT_SECONDS = 900


def completed(server: Service, name: str) -> list[dict[str, Any]]:
    """The scheduled runs of the workspace's deployment that have completed."""
    runs = runs_of(server, deployment_of(server, name)["id"])
    return [run for run in runs if run["state"]["type"] == "COMPLETED" and run["auto_scheduled"]]


def state_of(server: Service, run_id: str) -> str:
    """The run's state type."""
    return str(httpx.get(f"{server.env['PREFECT_API_URL']}/flow_runs/{run_id}", timeout=60).json()["state"]["type"])


def unfinished_runs(server: Service) -> set[str]:
    """The ids of runs that a worker has accepted and that have not ended."""
    return {run["id"] for run in runs_of(server) if run["state"]["type"] not in TERMINAL_STATES}


def kill_a_run(server: Service, name: str) -> str:
    """Kills, with signal 9, the process of the workspace's next scheduled run while it works; gives the run's id."""
    deployment_id = deployment_of(server, name)["id"]

    def process_of_run() -> tuple[str, Any] | None:
        at_work = {run["id"] for run in runs_of(server, deployment_id) if run["state"]["type"] == "RUNNING"}
        for process in flow_run_processes(server.env):
            run_id = process.environ().get("PREFECT__FLOW_RUN_ID", "")
            if run_id in at_work:
                return run_id, process
        return None

    run_id, process = wait_for(process_of_run, MAX_WAIT_SECONDS, f"a run of {name}")
    process.send_signal(signal.SIGKILL)
    return str(run_id)


def test_two_workspaces_run_by_the_clock_and_survive_kills(tmp_path: Path) -> None:
    """Three scheduled runs each on PostgreSQL and S3, with a run and the worker killed in between: nothing is lost or left behind."""
    with postgres() as database, s3_store(tmp_path, "seedling") as (_, keys):
        server = prefect_server(tmp_path, database)
        server.env = {**server.env, **keys}
        with running(server):
            prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
            call([*prefect, "work-pool", "create", "default", "--type", "process"], tmp_path, server.env)
            workspaces = {
                name: make_letters_workspace(tmp_path / name, 60, server.env, f"s3://seedling/{name}") for name in NAMES
            }
            for workspace in workspaces.values():
                deploy(workspace, server, INTERVAL_SECONDS)
            killed_run, interrupted = _run_with_kills(server, tmp_path, workspaces)
            _check_prefect(server, killed_run, interrupted)
            for name, workspace in workspaces.items():
                _check_workspace(workspace, tmp_path / f"{name}-clone", server, tmp_path)
        # DVC's commands leave a process that looks for a newer version, for some seconds.
        wait_for(lambda: not processes_with("PREFECT_HOME", server.env["PREFECT_HOME"]), 60, "the end of all processes")


def _run_with_kills(server: Service, folder: Path, workspaces: dict[str, Path]) -> tuple[str, set[str]]:
    """Lets the schedules run, adds rows, kills a run and the worker, until all runs have ended.

    Gives the killed run's id, and the ids of those that the killed worker had accepted or started.
    """

    def each_has(count: int) -> Callable[[], bool]:
        return lambda: all(len(completed(server, name)) >= count for name in workspaces)

    worker = process_worker(server, folder / "elsewhere")
    with running(worker):
        wait_for(each_has(1), MAX_WAIT_SECONDS, "a first run of each workspace")
        for workspace in workspaces.values():
            append_letters(workspace / "data" / TABLE, 60, 10)
        killed_run = kill_a_run(server, "letters")
        wait_for(lambda: state_of(server, killed_run) in TERMINAL_STATES, MAX_WAIT_SECONDS, "the end of the killed run")
        wait_for(each_has(2), MAX_WAIT_SECONDS, "a second run of each workspace")
        interrupted = unfinished_runs(server)
        worker.kill(signal.SIGKILL)
        interrupted |= unfinished_runs(server)
    with running(process_worker(server, folder / "elsewhere", name="second-worker")):
        wait_for(each_has(RUNS_EACH), MAX_WAIT_SECONDS, "three runs of each workspace")
        for name in workspaces:
            deployment_id = deployment_of(server, name)["id"]
            httpx.patch(
                f"{server.env['PREFECT_API_URL']}/deployments/{deployment_id}", json={"paused": True}
            ).raise_for_status()
        wait_for(lambda: not flow_run_processes(server.env), MAX_WAIT_SECONDS, "the end of the last runs")
    return killed_run, interrupted


def _check_prefect(server: Service, killed_run: str, interrupted: set[str]) -> None:
    """All runs but those that were killed, or were with the killed worker, have completed or were skipped."""
    runs = runs_of(server)
    others = [run for run in runs if run["id"] not in {killed_run, *interrupted}]
    ends = {(run["name"], run["state"]["name"], run["state"]["message"]) for run in others}
    assert {end for end in ends if end[1] not in {"Completed", "Cancelled", "Skipped"}} == set()
    assert state_of(server, killed_run) == "CRASHED"


def _check_workspace(workspace: Path, clone: Path, server: Service, folder: Path) -> None:
    """The workspace equals a fresh one of the same data, DVC calls it up to date, and a clone has all of it from the remote."""
    dvc = [sys.executable, "-m", "dvc"]
    assert "up to date" in call([*dvc, "status"], workspace, server.env)
    fresh = make_letters_workspace(folder / f"{workspace.name}-fresh", 70, server.env)
    call([sys.executable, "-m", "dvc", "repro", "validate"], fresh, server.env)
    for stage in ("scrape", "validate"):
        assert digest(workspace / "generations" / stage) == digest(fresh / "generations" / stage)
    call(["git", "add", "--all"], workspace, server.env)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    call(["git", *identity, "commit", "--quiet", "--message", "After three runs"], workspace, server.env)
    call(["git", "clone", "--quiet", workspace, clone], folder, server.env)
    call([*dvc, "pull"], clone, server.env)
    assert "up to date" in call([*dvc, "status"], clone, server.env)
    again = subprocess.run(
        [*dvc, "repro"], cwd=clone, env=dict(server.env), capture_output=True, text=True, timeout=600
    )
    assert "up to date" in again.stdout + again.stderr
    assert "Running stage" not in again.stdout
