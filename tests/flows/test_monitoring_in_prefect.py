"""Monitoring in Prefect's UI: names, tags, trends, links that open, events, and one sentence per failure.

One real server and one workspace for all tests: a first run, a run with more data, and a run that a gate stops.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prefect_runs import post
from shapes import SHAPES, draw
from short_runs import shorten_runs
from webhooks import webhook

from seedling.pipeline import stages

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
PATIENCE_SECONDS = 240
RUN_TIMEOUT_SECONDS = 900


@dataclass
class Watched:
    """A workspace that was run three times on a server, and the requests that a webhook received."""

    workspace: Path
    api: str
    ui_port: int
    env: dict[str, str]
    received: list[dict[str, Any]]
    failed_output: str

    def runs(self) -> list[dict[str, Any]]:
        """The flow runs, oldest first."""
        runs: list[dict[str, Any]] = post(self.api, "flow_runs/filter", {"sort": "START_TIME_ASC"})
        return runs

    def artifacts(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The artifacts of the run by key."""
        run_filter = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
        return {artifact["key"]: artifact for artifact in post(self.api, "artifacts/filter", run_filter)}


def wait_for(check: Callable[[], Any]) -> Any:
    """Poll `check` and return its first true result."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        try:
            if result := check():
                return result
        except (OSError, httpx.HTTPError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"not within {PATIENCE_SECONDS} s")


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """Run the command in a session of its own within the block."""
    with log.open("w") as file:
        started = subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait(timeout=30)


def write_images(folder: Path, names: str, count: int, rng: np.random.Generator) -> None:
    """Images of each shape below folder/<shape>/."""
    for shape in SHAPES:
        for number in range(count):
            path = folder / shape / f"{names}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(shape, rng)).save(path)


def make_watched_workspace(folder: Path) -> Path:
    """A small workspace called flowers, whose webhook receives failed gates."""
    from seedling.init.create import make_workspace

    rng = np.random.default_rng(7)
    write_images(folder / "images" / "labeled", "a", 6, rng)
    write_images(folder / "images" / "test", "a", 5, rng)
    write_images(folder / "images" / "unlabeled", "a", 3, rng)
    workspace = make_workspace(folder / "flowers", folder / "images", "image")
    notify = {"webhook": "${SEEDLING_TEST_WEBHOOK}", "allow_private": True, "events": ["gate_failed"]}
    return shorten_runs(workspace, augment__augmentations_per_row=1, pseudo_label__rounds=1, notify=notify)


def create_automation(folder: Path, env: dict[str, str], address: str) -> None:
    """Apply deploy/automations.yaml with a notification block that posts to the address."""
    code = (
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
        f"block = Block(name='ops', url={address + 'automation'!r}, json_data={{'text': '{{{{body}}}}', 'subject': '{{{{subject}}}}'}})\n"
        "print(block.save('ops', overwrite=True))"
    )
    saved = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    text = (PROJECT / "deploy" / "automations.yaml").read_text(encoding="utf-8")
    file = folder / "automations.yaml"
    file.write_text(text.replace("BLOCK_ID", saved.stdout.strip().splitlines()[-1]), encoding="utf-8")
    subprocess.run(
        ["prefect", "automation", "create", "--from-file", file], env=env, check=True, capture_output=True, timeout=300
    )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Three runs on a real server while `seedling serve-reports` listens on all interfaces: a first run, more data, a
    failed gate.
    """
    folder, port, pages_port = tmp_path_factory.mktemp("watched"), free_port(), free_port()
    workspace, api = make_watched_workspace(folder), f"http://127.0.0.1:{port}/api"
    server_env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PREFECT_HOME": str(folder / "home")}
    server_env |= {"PREFECT_UI_API_URL": "/api", "PREFECT_SERVER_EPHEMERAL_ENABLED": "false"}
    serve = ["seedling", "serve-reports", "-w", str(workspace), "--host", "0.0.0.0", "--port", str(pages_port)]  # noqa: S104
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104
    with webhook() as (address, received), process(server, server_env, folder / "server.log"):
        env = {**server_env, "PREFECT_API_URL": api, "SEEDLING_TEST_WEBHOOK": f"{address}direct"}
        wait_for(lambda: httpx.get(f"{api}/health").status_code == 200)
        with process(serve, env, folder / "pages.log"):
            wait_for((workspace / ".seedling" / "report-server.json").is_file)
            create_automation(folder, env, address)
            run = ["seedling", "run", "-w", str(workspace)]
            subprocess.run(run, env=env, check=True, capture_output=True, timeout=RUN_TIMEOUT_SECONDS)
            write_images(workspace / "data" / "labeled", "b", 2, np.random.default_rng(8))
            subprocess.run(run, env=env, check=True, capture_output=True, timeout=RUN_TIMEOUT_SECONDS)
            gates = (workspace / "gates.yaml").read_text(encoding="utf-8")
            strict = "validate:\n  - expect_column_values_to_be_between: {column: width, min_value: 1000}\n"
            (workspace / "gates.yaml").write_text(gates.replace("validate:\n", strict), encoding="utf-8")
            failed = subprocess.run(run, env=env, capture_output=True, text=True, timeout=RUN_TIMEOUT_SECONDS)
            assert failed.returncode == 1, failed.stderr
            yield Watched(workspace, api, port, env, received, failed.stderr)


