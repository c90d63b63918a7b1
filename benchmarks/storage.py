"""Measure 60,000 small images: import, the time of `dvc status`, and the storage of a generation with 10 % more rows.

    python benchmarks/storage.py [--rows 60000]

The images are 28×28 in ten class folders. The 10 % that come later have later names, as files of cameras and crawlers
do: once they sort after the old names of each class, once between them.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from record import Measurement, write

BIN = Path(sys.executable).parent


def write_images(data: Path, first: int, count: int, prefix: str) -> None:
    """Write `count` noise images over ten classes."""
    rng = np.random.default_rng(first)
    for label in range(10):
        (data / "labeled" / f"c{label}").mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        small = rng.integers(0, 255, (7, 7)).astype(np.uint8)
        path = data / "labeled" / f"c{number % 10}" / f"{prefix}{number:06d}.png"
        cv2.imwrite(str(path), cv2.resize(small, (28, 28)))


def call(command: list[object], cwd: Path) -> float:
    """Run the command and return its seconds."""
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    began = time.perf_counter()
    subprocess.run([str(part) for part in command], cwd=cwd, env=env, check=True, capture_output=True)
    return time.perf_counter() - began


def scrape_alone(workspace: Path) -> float:
    """Return the peak memory of the import in MB, measured in a separate process."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from seedling.config.params import load; from seedling.scrape import scrape\n"
        "w = Path(sys.argv[1]); p = load(w)\n"
        "scrape(p.scrape, p.config, data=w / 'data', output=w / 'measured')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(workspace)], check=True, capture_output=True, text=True)
    subprocess.run(["rm", "-r", str(workspace / "measured")], check=True)
    return float(done.stdout)


def size(folder: Path) -> int:
    """Return the bytes of all files in the folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def parts(folder: Path) -> dict[str, int]:
    """Return the content hashes and sizes of a generation's Parquet files."""
    import hashlib

    return {hashlib.md5(path.read_bytes()).hexdigest(): path.stat().st_size for path in folder.glob("*.parquet")}  # noqa: S324


def main() -> None:
    """Run the steps and write results/storage.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    arguments = parser.parse_args()
    command, measurements = f"python benchmarks/storage.py --rows {arguments.rows}", []
    setting = f"{arguments.rows} images of 28x28"

    def add(system: str, metric: str, value: float, unit: str, where: str = setting) -> None:
        measurements.append(Measurement(where, system, metric, value, value, value, unit, 1, command))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", 0, arguments.rows, "")
        workspace = folder / "workspace"
        add(
            "Seedling",
            "init: copy, git, dvc add",
            call(["seedling", "init", workspace, "--images", folder / "images"], folder),
            "s",
        )
        add("Seedling", "import's peak memory", scrape_alone(workspace), "MB")
        add("Seedling", "scrape stage: import, gate, record", call(["seedling", "stage", "scrape"], workspace), "s")
        add("Seedling", "validate stage", call(["seedling", "stage", "validate"], workspace), "s")
        add("Seedling", "dvc status", call(["dvc", "status"], workspace), "s")
        loose = folder / "loose"
        call(["seedling", "init", loose, "--images", folder / "images", "--loose"], folder)
        add("the same as loose files", "dvc status data.dvc", call(["dvc", "status", "data.dvc"], loose), "s")
        generations = workspace / "generations"
        add("Seedling", "scrape generation, bytes", float(size(generations / "scrape")), "B")
        add("Seedling", "validate generation, bytes", float(size(generations / "validate")), "B")
        for where, prefix in (("10 % more, later names", "z"), ("10 % more, names between", "0")):
            before, cache = parts(generations / "scrape"), size(workspace / ".dvc/cache")
            write_images(
                workspace / "data",
                arguments.rows + (0 if prefix == "z" else arguments.rows),
                arguments.rows // 10,
                prefix,
            )
            add(
                "Seedling",
                "dvc add and scrape stage again",
                call(["seedling", "stage", "scrape"], workspace),
                "s",
                where,
            )
            add("Seedling", "validate stage again", call(["seedling", "stage", "validate"], workspace), "s", where)
            after = parts(generations / "scrape")
            new = sum(length for key, length in after.items() if key not in before)
            add("Seedling", "scrape generation: share of bytes newly stored", new / sum(after.values()), "share", where)
            add(
                "Seedling", "added to DVC's cache in all", (size(workspace / ".dvc/cache") - cache) / 2**20, "MB", where
            )
            add("DVC alone", "the new images themselves", size_of_new(workspace, prefix) / 2**20, "MB", where)
    add("this benchmark", "its own peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB")
    write("storage", measurements)


def size_of_new(workspace: Path, prefix: str) -> int:
    """Return the bytes of the images whose names begin with the prefix and have more than six characters."""
    return sum(path.stat().st_size for path in (workspace / "data").rglob(f"{prefix}*.png") if len(path.stem) > 6)


if __name__ == "__main__":
    main()
