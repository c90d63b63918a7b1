"""Measure the time of `seedling run` beyond the stage functions, and its time if nothing changed.

    python benchmarks/overhead.py [--repeats 3]

The stages' own work is the time of the stage functions, called one after the other in a process that has imported
everything (seedling.runner, without gate and ledger), on the same workspace.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from record import Measurement, mean_with_interval, write

BIN = Path(sys.executable).parent
STAGES_CODE = """
import sys, time; from pathlib import Path
import great_expectations, pandas, torch, albumentations, sklearn.svm, sklearn.ensemble  # noqa
from seedling.config.params import load; from seedling.runner import _publish
from seedling.features.encoder_handle import encoder_of; from seedling.pipeline import StageContext, stages
from seedling.progress import silent
workspace, total = Path(sys.argv[1]), 0.0
params = load(workspace)
for stage in stages().values():
    partial = workspace / ".seedling" / "partial" / stage.name
    partial.mkdir(parents=True)
    began = time.perf_counter()
    encoder = encoder_of(params, workspace)
    stage.function(StageContext(params, workspace, workspace / "data", partial, silent, encoder))
    total += time.perf_counter() - began
    _publish(partial, workspace / stage.output, whole=stage.kind != "evaluate")
print(total)
"""


def make_workspace(folder: Path, env: dict[str, str]) -> Path:
    """Write four classes with 10 labeled and 10 test images each, and 60 pool images; `effort: quick`."""
    rng = np.random.default_rng(0)
    means = rng.integers(0, 255, (4, 6, 6, 3))
    for part, count in (("labeled", 10), ("test", 10), ("unlabeled", 15)):
        for label in range(4):
            for number in range(count):
                small = np.clip(means[label] + rng.normal(0, 40, (6, 6, 3)), 0, 255).astype(np.uint8)
                path = (
                    folder
                    / "images"
                    / part
                    / (f"class{label}" if part != "unlabeled" else "")
                    / f"{label}-{number}.png"
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(small).resize((32, 32)).save(path)
    workspace = folder / "workspace"
    call(["seedling", "init", workspace, "--images", folder / "images"], folder, env)
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("effort: normal", "effort: quick"))
    return workspace


def call(command: list[object], cwd: Path, env: dict[str, str]) -> float:
    """Run the command and return its seconds."""
    began = time.perf_counter()
    subprocess.run([str(part) for part in command], cwd=cwd, env=env, check=True, capture_output=True)
    return time.perf_counter() - began


@contextmanager
def server(env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run a Prefect server and yield the environment of its clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        yield {**env, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    finally:
        process.terminate()
        process.wait()


def measure_once(seconds: dict[str, list[float]]) -> None:
    """Measure each quantity once, with a separate folder and Prefect home."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PREFECT_HOME": str(folder / "prefect")}
        workspace = make_workspace(folder, env)
        stages_workspace = folder / "alone"
        shutil.copytree(workspace, stages_workspace)
        seconds_of_run = call(["seedling", "run"], workspace, env)
        done = subprocess.run(
            [sys.executable, "-c", STAGES_CODE, str(stages_workspace)],
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
        seconds["overhead of `seedling run`, cold, temporary server"].append(seconds_of_run - float(done.stdout))
        seconds["stages' own work"].append(float(done.stdout))
        seconds["`seedling run`, nothing changed, temporary server"].append(call(["seedling", "run"], workspace, env))
        seconds["`dvc repro`, nothing changed"].append(call(["dvc", "repro"], workspace, env))
        seconds["`dvc status`, nothing changed"].append(call(["dvc", "status"], workspace, env))
        seconds["`seedling --help`"].append(call(["seedling", "--help"], workspace, env))
        with server(env) as running:
            call(["seedling", "run"], workspace, running)
            seconds["`seedling run`, nothing changed, running server"].append(
                call(["seedling", "run"], workspace, running)
            )


def main() -> None:
    """Run the repeats and write results/overhead.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    names = [
        "overhead of `seedling run`, cold, temporary server",
        "stages' own work",
        "`seedling run`, nothing changed, temporary server",
        "`seedling run`, nothing changed, running server",
        "`dvc repro`, nothing changed",
        "`dvc status`, nothing changed",
        "`seedling --help`",
    ]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.repeats):
        measure_once(seconds)
    command = f"python benchmarks/overhead.py --repeats {arguments.repeats}"
    measurements = [
        Measurement(
            "140 images, quick",
            "Seedling" if "dvc" not in name else "DVC alone",
            name,
            *mean_with_interval(values),
            "s",
            len(values),
            command,
        )
        for name, values in seconds.items()
    ]
    write("overhead", measurements)


if __name__ == "__main__":
    main()
