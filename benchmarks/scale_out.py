"""Stages on a Dask cluster of 1, 2 and 4 workers: how much sooner they are done, and what memory a worker needs.

    python benchmarks/scale_out.py [--rows 20000] [--workers 1 2 4] [--effort normal] [--stages STAGE ...] [--encoder FOLDER]

A workspace of small colored images, of which 300 are labeled. Each stage is run in this process first, then on clusters of that many worker
processes of one thread each, on this machine; what the cluster writes must have the same bytes. Speed-up: seconds with one worker over
seconds with so many, in one run. Workers beyond the machine's cores cannot speed anything up.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import psutil
from record import Found, write

SIDE, CLASSES, LABELED = 32, 10, 300
STAGES = ("scrape", "validate", "augment", "synthesize", "train@0", "pseudo_label@1", "train@1")
START_TIMEOUT_SECONDS = 120


def write_images(folder: Path, rows: int) -> None:
    """Stripes of ten directions in any color, under noise."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for number in range(rows):
        label = number % CLASSES
        angle = np.pi * label / CLASSES + rng.normal(scale=0.12)
        wave = np.sin((across * np.cos(angle) + down * np.sin(angle)) * 0.9 + rng.uniform(0, 6))
        color, noise = rng.uniform(60, 190, 3), rng.normal(scale=30, size=(SIDE, SIDE, 3))
        place = folder / (f"labeled/direction {label}" if number < LABELED else "unlabeled")
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(place / f"{number:06d}.png"), np.clip(color + 60 * wave[..., None] + noise, 0, 255).astype(np.uint8)
        )


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, psutil.Popen]]:
    """The address of a cluster of so many worker processes, and the process that started them."""
    file = folder / f"scheduler-{workers}.json"
    local = ["--local-directory", str(folder), "--no-dashboard", "--scheduler-file", str(file)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    begun = [psutil.Popen([*command, "--no-dashboard", "--scheduler-file", str(file)], **quiet)]
    try:
        until = time.monotonic() + START_TIMEOUT_SECONDS
        while not file.is_file() or not file.read_text(encoding="utf-8"):
            if time.monotonic() > until:
                raise TimeoutError("The scheduler did not start.")
            time.sleep(0.1)
        command = [sys.executable, "-m", "distributed.cli.dask_worker", "--nworkers", str(workers), "--nthreads", "1"]
        begun.append(psutil.Popen([*command, *local], **quiet))
        address = json.loads(file.read_text(encoding="utf-8"))["address"]
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=START_TIMEOUT_SECONDS)
        yield address, begun[1]
    finally:
        for process in [one for parent in begun for one in (*parent.children(recursive=True), parent)]:
            process.kill()


class Peak:
    """The most memory that one process below another one held while the block ran, in megabytes."""

    def __init__(self, parent: psutil.Popen) -> None:
        self.parent, self.megabytes, self._over = parent, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            for process in self.parent.children(recursive=True):
                try:
                    self.megabytes = max(self.megabytes, process.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    continue

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def seconds_of(name: str, workspace: Path, output: Path) -> float:
    """Of one stage, which writes to this folder and finds no features that were made before."""
    from seedling.config.params import load
    from seedling.pipeline import find_stage
    from seedling.progress import silent

    shutil.rmtree(workspace / ".seedling" / "features", ignore_errors=True)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    began = time.perf_counter()
    find_stage(name).function(load(workspace), workspace, workspace / "data", output, silent)
    return time.perf_counter() - began


def differing(one: Path, other: Path) -> list[str]:
    """The files that differ between two folders."""
    files = [{str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()} for root in (one, other)]
    names = sorted({*files[0], *files[1]})
    return [
        name
        for name in names
        if any(name not in some for some in files) or files[0][name].read_bytes() != files[1][name].read_bytes()
    ]


def measured(
    workspace: Path, folder: Path, counts: Sequence[int], stages: Sequence[str]
) -> dict[tuple[str, int], tuple[float, float]]:
    """By stage and number of workers, 0 for this process alone: seconds, and megabytes of the largest worker."""
    from seedling.pipeline import find_stage

    found = {}
    for name in stages:
        found[name, 0] = (seconds_of(name, workspace, workspace / find_stage(name).output), 0.0)
    for workers in counts:
        with cluster(folder, workers) as (address, parent):
            os.environ["SEEDLING_DASK"] = address
            for name in stages:
                with Peak(parent) as peak:
                    seconds = seconds_of(name, workspace, folder / "output")
                if wrong := differing(folder / "output", workspace / find_stage(name).output):
                    raise AssertionError(f"{name} on {workers} workers has other bytes: {', '.join(wrong)}")
                found[name, workers] = (seconds, peak.megabytes)
                print(f"{name:16} {workers} workers {seconds:8.1f} s {peak.megabytes:6.0f} MB", flush=True)
            del os.environ["SEEDLING_DASK"]
    return found


def main() -> None:
    """Writes results/scale_out.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--effort", default="normal", choices=["quick", "normal", "thorough"])
    parser.add_argument(
        "--stages", nargs="+", default=list(STAGES), help="the first so many, as each needs those before it"
    )
    parser.add_argument("--encoder", help="folder of a pretrained encoder of images; without one there is none")
    given = parser.parse_args()
    command = f"python benchmarks/scale_out.py --rows {given.rows} --workers {' '.join(map(str, given.workers))} --effort {given.effort}"
    command += "" if given.stages == list(STAGES) else f" --stages {' '.join(given.stages)}"
    command += " --encoder FOLDER" if given.encoder else ""
    from seedling.config.params import set_value

    with tempfile.TemporaryDirectory() as name:
        images, workspace = Path(name, "images"), Path(name, "workspace")
        write_images(images, given.rows)
        subprocess.run([sys.executable, "-m", "seedling.cli.main", "init", workspace, "--images", images], check=True)
        set_value(workspace, ["effort"], given.effort)
        set_value(workspace, ["encoder"], {"model": str(Path(given.encoder).resolve())} if given.encoder else None)
        found = measured(workspace, Path(name), given.workers, given.stages)
    write("scale_out", rows_of(found, given.rows, given.workers, given.stages, command))


def rows_of(
    found: dict[tuple[str, int], tuple[float, float]],
    rows: int,
    counts: Sequence[int],
    stages: Sequence[str],
    command: str,
) -> list[Found]:
    """As they are written down: speed-ups and memory by stage, and of all stages together."""
    lines = []
    for stage in [*stages, "all stages"]:
        setting = f"{rows:,} images, {stage}"
        names = stages if stage == "all stages" else (stage,)
        seconds = {many: sum(found[name, many][0] for name in names) for many in (0, *counts)}
        lines.append(Found(setting, "no cluster", "time", seconds[0], seconds[0], seconds[0], "s", 1, command))
        for many in counts:
            system = f"{many} worker{'s' if many > 1 else ''}"
            ratio, held = seconds[counts[0]] / seconds[many], max(found[name, many][1] for name in names)
            lines.append(Found(setting, system, "time", *(seconds[many],) * 3, "s", 1, command))
            lines.append(
                Found(setting, system, f"speed-up over {counts[0]} worker", *(ratio,) * 3, "times", 1, command)
            )
            lines.append(Found(setting, system, "memory of the largest worker", *(held,) * 3, "MB", 1, command))
    return lines


if __name__ == "__main__":
    main()
