"""A run that is stopped: by Ctrl-C, SIGTERM, SIGKILL, or by its reader's leaving, at any moment, with any child process."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from loopback import Reply, site
from PIL import Image
from prefect_runs import (
    assert_no_process_is_left,
    flow_run_states,
    kill_all,
    own_environment,
    processes,
    wait_for,
)

from seedling.config.params import set_value

SECONDS = 900
STOP_SECONDS = 10.0  # five are promised; the rest is for machines that are busy with others
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of the test's commands; what is left of them after a failed test is killed."""
    environment = own_environment(tmp_path)
    yield environment
    kill_all(environment)


def start(workspace: Path, environment: dict[str, str], output: Path, *command: str) -> subprocess.Popen[bytes]:
    """`seedling run`, or another command, whose output goes into a file."""
    with output.open("wb") as log:
        return subprocess.Popen(
            [*(command or ("seedling", "run")), "-w", workspace],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], number: signal.Signals, environment: dict[str, str], output: Path) -> None:
    """Sends the signal, and checks the exit code, the seconds, the last line, and that no process is left."""
    assert process.poll() is None, output.read_text()
    began = time.monotonic()
    process.send_signal(number)
    code = process.wait(SECONDS)
    seconds = time.monotonic() - began
    assert code == EXIT_CODES[number], output.read_text()
    assert seconds < STOP_SECONDS
    text = output.read_text()
    assert "Traceback" not in text
    assert ("Stopped." in text) == (number != signal.SIGKILL)
    assert_no_process_is_left(environment)


def _holds(workspace: Path, process_id: int) -> bool:
    """Whether the process has got so far as to take the workspace, before it starts Prefect."""
    return (workspace / ".seedling" / "run.pid").read_text() == str(process_id)


def _works_or_ended(process: subprocess.Popen[bytes], environment: dict[str, str], module: str) -> bool:
    """Whether a child process of this module is at work, or the run ended without one, which `stop` then tells."""
    return process.poll() is not None or any(
        module in word for child in processes(environment) for word in child.cmdline()
    )


def _stages_are_finished(output: Path, count: int) -> bool:
    return output.read_text().count(" s  ") >= count


