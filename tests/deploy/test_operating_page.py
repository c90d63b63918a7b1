"""The first part of docs/operating.md, "The first night", executed literally: its commands, its minutes, its clicks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import pytest
from services import BIN, Service, free_port, runs_of, wait_for

pytestmark = pytest.mark.soak
PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs/operating.md"
STEP_TIMEOUT_SECONDS = 600  # of what the page promises for the next minutes
FIRST_RUN_SECONDS = 900


def blocks_of(step: str) -> list[str]:
    """The shell blocks of a numbered step of the page."""
    text = PAGE.read_text(encoding="utf-8").split("## The first night")[1].split("\n## ")[0]
    section = re.search(rf"^### {re.escape(step)}[^\n]*\n(.*?)(?=^### |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert section, step
    return re.findall(r"^```sh\n(.*?)^```", section[1], flags=re.MULTILINE | re.DOTALL)


@contextmanager
def terminal(script: str, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A shell in which a person has typed the script; Ctrl-C at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=PROJECT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_listen_to_control_c,
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it, to all processes in its foreground
        process.wait(timeout=STEP_TIMEOUT_SECONDS)


def _listen_to_control_c() -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # which a test that runs in the background would ignore, and its children


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of a new user on a fresh machine, whose Prefect server takes a free port in place of 4200."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    port = str(free_port())
    return {
        **kept,
        "HOME": str(tmp_path),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_API_URL_OF_THE_TEST": f"http://127.0.0.1:{port}/api",
    }


def scheduled_runs(server: Service, state: str, after: str = "") -> list[dict[str, Any]]:
    """Runs that the clock started after that moment and that ended in the state."""
    return [
        run
        for run in runs_of(server)
        if run["auto_scheduled"] and run["state"]["type"] == state and run["expected_start_time"] > after
    ]


def test_the_first_night_of_the_page_works(environment: dict[str, str], tmp_path: Path) -> None:
    """Two scheduled runs, the report from the run's page, a message about the bad batch, and a run that passes once it
    is fixed.
    """
    api = environment.pop("PREFECT_API_URL_OF_THE_TEST")
    server = Service([], tmp_path / "unused.log", lambda: True, {**environment, "PREFECT_API_URL": api})
    notify, listener = blocks_of("4.")
    webhook_port = str(free_port())
    (once_and_schedule,) = blocks_of("5.")
    first_terminal = "\n".join([*blocks_of("2."), *blocks_of("3."), notify, once_and_schedule]).replace(
        "9000", webhook_port
    )
    bad_batch, correction = blocks_of("7.")
    messages, log = tmp_path / "messages.txt", tmp_path / "schedule.log"
    workspace = tmp_path / "nightly/requests"
    with (
        terminal(listener.replace("9000", webhook_port), environment, messages),
        terminal(first_terminal, environment, log) as schedule,
    ):

        def two_runs() -> bool:
            assert schedule.poll() is None, log.read_text(errors="replace")
            return len(scheduled_runs(server, "COMPLETED")) >= 2

        wait_for(two_runs, FIRST_RUN_SECONDS + STEP_TIMEOUT_SECONDS, f"two runs by the clock; see {log}")
        first, second = scheduled_runs(server, "COMPLETED")[:2]
        assert {first["expected_start_time"][17:19], second["expected_start_time"][17:19]} == {"00"}
        _open_the_report(api, second)

        subprocess.run(["bash", "-e", "-c", bad_batch], env=environment, check=True)
        (failed, *_) = wait_for(lambda: scheduled_runs(server, "FAILED"), STEP_TIMEOUT_SECONDS, "the failed run")
        assert "weahter" in failed["state"]["message"]
        assert "Traceback" not in failed["state"]["message"]
        wait_for(lambda: "weahter" in messages.read_text(), STEP_TIMEOUT_SECONDS, "the message")
        assert "Traceback" not in log.read_text(errors="replace")

        subprocess.run(["bash", "-e", "-c", correction], env=environment, check=True)
        after = failed["expected_start_time"]
        wait_for(
            lambda: scheduled_runs(server, "COMPLETED", after), STEP_TIMEOUT_SECONDS, "the run after the correction"
        )
    rows = pd.concat(pd.read_parquet(path) for path in (workspace / "generations/scrape").glob("part-*.parquet"))
    assert len(rows) == 161
    assert not [process for process in psutil.process_iter() if _is_of(process, tmp_path)]


def _is_of(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get("HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _open_the_report(api: str, run: dict[str, Any]) -> None:
    """In Chromium: the run's page, its artifacts, the result, the link to the report, which opens."""
    from playwright.sync_api import expect, sync_playwright

    browser_path = shutil.which("chromium")
    assert browser_path, "Chromium is needed: apt-get install chromium"
    options = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=options)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{api.removesuffix('/api')}/runs/flow-run/{run['id']}")
        expect(page.get_by_text(run["name"]).first).to_be_visible(timeout=120_000)
        page.locator("#artifacts").click()
        page.get_by_text("requests-result").first.click()
        link = page.get_by_role("link", name="Report", exact=True).first
        expect(link).to_be_visible(timeout=120_000)
        address = link.get_attribute("href")
        assert address
        assert httpx.get(address).status_code == 200
        link.click()
        page = browser.contexts[0].pages[-1]
        expect(page.get_by_role("heading", level=1).first).to_be_visible(timeout=120_000)
        assert page.url.startswith("http://")
        browser.close()
