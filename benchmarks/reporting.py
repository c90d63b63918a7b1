"""Measure the time to write the report, and its size, with many test rows.

    python benchmarks/reporting.py [--rows 10000] [--repeats 5]

The workspace has small images: 300 labeled, 500 in the pool, and `--rows` in the test split. The pipeline runs once
with `effort: quick`. Then the report is written again in a process that has already imported its modules, as at the
end of a run.
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
from record import Measurement, mean_with_interval, write

SIDE = 24
CLASSES = 6


def write_images(folder: Path, rows: int) -> None:
    """Write noisy stripes in six directions to labeled/, unlabeled/ and test/."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for split, count in (("labeled", 300), ("unlabeled", 500), ("test", rows)):
        for number in range(count):
            label = number % CLASSES
            angle = np.pi * label / CLASSES + rng.normal(scale=0.12)
            wave = np.sin((across * np.cos(angle) + down * np.sin(angle)) * 0.9 + rng.uniform(0, 6))
            pixels = np.clip(128 + 60 * wave + rng.normal(scale=45, size=wave.shape), 0, 255).astype(np.uint8)
            image_folder = folder / split if split == "unlabeled" else folder / split / f"direction {label}"
            image_folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image_folder / f"{number:06d}.png"), pixels)


def main() -> None:
    """Run the repeats and write results/reporting.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    command = f"python benchmarks/reporting.py --rows {arguments.rows} --repeats {arguments.repeats}"
    with tempfile.TemporaryDirectory() as folder:
        images, workspace = Path(folder, "images"), Path(folder, "workspace")
        write_images(images, arguments.rows)
        seedling = [sys.executable, "-m", "seedling.cli.main"]
        subprocess.run([*seedling, "init", workspace, "--images", images], check=True)
        subprocess.run([*seedling, "run", "--effort", "quick", "-w", workspace], check=True)
        from seedling.report.report import write_report

        seconds = []
        for _ in range(arguments.repeats):
            began = time.perf_counter()
            page = write_report(workspace)
            seconds.append(time.perf_counter() - began)
        size = page.stat().st_size / 1e6
    setting = f"{arguments.rows:,} test rows"
    write(
        "reporting",
        [
            Measurement(
                setting, "Seedling", "report made", *mean_with_interval(seconds), "s", arguments.repeats, command
            ),
            Measurement(setting, "Seedling", "report", size, size, size, "MB", 1, command),
        ],
    )


if __name__ == "__main__":
    main()