@pytest.mark.soak
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, signal.SIGKILL],
    ids=lambda number: number.name,
)
def test_a_run_that_is_stopped_at_random_moments_leaves_no_process(
    finished_copy: Path, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """While Prefect starts, between stages and within them; then the run goes on and completes."""
    moments = np.random.default_rng(int(number))
    output = tmp_path / "output.txt"
    set_value(finished_copy, ["seed"], int(number))  # so that there is something to do
    set_value(finished_copy, ["effort"], "normal")
    for finished_stages in (0, int(moments.integers(1, 5))):
        process = start(finished_copy, environment, output)
        wait_for(partial(_holds, finished_copy, process.pid), SECONDS, output.read_text)
        if finished_stages:
            finished = partial(_stages_are_finished, output, finished_stages)
            wait_for(finished, SECONDS, output.read_text)
        time.sleep(moments.uniform(0.5, 4))
        stop(process, number, environment, output)
    if number != signal.SIGKILL:
        assert [state for state, _ in flow_run_states(environment) if state not in {"CANCELLED", "CRASHED"}] == []
    set_value(finished_copy, ["effort"], "quick")
    set_value(finished_copy, ["train", "candidates"], ["logistic_regression"])
    assert start(finished_copy, environment, output).wait(SECONDS) == 0, output.read_text()
    assert_no_process_is_left(environment)


@pytest.mark.soak
def test_ctrl_c_during_a_long_training_ends_the_run(
    finished_copy: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Training threads cannot be interrupted: the process ends nevertheless, and Prefect shows the run as ended."""
    for keys, value in (
        (["train", "candidates"], ["network"]),
        (["train", "steps"], 200_000),
        (["train", "budget_seconds"], 10_000.0),
    ):
        set_value(finished_copy, keys, value)
    output = tmp_path / "output.txt"
    process = start(finished_copy, environment, output)
    wait_for(lambda: re.search(r"augment .* s  ", output.read_text()), SECONDS, output.read_text)
    time.sleep(8)  # augment and synthesize are done together, then training begins
    stop(process, signal.SIGINT, environment, output)
    assert [state for state, _ in flow_run_states(environment)] in (["CANCELLED"], ["CRASHED"])


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_processes_of_a_pool_end_with_the_run(
    finished_copy: Path, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """Large images are augmented by a process pool: it is at work when the run is stopped."""
    generator = np.random.default_rng(0)
    folder = next(iter(sorted((finished_copy / "data" / "labeled").iterdir())))
    for image in range(40):
        pixels = generator.integers(0, 255, (800, 800, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"large-{image}.png", compress_level=1)
    set_value(finished_copy, ["augment", "augmentations_per_row"], 20)
    output = tmp_path / "output.txt"
    for stage in ("scrape", "validate"):
        assert start(finished_copy, environment, output, "seedling", "stage", stage).wait(SECONDS) == 0
    process = start(finished_copy, environment, output, "seedling", "stage", "augment")
    wait_for(partial(_works_or_ended, process, environment, "loky"), SECONDS, output.read_text)
    stop(process, number, environment, output)


@pytest.mark.soak
@pytest.mark.parametrize("number", list(EXIT_CODES), ids=lambda number: number.name)
def test_a_spider_ends_with_the_run(
    finished_copy: Path, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """The site answers slowly: the spider waits for it when the run is stopped."""
    with site() as slow_site:
        slow_site.routes["/robots.txt"] = Reply("", status=404)
        slow_site.routes["/*"] = Reply("<img src=a.png>", hold=30)
        source = {"kind": "crawl", "start": [f"{slow_site.address}/"], "item": "img", "image": "::attr(src)"}
        source["allow_private_hosts"] = ["127.0.0.1"]
        set_value(finished_copy, ["scrape", "sources"], [{"kind": "folder", "path": "."}, source])
        output = tmp_path / "output.txt"
        process = start(finished_copy, environment, output, "seedling", "run", "--visit")
        wait_for(partial(_works_or_ended, process, environment, "seedling.scrape.spider"), SECONDS, output.read_text)
        time.sleep(2)
        stop(process, number, environment, output)


@pytest.mark.slow
def test_a_pipe_closes_when_the_run_is_killed(finished_copy: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """`seedling run | tee log`: whoever reads sees the end, since no process that is left holds the pipe."""
    set_value(finished_copy, ["seed"], 5)
    log = tmp_path / "log.txt"
    script = f"seedling run -w '{finished_copy}' | tee '{log}'"
    shell = subprocess.Popen(["bash", "-c", script], env=environment, stdout=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: log.exists() and "scrape" in log.read_text(), SECONDS)
    for process in processes(environment):
        if process.name().startswith("seedling"):
            process.kill()
    assert shell.stdout is not None
    shell.stdout.read()
    shell.wait(60)
    assert_no_process_is_left(environment)


@pytest.mark.soak
def test_a_run_goes_on_when_its_reader_leaves(finished_copy: Path, environment: dict[str, str]) -> None:
    """`seedling run | head -1` has all stages done, without an error."""
    set_value(finished_copy, ["seed"], 6)
    script = f"seedling run -w '{finished_copy}' | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert json.loads((finished_copy / "reports" / "metrics.json").read_text())
    assert flow_run_states(environment) == [("COMPLETED", "Completed")]
    assert_no_process_is_left(environment)


@pytest.mark.soak
def test_a_time_out_ends_the_run(finished_copy: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """`timeout 30 seedling run` leaves no process."""
    set_value(finished_copy, ["seed"], 7)
    set_value(finished_copy, ["effort"], "thorough")
    command = ["timeout", "30", "seedling", "run", "-w", str(finished_copy)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 124
    assert "Stopped." in done.stderr
    assert_no_process_is_left(environment)


@pytest.mark.soak
def test_an_ignored_hangup_stays_ignored(finished_copy: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Under nohup, SIGHUP does not end the run."""
    output = tmp_path / "output.txt"
    process = start(finished_copy, environment, output, "nohup", "seedling", "run")
    wait_for(lambda: _holds(finished_copy, process.pid), SECONDS, output.read_text)
    psutil.Process(process.pid).send_signal(signal.SIGHUP)
    assert process.wait(SECONDS) == 0, output.read_text()
    assert_no_process_is_left(environment)
