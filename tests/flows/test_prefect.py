"""A real Prefect server and a real browser: the run, its stages and artifacts are there to see."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect_runs import post

from seedling.pipeline import stages

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent


def wait_for(check: Any, seconds: float = 90) -> Any:
    """What `check` gives as soon as it gives anything."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if found := check():
                return found
        except (OSError, httpx.HTTPError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """`prefect server start` on a free port with a database of its own; gives the environment of its clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    env = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_API_URL": api,
    }
    env["PREFECT_UI_API_URL"] = api
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: urllib.request.urlopen(f"{api}/health", timeout=2).status == 200)
        yield env
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def test_the_ui_shows_the_run_and_the_report_answers_clicks(server: dict[str, str], workspace: Path) -> None:
    """By the API, and in Chromium on the run's own page."""
    from playwright.sync_api import expect, sync_playwright

    subprocess.run(["seedling", "run", "-w", workspace], env=server, check=True, capture_output=True, timeout=600)
    api = server["PREFECT_API_URL"]
    (run,) = post(api, "flow_runs/filter", {})
    assert run["state"]["type"] == "COMPLETED"
    tasks = [task["name"] for task in sorted(post(api, "task_runs/filter", {}), key=lambda task: task["start_time"])]
    assert set(tasks) >= set(stages())
    at_once = {"augment", "synthesize"}  # two of them run at the same time, in either order
    order = [name for name in stages() if name not in at_once]
    assert [name for name in tasks if name in order] == order
    artifacts = {one["key"] for one in post(api, "artifacts/filter", {})}
    keys = {"run", "rounds", "metrics", "scrape-rows", "scrape-gate", "train-0-rows", "evaluate-gate", "result"}
    assert artifacts >= {f"workspace-{key}" for key in keys}
    told = [one for one in post(api, "artifacts/filter", {}) if one["key"] == "workspace-rounds"]
    lines = sorted(len(json.loads(one["data"])) for one in told)
    trained = len(list((workspace / "models").glob("*/candidates.json")))
    assert (lines[0], lines[-1]) == (1, trained)
    browser_path = shutil.which("chromium")
    assert browser_path, "Chromium is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=browser_path, args=options)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{api.removesuffix('/api')}/runs/flow-run/{run['id']}")
        expect(page.get_by_text(run["name"]).first).to_be_visible(timeout=60_000)
        page.locator("#artifacts").click()
        expect(page.get_by_text("workspace-scrape-rows").first).to_be_visible(timeout=60_000)
        page.screenshot(path=workspace / "ui.png")
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((workspace / "reports" / "report.html").as_uri())
        expect(page.locator("table.matrix")).to_be_hidden()  # all parts below the first screen are folded
        page.locator("#errors > summary").click()
        page.locator("table.matrix button.cell").first.click()
        expect(page.locator("#examples-of figure").first).to_be_visible()
        page.locator("#examples-of button.row").first.click()
        expect(page.locator("#history")).to_have_attribute("open", "")  # the link to a row opens its part
        expect(page.locator("#story")).to_contain_text("the model predicts")
        expect(page.locator("#story img")).to_be_visible()
        page.locator("#row-query").fill("labeled/disc/0.png")
        expect(page.locator("#story")).to_contain_text("rows match")  # itself and its children
        assert problems == []
        browser.close()


def test_the_folds_of_a_long_round_are_tasks_on_the_flows_task_runner(
    server: dict[str, str], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of 100 steps is predicted to take long: its five folds are in Prefect's record, and the bytes are as without."""
    from seedling.config.params import set_value
    from seedling.dataset.generation import digest

    set_value(workspace, ["train", "candidates"], ["network"])
    set_value(workspace, ["train", "steps"], 100)
    set_value(workspace, ["pseudo_label", "rounds"], 0)
    set_value(workspace, ["train", "budget_seconds"], 1000.0)
    subprocess.run(["seedling", "run", "-w", workspace], env=server, check=True, capture_output=True, timeout=600)
    names = [one["name"] for one in post(server["PREFECT_API_URL"], "task_runs/filter", {})]
    assert sorted(one for one in names if one.startswith("fold")) == [f"fold {number}" for number in range(5)]
    made = digest(workspace / "models/0")
    subprocess.run([sys.executable, "-m", "seedling.runner", "train@0"], cwd=workspace, check=True, timeout=600)
    assert digest(workspace / "models/0") == made
