"""Measure stages on a Dask cluster of 1, 2 and 4 workers: speed-up and memory per worker.

    python benchmarks/scale_out.py [--rows 20000] [--workers 1 2 4] [--stages STAGE ...] [--encoder FOLDER]

The workspace has small colored images, 300 of them labeled. Each stage runs in this process first, then on clusters
with this number of single-threaded worker processes on the same machine. The output of the cluster must be identical
byte for byte. The speed-up is the time with one worker divided by the time with this number of workers, in one run.
Workers beyond the machine's cores add no speed.
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
from typing import Any

import cv2
import numpy as np
import psutil
from record import Measurement, write

SIDE, CLASSES, LABELED = 32, 10, 300
STAGES = ("scrape", "validate", "augment", "synthesize", "train@0", "pseudo_label@1", "train@1")
START_TIMEOUT_SECONDS = 120


def write_images(folder: Path, rows: int) -> None:
    """Write noisy stripes in ten directions and random colors."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for number in range(rows):
        label = number % CLASSES
        angle = np.pi * label / CLASSES + rng.normal(scale=0.12)
        wave = np.sin((across * np.cos(angle) + down * np.sin(angle)) * 0.9 + rng.uniform(0, 6))
        color, noise = rng.uniform(60, 190, 3), rng.normal(scale=30, size=(SIDE, SIDE, 3))
        image_folder = folder / (f"labeled/direction {label}" if number < LABELED else "unlabeled")
        image_folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(image_folder / f"{number:06d}.png"),
            np.clip(color + 60 * wave[..., None] + noise, 0, 255).astype(np.uint8),
        )


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, psutil.Popen]]:
    """Yield the address of a cluster with this number of worker processes, and the process that started them."""
    file = folder / f"scheduler-{workers}.json"
    local = ["--local-directory", str(folder), "--no-dashboard", "--scheduler-file", str(file)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    quiet: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [psutil.Popen([*command, "--no-dashboard", "--scheduler-file", str(file)], **quiet)]
    try:
        until = time.monotonic() + START_TIMEOUT_SECONDS
        while not file.is_file() or not file.read_text(encoding="utf-8"):
            if time.monotonic() > until:
                raise TimeoutError("The scheduler did not start.")
            time.sleep(0.1)
        command = [sys.executable, "-m", "distributed.cli.dask_worker", "--nworkers", str(workers), "--nthreads", "1"]
        processes.append(psutil.Popen([*command, *local], **quiet))
        address = json.loads(file.read_text(encoding="utf-8"))["address"]
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=START_TIMEOUT_SECONDS)
        yield address, processes[1]
    finally:
        for process in [member for parent in processes for member in (*parent.children(recursive=True), parent)]:
            process.kill()


class Peak:
    """The highest memory of a single child process during the block, in MB."""

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
    """Run one stage into this folder without cached features and return its seconds."""
    from seedling.config.params import load
    from seedling.features.encoder_handle import encoder_of
    from seedling.pipeline import StageContext, find_stage
    from seedling.progress import silent

    shutil.rmtree(workspace / ".seedling" / "features", ignore_errors=True)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    began = time.perf_counter()
    params = load(workspace)
    context = StageContext(params, workspace, workspace / "data", output, silent, encoder_of(params, workspace))
    find_stage(name).function(context)
    return time.perf_counter() - began


def differing(first: Path, other: Path) -> list[str]:
    """Return the files that differ between two folders."""
    files = [
        {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()} for root in (first, other)
    ]
    names = sorted({*files[0], *files[1]})
    return [
        name
        for name in names
        if any(name not in files_of_folder for files_of_folder in files)
        or files[0][name].read_bytes() != files[1][name].read_bytes()
    ]


def measure(
    workspace: Path, folder: Path, counts: Sequence[int], stages: Sequence[str]
) -> dict[tuple[str, int], tuple[float, float]]:
    """Return seconds and memory of the largest worker in MB, by stage and number of workers (0: without a cluster)."""
    from seedling.pipeline import find_stage

    results = {}
    for name in stages:
        results[name, 0] = (seconds_of(name, workspace, workspace / find_stage(name).output), 0.0)
    for workers in counts:
        with cluster(folder, workers) as (address, parent):
            os.environ["SEEDLING_DASK"] = address
            for name in stages:
                with Peak(parent) as peak:
                    seconds = seconds_of(name, workspace, folder / "output")
                if wrong := differing(folder / "output", workspace / find_stage(name).output):
                    raise AssertionError(f"{name} on {workers} workers has other bytes: {', '.join(wrong)}")
                results[name, workers] = (seconds, peak.megabytes)
                print(f"{name:16} {workers} workers {seconds:8.1f} s {peak.megabytes:6.0f} MB", flush=True)
            del os.environ["SEEDLING_DASK"]
    return results


def main() -> None:
    """Run the stages and write results/scale_out.csv."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--effort", default="normal", choices=["quick", "normal", "thorough"])
    parser.add_argument(
        "--stages", nargs="+", default=list(STAGES), help="stages to run; each needs the ones before it"
    )
    parser.add_argument("--encoder", help="folder of a pretrained encoder of images; default: none")
    arguments = parser.parse_args()
    command = (
        f"python benchmarks/scale_out.py --rows {arguments.rows} "
        f"--workers {' '.join(map(str, arguments.workers))} --effort {arguments.effort}"
    )
    command += "" if arguments.stages == list(STAGES) else f" --stages {' '.join(arguments.stages)}"
    command += " --encoder FOLDER" if arguments.encoder else ""
    from seedling.config.params import set_value

    with tempfile.TemporaryDirectory() as name:
        images, workspace = Path(name, "images"), Path(name, "workspace")
        write_images(images, arguments.rows)
        subprocess.run([sys.executable, "-m", "seedling.cli.main", "init", workspace, "--images", images], check=True)
        set_value(workspace, ["effort"], arguments.effort)
        set_value(
            workspace, ["encoder"], {"model": str(Path(arguments.encoder).resolve())} if arguments.encoder else None
        )
        results = measure(workspace, Path(name), arguments.workers, arguments.stages)
    write("scale_out", rows_of(results, arguments.rows, arguments.workers, arguments.stages, command))


def rows_of(
    results: dict[tuple[str, int], tuple[float, float]],
    rows: int,
    counts: Sequence[int],
    stages: Sequence[str],
    command: str,
) -> list[Measurement]:
    """Return the table rows: speed-ups and memory per stage, and of all stages together."""
    lines = []
    for stage in [*stages, "all stages"]:
        setting = f"{rows:,} images, {stage}"
        names = stages if stage == "all stages" else (stage,)
        seconds = {workers: sum(results[name, workers][0] for name in names) for workers in (0, *counts)}
        lines.append(Measurement(setting, "no cluster", "time", seconds[0], seconds[0], seconds[0], "s", 1, command))
        for workers in counts:
            system = f"{workers} worker{'s' if workers > 1 else ''}"
            ratio, memory = seconds[counts[0]] / seconds[workers], max(results[name, workers][1] for name in names)
            lines.append(Measurement(setting, system, "time", *(seconds[workers],) * 3, "s", 1, command))
            lines.append(
                Measurement(setting, system, f"speed-up over {counts[0]} worker", *(ratio,) * 3, "times", 1, command)
            )
            lines.append(Measurement(setting, system, "memory of the largest worker", *(memory,) * 3, "MB", 1, command))
    return lines


if __name__ == "__main__":
    main()
