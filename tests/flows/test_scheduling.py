"""`seedling schedule` and Prefect's worker: runs that start by the clock, never overlap, catch up once and can be cancelled."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect_runs import (
    assert_no_process_is_left,
    command_line,
    flow_runs,
    kill_all,
    own_environment,
    post,
    processes,
    wait_for,
)

from seedling.config.params import set_value
from seedling.lock import workspace_lock

pytestmark = pytest.mark.slow
SECONDS = 900
MISSED_RUNS = 30
QUIET_MINUTES = 10
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of the test's commands; what is left of them after a failed test is killed."""
    environment = own_environment(tmp_path)
    yield environment
    kill_all(environment)


@pytest.fixture
def api(environment: dict[str, str], prefect_variables: dict[str, str]) -> str:
    """The API of the shared Prefect server, which the environment's commands use."""
    environment |= prefect_variables
    return prefect_variables["PREFECT_API_URL"]


def start(command: list[Any], environment: dict[str, str], output: Path, folder: Path | None = None) -> Any:
    """A command whose output goes into a file."""
    with output.open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder)


def start_schedule(workspace: Path, environment: dict[str, str], output: Path, cron: str = "* * * * *") -> Any:
    """`seedling schedule`, by default every minute; returns once it is ready."""
    command = ["seedling", "schedule", "--cron", cron, "--timezone", "Europe/Paris", "-w", workspace]
    process = start(command, environment, output)
    wait_for(lambda: f"Scheduled '{workspace.name}'" in output.read_text(), SECONDS, output.read_text)
    return process


def states(api_url: str) -> Counter[tuple[str, str]]:
    """How many flow runs are in each final state."""
    return Counter(
        (run["state"]["type"], run["state"]["name"]) for run in flow_runs(api_url) if run["state"]["type"] in FINAL
    )


def completed(api_url: str) -> list[dict[str, Any]]:
    """The runs that completed."""
    return [run for run in flow_runs(api_url) if run["state"]["type"] == "COMPLETED"]


def scheduled_count(api_url: str) -> int:
    """How many flow runs wait for their time."""
    return sum(run["state"]["type"] == "SCHEDULED" for run in flow_runs(api_url))


