"""Runs that wait for reviewers, on real Prefect servers: answers, the time-out, a person in Prefect's UI, a key, a schedule."""

from __future__ import annotations

import os
import pty
import select
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import sync_playwright
from prefect_runs import (
    assert_no_process_is_left,
    command_line,
    flow_run_states,
    flow_runs,
    kill_all,
    own_environment,
    post,
    processes,
    wait_for,
)
from review_pages import LAUNCH, PAGE_MILLISECONDS
from webhooks import webhook

from seedling.config.params import load, set_value
from seedling.config.review_params import ReviewParams
from seedling.flows.reviewing import planned_wait, resume_if_met, waits_after
from seedling.review.address import write_server_address
from seedling.review.log import ReviewLog
from seedling.review.records import Answer

SECONDS = 900
WAITS = "The run waits for reviewers: 0 of 5 answers."


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of the test's commands; what is left of them after a failed test is killed."""
    environment = own_environment(tmp_path)
    yield environment
    kill_all(environment)


@pytest.fixture
def waiting_workspace(finished_copy: Path) -> Path:
    """A finished workspace with another seed, whose next run waits for five answers after validate."""
    set_value(finished_copy, ["seed"], 1)
    set_value(finished_copy, ["train", "candidates"], ["logistic_regression"])
    set_value(finished_copy, ["review"], {"wait_after": "validate", "answers": 5, "timeout_minutes": 60})
    return finished_copy


def start(workspace: Path, environment: dict[str, str], output: Path, **options: Any) -> subprocess.Popen[bytes]:
    """`seedling run`, whose output goes into a file."""
    settings = {"stdin": subprocess.DEVNULL, "start_new_session": True, **options}
    with output.open("ab") as log:
        return subprocess.Popen(
            ["seedling", "run", "-w", workspace], env=environment, stdout=log, stderr=log, **settings
        )


def answer_rows(workspace: Path, rows: slice) -> list[str]:
    """Confirm the labels of these training rows, by id, as a review server does; returns their ids."""
    tables = [pq.read_table(path).to_pylist() for path in (workspace / "generations/validate").glob("part-*.parquet")]
    labels = sorted((row["id"], row["label"]) for table in tables for row in table if row["split"] == "train")[rows]
    log = ReviewLog(workspace)
    for row_id, label in labels:
        fields = {"id": uuid.uuid4().hex, "reviewer": "anna", "row_id": row_id, "question": "label"}
        log.append("anna", [Answer.model_validate({**fields, "answer": "label", "label": label})])
    return [row_id for row_id, _ in labels]


def label_sources(workspace: Path) -> dict[str, str | None]:
    """The source of each row's label in the present generation of validate."""
    tables = [pq.read_table(path).to_pylist() for path in (workspace / "generations/validate").glob("part-*.parquet")]
    return {row["id"]: row["label_source"] for table in tables for row in table}


def state_names(environment: dict[str, str]) -> list[str]:
    """The names of all states of the newest flow run in the environment's own database, the oldest first."""
    database = Path(environment["PREFECT_HOME"]) / "prefect.db"
    query = (
        "SELECT name FROM flow_run_state WHERE flow_run_id = (SELECT id FROM flow_run ORDER BY created DESC LIMIT 1) "
        "ORDER BY timestamp"
    )
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        return [name for (name,) in connection.execute(query)]


def test_a_run_does_not_wait_by_default(tmp_path: Path) -> None:
    """Nor does one whose quota is met, whose time is over, or that waits after another stage."""
    assert not waits_after(planned_wait(tmp_path, ReviewParams(), None), "validate")
    wait = planned_wait(tmp_path, ReviewParams(wait_after="validate", answers=1), None)
    assert waits_after(wait, "validate")
    assert not waits_after(wait, "pseudo_label")
    assert not waits_after(None, "validate")
    over = planned_wait(tmp_path, ReviewParams(wait_after="validate"), datetime.fromisoformat("2026-01-01T00:00Z"))
    assert not waits_after(over, "validate")
    until = wait.begun().deadline
    assert wait.begun().deadline - until < timedelta(minutes=1)
    assert planned_wait(tmp_path, ReviewParams(wait_after="validate"), until).begun().deadline == until
    fields = {"id": uuid.uuid4().hex, "reviewer": "anna", "row_id": uuid.uuid4().hex, "question": "label"}
    ReviewLog(tmp_path).append("anna", [Answer.model_validate({**fields, "answer": "bad"})])
    assert not waits_after(wait, "validate")


