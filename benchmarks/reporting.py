"""How long the report takes to be made, and how large it is, with many test rows.

    python benchmarks/reporting.py [--rows 10000] [--repeats 5]

A workspace of small images: 300 labeled, 500 in the pool, so many in the test split. The line is run once with effort quick; then the page is
made anew, in a process that has imported what it needs, as at the end of a run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from record import Found, mean_with_interval, write

SIDE = 24
CLASSES = 6


def write_images(folder: Path, rows: int) -> None:
    """Stripes of six directions under noise: labeled/, unlabeled/ and test/."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for split, many in (("labeled", 300), ("unlabeled", 500), ("test", rows)):
        for number in range(many):
            label = number % CLASSES
            angle = np.pi * label / CLASSES + rng.normal(scale=0.12)
            wave = np.sin((across * np.cos(angle) + down * np.sin(angle)) * 0.9 + rng.uniform(0, 6))
            pixels = np.clip(128 + 60 * wave + rng.normal(scale=45, size=wave.shape), 0, 255).astype(np.uint8)
            place = folder / split if split == "unlabeled" else folder / split / f"direction {label}"
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"{number:06d}.png"), pixels)


def main() -> None:
    """Writes results/reporting.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    command = f"python benchmarks/reporting.py --rows {given.rows} --repeats {given.repeats}"
    with tempfile.TemporaryDirectory() as folder:
        images, workspace = Path(folder, "images"), Path(folder, "workspace")
        write_images(images, given.rows)
        seedling = [sys.executable, "-m", "seedling.cli.main"]
        subprocess.run([*seedling, "init", workspace, "--images", images], check=True)
        subprocess.run([*seedling, "run", "--effort", "quick", "-w", workspace], check=True)
        from seedling.report.report import write_report

        seconds = []
        for _ in range(given.repeats):
            began = time.perf_counter()
            page = write_report(workspace)
            seconds.append(time.perf_counter() - began)
        size = page.stat().st_size / 1e6
    setting = f"{given.rows:,} test rows"
    write(
        "reporting",
        [
            Found(setting, "Seedling", "report made", *mean_with_interval(seconds), "s", given.repeats, command),
            Found(setting, "Seedling", "report", size, size, size, "MB", 1, command),
        ],
    )


if __name__ == "__main__":
    main()