@contextmanager
def chromium(*, only_loopback: bool = False) -> Iterator[Any]:
    """A page in Debian's Chromium. With only_loopback, every other request is blocked and fails the test."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "Chromium is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        outside: list[str] = []
        if only_loopback:

            def decide(route: Any) -> None:
                url = route.request.url
                if url.startswith(("file:", "data:", "http://127.0.0.1")):
                    route.continue_()
                else:
                    outside.append(url)
                    route.abort()

            page.route("**/*", decide)
        yield page
        browser.close()
        assert outside == []


def test_runs_have_names_and_tags_that_describe_them(watched: Watched) -> None:
    """The name has the workspace, the time, and what changed; the tags have the workspace, the effort and the outcome."""
    first, second, failed = watched.runs()
    assert [run["name"][len("flowers 2026-11-28 18:03 ") :] for run in (first, second, failed)] == [
        "first run",
        "data +6",
        "gates",
    ]
    assert all(run["name"].startswith("flowers 20") for run in (first, second, failed))
    # With six labels per class the probability that round 1 has a lower log loss stays below the limit.
    assert [sorted(run["tags"]) for run in (first, second, failed)] == [
        ["flowers", "quick", "rejected"],
        ["flowers", "quick", "rejected"],
        ["flowers", "gate failed", "quick"],
    ]


def test_each_stage_is_a_task_and_each_round_a_row_of_an_artifact(watched: Watched) -> None:
    """In the API, the first run has its tasks in the order of the pipeline, and the artifacts of stages, gates and
    rounds.
    """
    run = watched.runs()[0]
    assert run["state"]["type"] == "COMPLETED"
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    started = sorted(post(watched.api, "task_runs/filter", of_run), key=lambda task: task["start_time"])
    tasks = [task["name"] for task in started]
    assert set(tasks) >= set(stages())
    at_once = {"augment", "synthesize"}  # two of them run at the same time, in either order
    order = [name for name in stages() if name not in at_once]
    assert [name for name in tasks if name in order] == order
    keys = {"run", "rounds", "metrics", "scrape-rows", "scrape-gate", "train-0-rows", "evaluate-gate", "result"}
    assert watched.artifacts(run).keys() >= {f"flowers-{key}" for key in keys}
    artifacts = post(watched.api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    lines = sorted(len(json.loads(artifact["data"])) for artifact in artifacts if artifact["key"] == "flowers-rounds")
    assert (lines[0], lines[-1]) == (1, 2)  # after round 0, and after round 1


def test_the_ui_shows_the_run_and_the_report_is_interactive(watched: Watched) -> None:
    """In Chromium, on the page of the first run, and on the report as a file."""
    from playwright.sync_api import expect

    run = watched.runs()[0]
    with chromium() as page:
        page.goto(f"http://127.0.0.1:{watched.ui_port}/runs/flow-run/{run['id']}")
        expect(page.get_by_text(run["name"]).first).to_be_visible(timeout=60_000)
        page.locator("#artifacts").click()
        expect(page.get_by_text("flowers-scrape-rows").first).to_be_visible(timeout=60_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((watched.workspace / "reports" / "report.html").as_uri())
        expect(page.locator("table.matrix")).to_be_hidden()  # all parts below the first screen are folded
        page.locator("#errors > summary").click()
        page.locator("table.matrix button.cell").first.click()
        expect(page.locator("#examples-of figure").first).to_be_visible()
        page.locator("#examples-of button.row").first.click()
        expect(page.locator("#history")).to_have_attribute("open", "")  # the link to a row opens its part
        expect(page.locator("#story")).to_contain_text("the model predicts")
        expect(page.locator("#story img")).to_be_visible()
        page.locator("#row-query").fill("labeled/disc/a0.png")
        expect(page.locator("#story")).to_contain_text("rows match")  # itself and its children
        assert problems == []


def test_artifacts_have_the_workspaces_name_and_trends(watched: Watched) -> None:
    """The metrics table has a row per run; the result has the trend, a chart, stages and gates."""
    _, second, failed = watched.runs()
    artifacts = watched.artifacts(second)
    assert all(key.startswith("flowers-") for key in artifacts)
    assert artifacts.keys() >= {"flowers-result", "flowers-metrics", "flowers-scrape-gate", "flowers-train-0-rows"}
    lines = json.loads(artifacts["flowers-metrics"]["data"])
    assert [line["what changed"] for line in lines] == ["data +6", "first run"]
    assert all(0 <= float(line["accuracy"].split()[0]) <= 1 for line in lines)
    result = artifacts["flowers-result"]["data"]
    for part in ("data:image/svg+xml;base64,", "data +6", "## Stages", "## Gates", "| scrape |"):
        assert part in result
    assert "file://" not in result
    gate = json.loads(watched.artifacts(failed)["flowers-validate-gate"]["data"])
    assert any(line["passed"] == "NO" for line in gate)


@pytest.mark.parametrize("host", ["127.0.0.1", socket.gethostname()])
def test_links_in_the_ui_open(watched: Watched, host: str) -> None:
    """In Chromium, on the artifact's page, by the loopback address and by the machine's name; the chart is displayed."""
    from playwright.sync_api import expect

    artifact = watched.artifacts(watched.runs()[1])["flowers-result"]
    with chromium() as page:
        page.goto(f"http://{host}:{watched.ui_port}/artifacts/artifact/{artifact['id']}")
        link = page.get_by_role("link", name="Report", exact=True)
        expect(link).to_be_visible(timeout=60_000)
        chart = page.get_by_role("img", name="Accuracy with its interval, per run")
        expect(chart).to_be_visible(timeout=60_000)
        assert chart.evaluate("image => image.complete && image.naturalWidth > 0")
        for title in ("Report", "History", "Gates"):
            page.goto(f"http://{host}:{watched.ui_port}/artifacts/artifact/{artifact['id']}")
            pages_before = set(page.context.pages)
            page.get_by_role("link", name=title, exact=True).click(timeout=60_000)
            page.wait_for_timeout(1000)
            opened = next(iter(set(page.context.pages) - pages_before), page)
            expect(opened.get_by_text(f"Seedling {title.lower()}").first).to_be_visible(timeout=60_000)
            assert opened.url.endswith(f"/flowers/{title.lower()}.html") and opened.url.startswith("http://")


def test_a_failed_gate_is_reported_in_one_sentence(watched: Watched) -> None:
    """The run and the stage have the state Failed with the gate's sentence.

    One error is logged without a traceback; the command prints all details.
    """
    failed = watched.runs()[2]
    sentence = failed["state"]["message"]
    assert failed["state"]["type"] == "FAILED"
    assert sentence.startswith("The gate of stage 'validate' failed: expect_column_values_to_be_between (width)")
    assert "\n" not in sentence and "quarantine/validate-" in sentence and len(sentence) < 700
    task_filter = {"flow_runs": {"id": {"any_": [failed["id"]]}}}
    states = {task["name"]: task["state"] for task in post(watched.api, "task_runs/filter", task_filter)}
    assert states["validate"]["type"] == "FAILED" and states["validate"]["message"] == sentence

    def messages() -> list[dict[str, Any]]:
        logs: list[dict[str, Any]] = post(
            watched.api, "logs/filter", {"logs": {"flow_run_id": {"any_": [failed["id"]]}}}
        )
        return logs if any(log["level"] >= 40 for log in logs) else []

    logs = wait_for(messages)
    assert len([log for log in logs if log["level"] >= 40]) == 1
    assert all("Traceback" not in log["message"] and "\n" not in log["message"] for log in logs)
    assert "The gate of stage 'validate' failed." in watched.failed_output
    assert "Fix the data, or change the limit" in watched.failed_output


def test_events_reach_prefect_the_webhook_and_an_automation(watched: Watched) -> None:
    """A failed gate is an event of the workspace; the webhook in params.yaml and the example automation both report it."""

    def event() -> Any:
        event_filter = {"filter": {"event": {"prefix": ["seedling."]}}}
        events = post(watched.api, "events/filter", event_filter)["events"]
        return [event_record for event_record in events if event_record["event"] == "seedling.gate.failed"]

    (failed,) = wait_for(event)
    assert failed["resource"]["prefect.resource.id"] == "seedling.workspace.flowers"
    assert "validate" in failed["payload"]["sentence"]
    (direct,) = [body for body in watched.received if body.get("event")]
    assert direct["event"] == "seedling.gate.failed" and direct["workspace"] == "flowers"
    assert direct["run"].endswith(" gates") and direct["links"]["Gates"].endswith("/flowers/gates.html")
    automated = wait_for(lambda: [body for body in watched.received if body.get("subject")])
    assert any("seedling.gate.failed: flowers" in body["subject"] and "validate" in body["text"] for body in automated)


def test_pages_are_complete_without_a_network(watched: Watched) -> None:
    """Gates, history, report and data page request only loopback addresses, and the gates' page shows the failure."""
    from playwright.sync_api import expect

    with chromium(only_loopback=True) as page:
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        for name in ("report", "data", "history", "gates"):
            page.goto((watched.workspace / "reports" / f"{name}.html").as_uri())
            expect(page.get_by_role("heading", level=1)).to_have_text("flowers")
        expect(page.get_by_text("Failing now")).to_be_visible()
        expect(page.locator("#validate + .scroll")).to_contain_text("min_value=1000")
        page.goto((watched.workspace / "reports" / "history.html").as_uri())
        assert page.locator("svg.chart").count() == 5
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert problems == []