@pytest.mark.slow
def test_the_first_run_of_a_new_workspace_does_not_wait(finished_workspace: Path) -> None:
    """Prefect's database of that run has no state in which it was paused."""
    environment = {"PREFECT_HOME": str(finished_workspace.parent / "prefect")}
    assert load(finished_workspace).review.wait_after is None
    assert flow_run_states(environment) == [("COMPLETED", "Completed")]
    assert "Paused" not in state_names(environment)


@pytest.mark.soak
def test_a_run_in_a_terminal_goes_on_when_five_answers_are_in_the_log(
    waiting_workspace: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """It names the command, stays at validate until then, and applies the answers in the same run; the next one does not wait."""
    output = tmp_path / "output.txt"
    process = start(waiting_workspace, environment, output)
    wait_for(lambda: WAITS in output.read_text(), SECONDS, output.read_text)
    assert f"Review with `seedling review -w {waiting_workspace}`. It goes on at 5 answers, or without them at " in (
        output.read_text()
    )
    answered = answer_rows(waiting_workspace, slice(4))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(8)
    assert state_names(environment)[-1] == "Paused"
    answered += answer_rows(waiting_workspace, slice(4, 5))
    assert process.wait(SECONDS) == 0, output.read_text()
    assert state_names(environment)[-1] == "Completed"
    sources = label_sources(waiting_workspace)
    assert {row for row, source in sources.items() if source == "review"} == set(answered)
    set_value(waiting_workspace, ["train", "bootstrap_draws"], 300)
    set_value(waiting_workspace, ["review", "timeout_minutes"], 0.05)
    again = tmp_path / "again.txt"
    assert start(waiting_workspace, environment, again).wait(SECONDS) == 0, again.read_text()
    assert WAITS in again.read_text()  # the five answers are those of the last run
    assert_no_process_is_left(environment)


@pytest.mark.soak
def test_ctrl_c_during_the_wait_stops_and_a_killed_wait_is_waited_again(
    waiting_workspace: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 130 at once; after kill -9 the next run waits at the same stage, which is unchanged, and leaves no process."""
    output, second, third = (tmp_path / f"{number}.txt" for number in range(3))
    process = start(waiting_workspace, environment, output)
    wait_for(lambda: WAITS in output.read_text(), SECONDS, output.read_text)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130, output.read_text()
    assert "Stopped. Finished stages are kept" in output.read_text()
    process = start(waiting_workspace, environment, second)
    wait_for(lambda: WAITS in second.read_text(), SECONDS, second.read_text)
    process.kill()
    process.wait()
    assert_no_process_is_left(environment)
    process = start(waiting_workspace, environment, third)
    wait_for(lambda: WAITS in third.read_text(), SECONDS, third.read_text)
    assert "= validate" in third.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert_no_process_is_left(environment)


@pytest.mark.soak
def test_enter_in_the_terminal_goes_on_without_answers(
    waiting_workspace: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """On a real pseudo-terminal, where the live table is shown: no Ctrl-C is needed, and no answer."""
    environment |= {"TERM": "xterm-256color", "COLUMNS": "400"}  # so that no sentence is wrapped
    process_id, terminal = pty.fork()
    if process_id == 0:  # the child
        os.execvpe("seedling", ["seedling", "run", "-w", str(waiting_workspace)], environment)  # noqa: S606
    written = bytearray()

    def read_screen() -> str:
        while select.select([terminal], [], [], 0.1)[0]:
            try:
                written.extend(os.read(terminal, 65_536))
            except OSError:  # the child has ended
                break
        return written.decode(errors="replace")

    wait_for(lambda: "Press Enter to go on now." in read_screen(), SECONDS, read_screen)
    os.write(terminal, b"\n")
    wait_for(lambda: "Report: " in read_screen(), SECONDS, read_screen)
    wait_for(lambda: read_screen() and os.waitpid(process_id, os.WNOHANG)[0], SECONDS, read_screen)
    os.close(terminal)
    assert state_names(environment)[-1] == "Completed"


def notified(workspace: Path) -> None:
    """Let the workspace's events of waiting runs be sent to a webhook."""
    target = {"webhook": "${SEEDLING_TEST_WEBHOOK}", "allow_private": True, "events": ["needs_review"]}
    set_value(workspace, ["notify"], target)


def runs_of(api: str, workspace: Path) -> list[dict[str, Any]]:
    """The workspace's flow runs on a shared server, without those that wait for their time, the oldest first."""
    runs = [run for run in flow_runs(api) if run["parameters"].get("workspace") == str(workspace)]
    return [run for run in runs if run["state"]["type"] != "SCHEDULED"]


def resume_by_click(api: str, flow_run_id: str, note: str, *, goes_on: bool) -> None:
    """Open the run's page in Prefect's UI, fill in the form of the button Resume, and submit it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**LAUNCH)
        page = browser.new_page()
        page.set_default_timeout(PAGE_MILLISECONDS)
        page.goto(f"{api.removesuffix('/api')}/runs/flow-run/{flow_run_id}")
        page.get_by_role("button", name="Resume").click()
        page.get_by_text("The run waits for reviewers: 0 of 5 answers.").last.wait_for()
        if not goes_on:
            page.get_by_role("switch").click()
        page.get_by_role("textbox").fill(note)
        page.get_by_role("button", name="Submit").click()
        page.get_by_role("button", name="Submit").wait_for(state="detached")
        browser.close()


@pytest.mark.slow
def test_a_person_resumes_or_ends_a_run_in_prefects_ui(
    waiting_workspace: Path, environment: dict[str, str], prefect_variables: dict[str, str], tmp_path: Path
) -> None:
    """By clicks in the run's form, with typed input; the run's page links to the reviewer, and a webhook is told."""
    api, output = prefect_variables["PREFECT_API_URL"], tmp_path / "output.txt"
    workspace = waiting_workspace.rename(tmp_path / "reviewed-flowers")
    notified(workspace)
    write_server_address(workspace, "http://127.0.0.1:8765/?token=t")
    with webhook() as (address, received):
        environment |= {**prefect_variables, "SEEDLING_TEST_WEBHOOK": address}
        process = start(workspace, environment, output)
        (run,) = wait_for(lambda: [run for run in runs_of(api, workspace) if run["state"]["type"] == "PAUSED"], SECONDS)
        wait_for(lambda: "open at http://127.0.0.1:8765/?token=t." in output.read_text(), SECONDS, output.read_text)
        assert f"Review with `seedling review -w {workspace}`." in output.read_text()
        artifacts = post(api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
        (review,) = [artifact for artifact in artifacts if artifact["key"] == "reviewed-flowers-review"]
        assert "[Open the reviewer](http://127.0.0.1:8765/?token=t)" in review["data"]
        wait_for(lambda: received)
        assert received[0]["event"] == "seedling.needs-review" and WAITS in received[0]["text"]
        assert received[0]["links"]["Review"] == "http://127.0.0.1:8765/"
        assert "token" not in received[0]["text"]
        refused = post(api, f"flow_runs/{run['id']}/resume", {"run_input": {"continue_run": "perhaps"}})
        assert refused["status"] == "REJECT"
        resume_by_click(api, run["id"], "Wrong data.", goes_on=False)
        assert process.wait(SECONDS) == 0, output.read_text()
        assert "Ended by a person during the review. Wrong data." in output.read_text()
        assert runs_of(api, workspace)[-1]["state"]["type"] == "CANCELLED"
        again = tmp_path / "again.txt"
        process = start(workspace, environment, again)
        (run,) = wait_for(lambda: [run for run in runs_of(api, workspace) if run["state"]["type"] == "PAUSED"], SECONDS)
        resume_by_click(api, run["id"], "Enough.", goes_on=True)
        assert process.wait(SECONDS) == 0, again.read_text()
    assert runs_of(api, workspace)[-1]["state"]["type"] == "COMPLETED"
    logs = post(api, "logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert any("The run goes on. Enough." in log["message"] for log in logs)


@pytest.mark.soak
def test_a_waiting_run_that_is_cancelled_in_prefects_ui_stops(
    waiting_workspace: Path, environment: dict[str, str], prefect_variables: dict[str, str], tmp_path: Path
) -> None:
    """No worker watches a `seedling run`: its process ends by itself, as after Ctrl-C, and leaves no other."""
    api, output = prefect_variables["PREFECT_API_URL"], tmp_path / "output.txt"
    workspace = waiting_workspace.rename(tmp_path / "reviewed-cancelled")
    environment |= prefect_variables
    process = start(workspace, environment, output)
    (run,) = wait_for(lambda: [run for run in runs_of(api, workspace) if run["state"]["type"] == "PAUSED"], SECONDS)
    wait_for(lambda: WAITS in output.read_text(), SECONDS, output.read_text)
    post(api, f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert process.wait(120) == 130, output.read_text()
    assert "Traceback" not in output.read_text()
    assert_no_process_is_left(environment)


@pytest.mark.soak
def test_a_run_goes_on_after_pseudo_label_at_the_time_out(
    waiting_workspace: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """It waits once, after the models of round 0, and goes on without answers at the time that it states."""
    set_value(waiting_workspace, ["review"], {"wait_after": "pseudo_label", "answers": 5, "timeout_minutes": 0.2})
    output = tmp_path / "output.txt"
    process = start(waiting_workspace, environment, output)
    wait_for(lambda: WAITS in output.read_text(), SECONDS, output.read_text)
    began = time.monotonic()
    wait_for(lambda: state_names(environment)[-1] == "Running", SECONDS, output.read_text)
    assert time.monotonic() - began > 8
    assert process.wait(SECONDS) == 0, output.read_text()
    text = output.read_text()
    assert text.count(WAITS) == 1
    assert text.index("+ train@0") < text.index(WAITS) < text.index("= train@0") < text.index("+ evaluate")
    assert state_names(environment)[-1] == "Completed" and state_names(environment).count("Paused") == 1


def paused_run(api: str, workspace: Path, output: Path) -> dict[str, Any]:
    """The workspace's only suspended run, as soon as there is one."""

    def paused() -> list[dict[str, Any]]:
        return [run for run in runs_of(api, workspace) if run["state"]["name"] == "Suspended"]

    (run,) = wait_for(paused, SECONDS, output.read_text)
    return run


def state_of(api: str, run: dict[str, Any]) -> dict[str, Any]:
    """The present state of a flow run."""
    (present,) = flow_runs(api, flow_runs={"id": {"any_": [run["id"]]}})
    return dict(present["state"])


def time_out_runs(api: str, workspace: Path) -> list[dict[str, Any]]:
    """The runs that are scheduled for the time-out of a wait."""
    runs = flow_runs(api, flow_runs={"tags": {"all_": ["review-time-out"]}})
    return [run for run in runs if run["parameters"]["workspace"] == str(workspace)]


@pytest.mark.soak
def test_a_scheduled_run_is_suspended_replaced_and_resumed(
    waiting_workspace: Path, environment: dict[str, str], prefect_variables: dict[str, str], tmp_path: Path
) -> None:
    """Its process ends; a later run takes its place and keeps the time-out; the server's callback resumes that one."""
    api, output = prefect_variables["PREFECT_API_URL"], tmp_path / "schedule.txt"
    workspace = waiting_workspace.rename(tmp_path / "reviewed-letters")
    environment |= prefect_variables
    command = ["seedling", "schedule", "--cron", "0 6 1 1 *", "--timezone", "Europe/Paris", "-w", str(workspace)]
    with output.open("ab") as log:
        schedule = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    wait_for(lambda: "Scheduled 'reviewed-letters'" in output.read_text(), SECONDS, output.read_text)
    (deployment,) = post(api, "deployments/filter", {"deployments": {"name": {"any_": ["reviewed-letters"]}}})
    request = f"deployments/{deployment['id']}/create_flow_run"
    post(api, request, {"state": {"type": "SCHEDULED"}})
    first = paused_run(api, workspace, output)
    wait_for(
        lambda: not [process for process in processes(environment) if "prefect.engine" in command_line(process)], 60
    )
    (time_out,) = time_out_runs(api, workspace)
    post(api, request, {"state": {"type": "SCHEDULED"}})
    wait_for(lambda: state_of(api, first)["type"] == "CANCELLED", SECONDS, output.read_text)
    assert "a later run waits for reviewers" in state_of(api, first)["message"]
    second = paused_run(api, workspace, output)
    assert state_of(api, time_out)["name"] == "Skipped"
    later = [run for run in time_out_runs(api, workspace) if run["id"] != time_out["id"]]
    assert later[0]["expected_start_time"][:19] == time_out["expected_start_time"][:19]
    assert not resume_if_met(workspace)
    answered = answer_rows(workspace, slice(5))
    assert resume_if_met(workspace) or state_of(api, second)["type"] != "PAUSED"  # the schedule may be faster
    wait_for(lambda: state_of(api, second)["type"] == "COMPLETED", SECONDS, output.read_text)
    assert {row for row, source in label_sources(workspace).items() if source == "review"} == set(answered)
    assert state_of(api, later[0])["name"] == "Skipped"
    assert "scrape: unchanged" in output.read_text()
    schedule.send_signal(signal.SIGINT)
    assert schedule.wait(60) == 130
    assert_no_process_is_left(environment)


@pytest.mark.soak
def test_a_suspended_run_goes_on_at_its_time_out(
    waiting_workspace: Path, environment: dict[str, str], prefect_variables: dict[str, str], tmp_path: Path
) -> None:
    """With a worker alone, the run that is scheduled for the time-out takes its place, and completes without answers."""
    api, output = prefect_variables["PREFECT_API_URL"], tmp_path / "worker.txt"
    workspace = waiting_workspace.rename(tmp_path / "reviewed-alone")
    set_value(workspace, ["review", "timeout_minutes"], 0.1)
    environment |= prefect_variables
    project = tmp_path / "project"
    project.mkdir()
    (project / "prefect.yaml").write_text(
        "name: seedling\n"
        "deployments:\n"
        "  - name: reviewed-alone\n"
        "    entrypoint: seedling.flows.grow.scheduled\n"
        f"    parameters: {{workspace: '{workspace}'}}\n"
        "    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}\n"
        "    work_pool: {name: reviewers}\n"
    )
    for command in (["work-pool", "create", "reviewers", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        subprocess.run(
            ["prefect", *command], cwd=project, env=environment, check=True, capture_output=True, timeout=SECONDS
        )
    (deployment,) = post(api, "deployments/filter", {"deployments": {"name": {"any_": ["reviewed-alone"]}}})
    with output.open("ab") as log:
        worker = subprocess.Popen(
            ["prefect", "worker", "start", "--pool", "reviewers", "--type", "process"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=project,
        )
    post(api, f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    first = paused_run(api, workspace, output)
    wait_for(lambda: state_of(api, first)["type"] == "CANCELLED", SECONDS, output.read_text)
    (time_out,) = time_out_runs(api, workspace)
    wait_for(lambda: state_of(api, time_out)["type"] == "COMPLETED", SECONDS, output.read_text)
    assert not (workspace / ".seedling/review/waiting.json").exists()
    worker.terminate()
    worker.wait(60)
