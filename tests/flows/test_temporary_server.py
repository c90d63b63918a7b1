"""Prefect's temporary server is killed and restarted, cannot start, is not needed, or runs with proxies set."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect_runs import assert_no_process_is_left, flow_run_states, free_port, own_environment, processes, wait_for

from seedling.config.params import set_value
from seedling.errors import SeedlingError
from seedling.flows.temporary_server import PrefectServer

SECONDS = 900  # for a run of a tiny workspace on a machine that is busy with others


def run(workspace: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`seedling run` in the environment."""
    return subprocess.run(
        ["seedling", "run", "-w", workspace], env=environment, capture_output=True, text=True, timeout=SECONDS
    )


def server_of(environment: dict[str, str]) -> psutil.Process | None:
    """The Prefect server among the environment's processes."""
    return next(
        (process for process in processes(environment) if "seedling.flows.server_process" in process.cmdline()), None
    )


@pytest.mark.soak
def test_a_run_continues_when_its_server_is_killed(finished_copy: Path, tmp_path: Path) -> None:
    """After SIGKILL in the middle of the run the server is restarted, this is reported, and the run completes."""
    set_value(finished_copy, ["seed"], 1)  # so that there is something to do
    set_value(finished_copy, ["train", "candidates"], ["logistic_regression"])
    environment = own_environment(tmp_path)
    output = tmp_path / "output.txt"
    with output.open("w") as log:
        process = subprocess.Popen(
            ["seedling", "run", "-w", finished_copy], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    wait_for(lambda: "scrape" in output.read_text(), SECONDS, output.read_text)
    server = server_of(environment)
    assert server is not None
    server.kill()
    assert process.wait(SECONDS) == 0, output.read_text()
    assert "The Prefect server ended (killed by SIGKILL) and is restarted." in output.read_text()
    assert flow_run_states(environment) == [("COMPLETED", "Completed")]
    assert_no_process_is_left(environment)


@pytest.mark.slow
def test_a_run_works_with_proxies_set_and_keeps_its_history(finished_copy: Path, tmp_path: Path) -> None:
    """A dead proxy is not used for the server on the loopback interface; the run is in PREFECT_HOME's database."""
    proxy = f"http://127.0.0.1:{free_port()}"
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), proxy)
    environment = own_environment(tmp_path, **proxies, NO_PROXY="intranet.example")
    done = run(finished_copy, environment)
    assert done.returncode == 0, done.stderr
    assert flow_run_states(environment) == [("COMPLETED", "Completed")]
    assert (finished_copy / ".seedling" / "logs" / "prefect-server.log").exists()
    assert_no_process_is_left(environment)


@pytest.mark.slow
@pytest.mark.parametrize("location", ["below a file", "in /proc"])
def test_a_read_only_prefect_home_is_reported_in_one_sentence(workspace: Path, tmp_path: Path, location: str) -> None:
    """Exit code 2, with the folder and the fix, and no traceback."""
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "prefect" if location == "below a file" else Path("/proc/prefect")
    done = run(workspace, own_environment(tmp_path, PREFECT_HOME=str(home)))
    assert done.returncode == 2
    assert f"Prefect's folder {home} is not writable" in done.stderr
    assert "set PREFECT_HOME" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.slow
def test_a_dead_api_is_reported_in_one_sentence(workspace: Path, tmp_path: Path) -> None:
    """If PREFECT_API_URL has a port without a listener: exit code 2 within seconds, with the address and the fix."""
    url = f"http://127.0.0.1:{free_port()}/api"
    began = time.monotonic()
    done = run(workspace, own_environment(tmp_path, PREFECT_API_URL=url))
    assert time.monotonic() - began < 45  # a few seconds on an idle machine; Prefect's own retries take over a minute
    assert done.returncode == 2
    assert f"No Prefect server answers at {url}" in done.stderr
    assert "prefect server start" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.slow
def test_a_server_that_cannot_start_is_reported_in_one_sentence_with_its_log(workspace: Path, tmp_path: Path) -> None:
    """A database that cannot be opened: exit code 2, the log's path, no traceback, no process."""
    database = "sqlite+aiosqlite:////dev/null/prefect.db"
    environment = own_environment(tmp_path, PREFECT_API_DATABASE_CONNECTION_URL=database)
    done = run(workspace, environment)
    log = workspace / ".seedling" / "logs" / "prefect-server.log"
    assert done.returncode == 2
    assert "The Prefect server did not start" in done.stderr
    assert str(log) in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "Traceback" in log.read_text()
    assert_no_process_is_left(environment)


@pytest.mark.slow
def test_a_server_that_is_too_slow_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second is too short for any start: the error names the log, and the process is gone."""
    environment = own_environment(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    server = PrefectServer(tmp_path / "logs" / "server.log", print)
    with pytest.raises(SeedlingError, match=r"did not answer within 0 s.*server\.log"):
        server.start(timeout_seconds=0.3)
    assert_no_process_is_left(environment)


@pytest.mark.slow
def test_servers_of_two_runs_can_create_a_database_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both start on an empty PREFECT_HOME at the same moment, and both answer."""
    environment = own_environment(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code = (
        "import sys; from pathlib import Path; from seedling.flows.temporary_server import PrefectServer;"
        "server = PrefectServer(Path(sys.argv[1]), print); server.start(); server.stop()"
    )
    starts = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / f"{number}.log"], env=environment)
        for number in range(2)
    ]
    assert [start.wait(SECONDS) for start in starts] == [0, 0]
    assert_no_process_is_left(environment)


@pytest.mark.slow
def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """After SIGKILL of the parent before the server answers, and once it answers."""
    environment = own_environment(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from seedling.flows.temporary_server import PrefectServer;"
        "server = PrefectServer(Path(sys.argv[1]), print); server.start(); print('ready', flush=True); time.sleep(600)"
    )
    for wait_until_ready in (False, True):
        parent = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "server.log"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert parent.stdout is not None
        if wait_until_ready:
            assert parent.stdout.readline() == "ready\n"
        else:
            wait_for(lambda: server_of(environment), SECONDS)
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.read() == ""  # the pipe closes: the server does not hold it
        parent.wait()
        assert_no_process_is_left(environment)