def deployment_id_of(api_url: str, name: str) -> str:
    """The id of the deployment with that name."""
    (deployment,) = post(api_url, "deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    return str(deployment["id"])


def kill_and_let_time_pass(process: Any, environment: dict[str, str], api_url: str) -> int:
    """Kill the schedule with its server, and let 90 minutes pass, of which it planned 60 to 72; returns how many runs were missed."""
    wait_for(lambda: scheduled_count(api_url) > MISSED_RUNS, SECONDS)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_no_process_is_left(environment)
    missed = _let_time_pass(environment, minutes=90)
    assert missed > MISSED_RUNS
    return missed


def assert_one_run_catches_up(
    workspace: Path, environment: dict[str, str], output: Path, api_url: str, *, cron: str, missed: int
) -> Any:
    """Start the schedule again: of the missed runs one is done and the others are skipped; returns the process."""
    resumed = datetime.now(UTC)
    process = start_schedule(workspace, environment, output, cron)
    wait_for(lambda: any(_started_after(run, resumed) for run in completed(api_url)), SECONDS, output.read_text)
    late = [run for run in flow_runs(api_url) if _was_due_before(run, resumed - timedelta(minutes=5))]
    caught_up = [run for run in late if run["state"]["type"] == "COMPLETED"]
    assert len(caught_up) == 1
    assert caught_up[0]["auto_scheduled"]
    assert states(api_url)["CANCELLED", "Skipped"] >= missed - 1
    assert not {"FAILED", "CRASHED"} & {kind for kind, _ in states(api_url)}
    return process


def quiet_cron() -> str:
    """A cron expression for every minute but those of the next ten, in which no run starts by the clock."""
    now = datetime.now(UTC).minute
    minutes = [str(minute) for minute in range(60) if (minute - now) % 60 > QUIET_MINUTES]
    return f"{','.join(minutes)} * * * *"


def assert_a_held_workspace_is_skipped(workspace: Path, output: Path, api_url: str, request: Callable[[], Any]) -> None:
    """While another run holds the workspace, a run that is requested or due ends as skipped, which says why."""

    def skipped() -> list[dict[str, Any]]:
        runs = [run for run in flow_runs(api_url) if run["state"]["name"] == "Skipped"]
        return [run for run in runs if "Another run" in run["state"]["message"]]

    with workspace_lock(workspace):  # as a `seedling run` by hand holds it
        request()
        wait_for(skipped, SECONDS, output.read_text)
    assert {run["state"]["type"] for run in skipped()} == {"CANCELLED"}
    assert not {"FAILED", "CRASHED"} & {kind for kind, _ in states(api_url)}


def test_missed_runs_are_replaced_by_one_and_a_held_workspace_is_skipped(
    finished_copy: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """After downtime one scheduled run starts by itself; while another holds the workspace, a run is skipped; Ctrl-C ends the schedule."""
    output = tmp_path / "schedule.txt"
    api_url = f"http://127.0.0.1:{environment['PREFECT_SERVER_API_PORT']}/api"
    cron = quiet_cron()
    process = start_schedule(finished_copy, environment, output, cron)
    missed = kill_and_let_time_pass(process, environment, api_url)
    process = assert_one_run_catches_up(finished_copy, environment, output, api_url, cron=cron, missed=missed)
    deployment_id = deployment_id_of(api_url, finished_copy.name)
    request = partial(_ask_for_run, api_url, deployment_id)
    assert_a_held_workspace_is_skipped(finished_copy, output, api_url, request)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert_no_process_is_left(environment)


@pytest.mark.soak
def test_runs_start_by_the_clock_never_overlap_and_catch_up_once(
    finished_copy: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Two runs start by themselves, a minute apart; while another holds the workspace, a run that is due is skipped; after downtime, one starts."""
    output = tmp_path / "schedule.txt"
    api_url = f"http://127.0.0.1:{environment['PREFECT_SERVER_API_PORT']}/api"
    process = start_schedule(finished_copy, environment, output)
    wait_for(lambda: len(completed(api_url)) >= 2, SECONDS, output.read_text)
    assert all(run["auto_scheduled"] for run in completed(api_url))
    started = [datetime.fromisoformat(run["start_time"]) for run in completed(api_url)]
    assert started[1] - started[0] > timedelta(seconds=20)
    assert_a_held_workspace_is_skipped(finished_copy, output, api_url, lambda: None)
    missed = kill_and_let_time_pass(process, environment, api_url)
    process = assert_one_run_catches_up(finished_copy, environment, output, api_url, cron="* * * * *", missed=missed)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert_no_process_is_left(environment)


def _started_after(run: dict[str, Any], moment: datetime) -> bool:
    return bool(run["start_time"]) and datetime.fromisoformat(run["start_time"]) > moment


def _was_due_before(run: dict[str, Any], moment: datetime) -> bool:
    return datetime.fromisoformat(run["expected_start_time"]) < moment


def _let_time_pass(environment: dict[str, str], minutes: int) -> int:
    """Moves the scheduled runs in the stopped server's database into the past; returns how many are now due."""
    with sqlite3.connect(Path(environment["PREFECT_HOME"]) / "prefect.db") as database:
        for column in ("expected_start_time", "next_scheduled_start_time"):
            database.execute(
                f"UPDATE flow_run SET {column} = strftime('%Y-%m-%d %H:%M:%f000', {column}, ?) WHERE state_type = 'SCHEDULED'",
                (f"-{minutes} minutes",),
            )
        scheduled = "SELECT id, state_details FROM flow_run_state WHERE type = 'SCHEDULED'"
        for state_id, text in database.execute(scheduled).fetchall():  # a run waits for the time that its state names
            details = json.loads(text)
            due = datetime.fromisoformat(details["scheduled_time"]) - timedelta(minutes=minutes)
            changed = json.dumps({**details, "scheduled_time": due.isoformat()})
            database.execute("UPDATE flow_run_state SET state_details = ? WHERE id = ?", (changed, state_id))
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        query = "SELECT count(*) FROM flow_run WHERE state_type = 'SCHEDULED' AND expected_start_time < ?"
        return int(database.execute(query, (now,)).fetchone()[0])


@pytest.mark.parametrize("by_clock", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["requested", "due"])
def test_a_run_that_is_due_while_another_is_at_work_is_cancelled(
    finished_copy: Path, environment: dict[str, str], api: str, tmp_path: Path, *, by_clock: bool
) -> None:
    """A run of several minutes on a given server: none of the runs due meanwhile fails, and SIGTERM ends the schedule and it."""
    workspace = finished_copy.rename(tmp_path / f"long-{by_clock}")  # the name of its deployment
    _make_long(workspace)
    output = tmp_path / "schedule.txt"
    process = start_schedule(workspace, environment, output, "* * * * *" if by_clock else "0 6 1 1 *")
    deployment_id = deployment_id_of(api, workspace.name)

    def runs_in(state: str) -> list[dict[str, Any]]:
        runs = flow_runs(api, deployments={"id": {"any_": [deployment_id]}})
        return [run for run in runs if run["state"]["type"] == state]

    if not by_clock:
        _ask_for_run(api, deployment_id)
        wait_for(lambda: runs_in("RUNNING"), SECONDS, output.read_text)
        _ask_for_run(api, deployment_id)
    cancelled = wait_for(lambda: runs_in("CANCELLED"), SECONDS, output.read_text)
    assert {run["state"]["name"] for run in cancelled} == {"Cancelled"}
    assert [run for state in FINAL - {"CANCELLED"} for run in runs_in(state)] == []
    (running,) = runs_in("RUNNING")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, output.read_text()
    assert_no_process_is_left(environment, 60)
    assert httpx.get(f"{api}/flow_runs/{running['id']}").json()["state"]["type"] in {"CANCELLED", "CRASHED"}


@pytest.mark.soak
def test_a_worker_runs_a_deployment_and_a_cancelled_run_leaves_no_process(
    finished_copy: Path, environment: dict[str, str], api: str, tmp_path: Path
) -> None:
    """`prefect deploy --all` and a process worker: a run completes; another one is cancelled through the API and really stops."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "prefect.yaml").write_text(
        "name: seedling\n"
        "deployments:\n"
        "  - name: nightly\n"
        "    entrypoint: seedling.flows.grow.scheduled\n"
        f"    parameters: {{workspace: '{finished_copy}'}}\n"
        "    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}\n"
        "    work_pool: {name: machines}\n"
    )
    for command in (["work-pool", "create", "machines", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        done = subprocess.run(
            ["prefect", *command], cwd=project, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
    deployment_id = deployment_id_of(api, "nightly")
    output = tmp_path / "worker.txt"
    worker = start(
        ["prefect", "worker", "start", "--pool", "machines", "--type", "process"], environment, output, project
    )

    first = _ask_for_run(api, deployment_id)
    wait_for(lambda: _state(api, first) in FINAL, SECONDS, output.read_text)
    assert _state(api, first) == "COMPLETED", output.read_text()

    _make_long(finished_copy)
    second = _ask_for_run(api, deployment_id)
    wait_for(lambda: "validate: done" in output.read_text(), SECONDS, output.read_text)
    time.sleep(5)
    post(api, f"flow_runs/{second}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    wait_for(lambda: _state(api, second) in FINAL, SECONDS, output.read_text)
    assert _state(api, second) == "CANCELLED", output.read_text()

    def at_work() -> list[psutil.Process]:
        return [process for process in processes(environment) if "prefect.engine" in command_line(process)]

    wait_for(lambda: not at_work(), 60, output.read_text)

    third = _ask_for_run(api, deployment_id)
    wait_for(at_work, SECONDS, output.read_text)
    time.sleep(5)
    worker.send_signal(signal.SIGKILL)
    wait_for(lambda: not at_work(), 60, output.read_text)
    assert _state(api, third) in {"CRASHED", "PENDING"}


def _make_long(workspace: Path) -> None:
    """A training of an hour."""
    for keys, value in (
        (["seed"], 3),
        (["train", "candidates"], ["network"]),
        (["train", "steps"], 1_000_000),
        (["train", "budget_seconds"], 10_000.0),
    ):
        set_value(workspace, keys, value)


def _ask_for_run(api: str, deployment_id: str) -> str:
    return str(post(api, f"deployments/{deployment_id}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"])


def _state(api: str, flow_run_id: str) -> str:
    return str(httpx.get(f"{api}/flow_runs/{flow_run_id}").json()["state"]["type"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--cron", "at noon", "is not a cron expression"), ("--timezone", "Atlantis", "Unknown time zone 'Atlantis'")],
)
def test_a_schedule_that_is_not_valid_is_one_sentence(
    finished_copy: Path, environment: dict[str, str], option: str, value: str, message: str
) -> None:
    """Exit code 2, and no server is started."""
    options = {"--cron": "0 6 * * *", option: value}
    words = [word for pair in options.items() for word in pair]
    command = ["seedling", "schedule", *words, "-w", str(finished_copy)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert_no_process_is_left(environment)


def test_the_former_option_of_serve_names_the_command_to_use() -> None:
    """`seedling serve --cron` ends with 2."""
    done = subprocess.run(["seedling", "serve", "--cron", "0 6 * * *"], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "seedling schedule --cron" in done.stderr
