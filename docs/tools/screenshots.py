"""Make the screenshots of docs/images/ from a real run: the report, the data page and Prefect's UI.

    python docs/tools/screenshots.py [--workspace FOLDER]

The embedded digits, with three labeled images per class, are run against a temporary Prefect server. --workspace keeps
the workspace, Prefect's database and the logs in a folder, and takes the run that is there, if any; by default they are
temporary. Needs Debian's Chromium (`apt-get install chromium`), and takes about five minutes on two cores.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

PROJECT = Path(__file__).parents[2]
IMAGES = PROJECT / "docs" / "images"
REPORTS_URL = "http://reports.example"
LABELED_PER_CLASS = 3  # so few that the report has something to advise
WIDTH_PIXELS, HEIGHT_PIXELS = 1280, 860
WEBP_QUALITY = 80
MAX_IMAGE_BYTES = 150_000
SERVER_TIMEOUT_SECONDS = 180
REQUEST_TIMEOUT_SECONDS = 120
PAGE_TIMEOUT_MILLISECONDS = 120_000


def make_digits_workspace(folder: Path) -> Path:
    """Make the workspace of the embedded digits with a few labeled images per class."""
    from seedling.init.create import make_workspace

    data = folder / "digits-data"
    subprocess.run([sys.executable, PROJECT / "examples" / "digits" / "prepare.py", data], check=True)
    for class_folder in (data / "labeled").iterdir():
        for image in sorted(class_folder.iterdir())[LABELED_PER_CLASS:]:
            image.unlink()
    site = shutil.move(data / "site", folder / "site")
    workspace = make_workspace(folder / "digits", data, "image")
    shutil.copytree(site, workspace / "data" / "site")
    params = (PROJECT / "params.yaml").read_text(encoding="utf-8")
    params += f"\nreports: {{base_url: '{REPORTS_URL}'}}\n"  # links to the pages instead of a path of this machine
    (workspace / "params.yaml").write_text(params, encoding="utf-8")
    return workspace


def free_port() -> int:
    """Return a loopback port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run the command in its own session until the block ends."""
    with log.open("w", encoding="utf-8") as file:
        running = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(timeout=60)


@contextmanager
def prefect_server(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Start a Prefect server with its own database; yield its address and the environment of its clients."""
    address = f"http://127.0.0.1:{free_port()}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    }
    start = [sys.executable, "-m", "prefect", "server", "start", "--port", address.rpartition(":")[2]]
    with process(start, environment, folder / "server.log"):
        deadline = time.monotonic() + SERVER_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{address}/api/health").is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        else:
            raise TimeoutError(
                f"Prefect's server did not start within {SERVER_TIMEOUT_SECONDS} s: see its log in {folder}."
            )
        yield address, environment | {"PREFECT_API_URL": f"{address}/api"}


@contextmanager
def browser_page() -> Iterator[Any]:
    """Open a page in Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("Chromium is needed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-quic"])
        page = browser.new_page(viewport={"width": WIDTH_PIXELS, "height": HEIGHT_PIXELS})
        page.set_default_timeout(PAGE_TIMEOUT_MILLISECONDS)
        yield page
        browser.close()


def save(page: Any, name: str, **options: Any) -> None:
    """Write docs/images/<name>.webp. Raises ValueError if it is too large for the repository."""
    path = IMAGES / f"{name}.webp"
    image = Image.open(io.BytesIO(page.screenshot(**options)))
    image.convert("RGB").save(path, quality=WEBP_QUALITY, method=6)
    size = path.stat().st_size
    if size > MAX_IMAGE_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; the maximum is {MAX_IMAGE_BYTES:,}: lower WEBP_QUALITY.")
    print(f"{path.relative_to(PROJECT)}: {image.width}x{image.height}, {size:,} bytes", flush=True)


def take_report_screenshots(page: Any, reports: Path) -> None:
    """Write the screenshots of the report and the data page."""
    page.goto((reports / "report.html").as_uri())
    save(page, "report")
    page.goto((reports / "data.html").as_uri())
    page.get_by_role("heading", name="Likely label errors").first.scroll_into_view_if_needed()
    save(page, "data-page")


def latest_flow_run(api: str) -> dict[str, Any]:
    """Return the flow run that started last."""
    runs: list[dict[str, Any]] = httpx.post(
        f"{api}/flow_runs/filter", json={"sort": "START_TIME_DESC"}, timeout=REQUEST_TIMEOUT_SECONDS
    ).json()
    return runs[0]


def take_prefect_screenshots(page: Any, address: str) -> None:
    """Write the screenshots of the runs, of one run and of its result in Prefect's UI."""
    run = latest_flow_run(f"{address}/api")
    page.goto(f"{address}/runs/flow-run/{run['id']}")
    page.get_by_text("Task Runs", exact=True).click()
    page.get_by_text("evaluate").first.wait_for()
    page.wait_for_timeout(3000)  # the timeline is drawn and moves into its place
    save(page, "prefect-run")
    by_run = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    artifacts = httpx.post(f"{address}/api/artifacts/filter", json=by_run, timeout=REQUEST_TIMEOUT_SECONDS).json()
    result = next(artifact for artifact in artifacts if artifact["key"].endswith("-result"))
    page.goto(f"{address}/artifacts/artifact/{result['id']}")
    page.get_by_role("heading", name="Stages").wait_for()
    page.wait_for_timeout(1000)
    save(page, "prefect-result")


def main() -> None:
    """Run the workspace and take all screenshots."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workspace", type=Path, help="a new folder for the workspace, Prefect's database and the logs"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.workspace or Path(temporary)
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with prefect_server(folder) as (address, environment):
            if not (folder / "digits").exists():
                workspace = make_digits_workspace(folder)
                run = [sys.executable, "-m", "seedling.cli.main", "run", "-w", str(workspace)]
                subprocess.run(run, env=environment, check=True)
            with browser_page() as page:
                take_report_screenshots(page, folder / "digits" / "reports")
                take_prefect_screenshots(page, address)


if __name__ == "__main__":
    main()
