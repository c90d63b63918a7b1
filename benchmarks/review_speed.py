"""Measure the review page with a scripted reviewer in Chromium: from the key to the next row on the screen.

    python benchmarks/review_speed.py [--rows 1000 100000 1000000] [--sides 8 224 2000] [--answers 200]

The rows of each setting are written as a generation, without a run. The reviewer presses the next key as soon as a row
is painted, so that the page has no time to prepare. The page measures each answer itself (`answer-to-paint`, from the
key to the frame after the row is in the document). Memory is the resident memory of the server's process, with the
features and the ranking of the queue.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Page, sync_playwright
from record import RESULTS, Measurement, write

from seedling.dataset.generation import GenerationWriter, Row
from seedling.media import images
from seedling.workspace import Workspace

CLASSES = [f"class {number}" for number in range(10)]
DIFFERENT_IMAGES = 200  # of large images; the ids differ, so that nothing is cached twice
GRID_KEYS_PER_SCREEN = 2  # of 36 rows, 95 % of them right: two are marked
GRID_ROWS = 36
SECONDS_PER_ITEM = 0.6  # that a person needs to decide
TIMEOUT_MILLISECONDS = 60_000


def write_workspace(folder: Path, rows: int, side: int) -> None:
    """Write params and the generations of scrape and validate with labeled rows."""
    subprocess.run(
        [Path(sys.executable).with_name("seedling"), "init", folder, "--collect", "images", "--encoder", "none"],
        check=True,
        capture_output=True,
    )
    rng = np.random.default_rng(rows + side)
    encoded = [encoded_image(rng, side) for _ in range(min(rows, DIFFERENT_IMAGES if side > 8 else rows, 20_000))]
    paths = Workspace(folder)
    fields = ["p_label_error", "original_label"]
    with (
        GenerationWriter(paths.generation("scrape"), stage="scrape", modality="image") as collected,
        GenerationWriter(
            paths.generation("validate"), stage="validate", modality="image", images=False, extra=extra_fields()
        ) as validated,
    ):
        for number in range(rows):
            row_id = f"{int.from_bytes(rng.bytes(16), 'big'):032x}"
            label = CLASSES[number * len(CLASSES) // rows]  # folder by folder, as files are collected
            values: dict[str, Any] = {"split": "train", "label": label, "label_source": "human", "group": row_id}
            origin = f"labeled/{label}/{number}.png"
            collected.keep(Row(row_id, origin=origin, payload=encoded[number % len(encoded)], **values))
            extra = {fields[0]: float(rng.random() ** 8), fields[1]: None}
            validated.keep(Row(row_id, origin=origin, extra=extra, fold=number % 5, **values))
        collected.close(rows_in=rows)
        validated.close(rows_in=rows, classes=CLASSES)


def extra_fields() -> Any:
    """The columns of validate that the review reads."""
    import pyarrow as pa

    return [pa.field("p_label_error", pa.float32()), pa.field("original_label", pa.string())]


def encoded_image(rng: np.random.Generator, side: int) -> bytes:
    """An encoded image: noise of 8 × 8 pixels, enlarged to the side."""
    noise = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
    pixels = noise if side == 8 else images.resized(noise, side, side)
    return images.encode(pixels) if side <= 8 else images.compressed(pixels, 90)


@contextmanager
def server(workspace: Path) -> Iterator[tuple[str, psutil.Process, float]]:
    """`seedling review`. Yields the address, the process, and the seconds until it was ready."""
    program = str(Path(sys.executable).with_name("seedling"))
    command = [program, "review", "-w", str(workspace), "--no-browser", "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = ""
    while not (match := re.search(r"http://\S+token=\S+", output)):
        line = process.stdout.readline() if process.stdout else ""
        output += line
        if not line:
            raise RuntimeError(output)
    try:
        yield match[0], psutil.Process(process.pid), time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def wait_for_ranking(address: str) -> None:
    """Wait for the first ranking."""
    base, _, token = address.partition("/?token=")
    request = urllib.request.Request(f"{base}/api/panel", headers={"X-Review-Token": token})  # noqa: S310  (loopback)
    while True:
        with urllib.request.urlopen(request) as response:  # noqa: S310
            panel = json.load(response)
        if panel["queue_version"] > 1 and not panel["refitting"]:
            return
        time.sleep(0.5)


def timings(page: Page) -> list[float]:
    """Milliseconds from each key to the next row on the screen."""
    script = "performance.getEntriesByName('answer-to-paint').map(entry => entry.duration)"
    durations: list[float] = page.evaluate(script)
    return durations


def review(page: Page, address: str, mode: str, answers: int) -> tuple[list[float], float]:
    """Answer rows in a mode. Returns the timings and the seconds for all answers."""
    page.goto(address)
    page.select_option("#mode", mode)
    page.wait_for_selector(
        f"body[data-mode='{mode}'][data-painted]:not([data-painted=''])", timeout=TIMEOUT_MILLISECONDS
    )
    page.wait_for_timeout(2_000)  # for the rows after the first
    began = time.perf_counter()
    for _ in range(answers):
        row_id = page.evaluate("document.body.dataset.row")
        if mode == "grid":
            for marked in range(GRID_KEYS_PER_SCREEN):
                page.keyboard.press(f"Digit{marked + 1}")
        asks_class = page.evaluate("!document.getElementById('classes').hidden")
        page.keyboard.press("Enter" if mode == "grid" else "Digit4" if asks_class else "KeyA")
        page.wait_for_selector(
            f"body:not([data-row='{row_id}'])[data-painted]:not([data-painted=''])", timeout=TIMEOUT_MILLISECONDS
        )
    return timings(page), time.perf_counter() - began


def setting_name(rows: int, side: int) -> str:
    """The setting in the table."""
    return f"{rows:,} rows, {side:,} px"


def measure(rows: int, side: int, answers: int) -> list[Measurement]:
    """Measure one setting: all modes on a new workspace."""
    setting, command = setting_name(rows, side), "python benchmarks/review_speed.py"
    measurements = []
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary, "workspace")
        write_workspace(workspace, rows, side)
        with server(workspace) as (address, process, seconds), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            measurements.append(
                Measurement(setting, "seedling review", "start", seconds, seconds, seconds, "s", 1, command)
            )
            for mode in ("verify", "label", "grid"):
                if mode == "grid":
                    wait_for_ranking(address)  # which has the guesses that a grid shows
                n_answers = answers if mode != "grid" else max(5, min(answers // 20, rows // GRID_ROWS // 3))
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                durations, _ = review(page, address, mode, n_answers)
                page.close()
                measurements += rates(setting, mode, np.array(durations), command)
            memory = process.memory_info().rss / 1e6
            measurements.append(
                Measurement(setting, "seedling review", "memory", memory, memory, memory, "MB", 1, command)
            )
            browser.close()
    return measurements


def rates(setting: str, mode: str, milliseconds: np.ndarray[Any, Any], command: str) -> list[Measurement]:
    """The timings of a mode, with bootstrap intervals, and what a person reaches who needs 0.6 s per decision."""
    rng = np.random.default_rng(0)
    draws = milliseconds[rng.integers(len(milliseconds), size=(2_000, len(milliseconds)))]
    lines = []
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        value = float(np.quantile(milliseconds, share))
        low, high = np.quantile(np.quantile(draws, share, axis=1), [0.025, 0.975]).tolist()
        metric, n_answers = f"key to next row, {name}", len(milliseconds)
        lines.append(Measurement(setting, mode, metric, value, low, high, "ms", n_answers, command))
    per_screen = (
        SECONDS_PER_ITEM * (1 if mode != "grid" else 1 + GRID_KEYS_PER_SCREEN) + float(milliseconds.mean()) / 1e3
    )
    rows_per_screen = GRID_ROWS if mode == "grid" else 1
    hourly = 3_600 / per_screen * rows_per_screen
    lines.append(
        Measurement(setting, mode, "rows per hour at 0.6 s per key", hourly, hourly, hourly, "rows", 1, command)
    )
    return lines


def measured_before(settings: Sequence[str]) -> list[Measurement]:
    """The rows of the table, except those of these settings."""
    path = RESULTS / "review_speed.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["setting"] not in settings]
    numbers: dict[str, Callable[[str], Any]] = {"value": float, "low": float, "high": float, "n": int}
    return [Measurement(**{name: numbers.get(name, str)(text) for name, text in row.items()}) for row in rows]


def main() -> None:
    """Measure the settings, and replace their rows in results/review_speed.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--sides", type=int, nargs="+", default=[8, 224, 2_000])
    parser.add_argument("--answers", type=int, default=200)
    arguments = parser.parse_args()
    settings = [(arguments.rows[0], side) for side in arguments.sides]
    settings += [(rows, arguments.sides[0]) for rows in arguments.rows[1:]]
    measurements = measured_before([setting_name(rows, side) for rows, side in settings])
    for rows, side in settings:
        print(json.dumps({"rows": rows, "side": side, "load": os.getloadavg()[0]}), flush=True)
        measurements += measure(rows, side, arguments.answers)
        write("review_speed", measurements)


if __name__ == "__main__":
    main()
