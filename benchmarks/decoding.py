"""Count how often a full run decodes each image, hashes folders, and reads payloads, and measure its time.

    python benchmarks/decoding.py --data FOLDER --backbone FOLDER [--system after] [--project FOLDER] [--only SETTING]

Settings: the digits example without an encoder, and 1,000 of trashnet's photographs with and without an encoder. The
run is `seedling run --effort quick` in a new workspace, with logistic regression as the only learner, since what the
learners cost is measured elsewhere; benchmarks/recorder/ records all of its processes. The results of another
`--system` are kept, so that two states of the code can be compared: `--project` is the folder whose code runs.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from record import RESULTS, Measurement, write

PROJECT = Path(__file__).resolve().parents[1]
RECORDER = Path(__file__).with_name("recorder")
PHOTOGRAPHS, LABELED, TEST = 1_000, 300, 200  # the other photographs have no label
CANDIDATE = "logistic_regression"  # networks train for minutes, but decode nothing
SETTINGS = ("digits", "photographs, no encoder", "photographs, encoder")


@dataclass
class Records:
    """What the processes of a run did. decodes: image → stage → times; hashed, read, returned: bytes by stage."""

    decodes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    hashed: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    returned: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, folder: Path) -> Records:
        """Read the files of all processes."""
        records = cls()
        for path in folder.glob("*.tsv"):
            for line in path.read_text().splitlines():
                kind, stage, *values = line.split("\t")
                if kind == "decode":
                    records.decodes[values[0]][stage] += 1
                elif kind == "hash":
                    records.hashed[stage] += int(values[0])
                else:
                    records.read[stage] += int(values[0])
                    records.returned[stage] += int(values[1])
        return records


def write_photographs(data: Path, folder: Path) -> None:
    """Write the first photographs of trashnet to labeled/, unlabeled/ and test/."""
    frame = pd.read_parquet(data / "trashnet/data.parquet").drop_duplicates("image").head(PHOTOGRAPHS)
    for number, row in enumerate(frame.itertuples()):
        split = "labeled" if number < LABELED else "test" if number < LABELED + TEST else "unlabeled"
        target = folder / split if split == "unlabeled" else folder / split / str(row.label)
        target.mkdir(parents=True, exist_ok=True)
        content = row.image["bytes"] if isinstance(row.image, dict) else row.image
        (target / f"{row.id}.jpg").write_bytes(content)


def prepare(setting: str, workspace: Path, arguments: argparse.Namespace, environment: dict[str, str]) -> None:
    """Create the workspace of the setting."""
    if setting == "digits":
        workspace.mkdir()
        for name in ("params.yaml", "gates.yaml", "dvc.yaml"):
            shutil.copy(arguments.project / name, workspace / name)
        script = arguments.project / "examples/digits/prepare.py"
        subprocess.run([sys.executable, script, workspace / "data"], check=True, env=environment)
        for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
            subprocess.run(command, cwd=workspace, check=True, env=environment)
        set_line(workspace / "params.yaml", "candidates: null", f"candidates: [{CANDIDATE}]")
        return
    images = workspace.with_name("images")
    write_photographs(arguments.data, images)
    seedling = [sys.executable, "-P", "-m", "seedling.cli.main"]
    subprocess.run([*seedling, "init", workspace, "--images", images], check=True, env=environment)
    set_line(workspace / "params.yaml", "candidates: null", f"candidates: [{CANDIDATE}]")
    if setting.endswith(", encoder"):
        set_line(workspace / "params.yaml", "encoder: null", f"encoder: {{model: {arguments.backbone.resolve()}}}")


def set_line(path: Path, old: str, new: str) -> None:
    """Replace a value in params.yaml."""
    text = path.read_text()
    if old not in text:
        raise ValueError(f"{path} has no '{old}'")
    path.write_text(text.replace(old, new, 1))


def collected_images(workspace: Path) -> Counter[str]:
    """Return the hashes of the encoded images of the generation of scrape, kept and rejected."""
    import hashlib

    hashes: Counter[str] = Counter()
    for path in (workspace / "generations/scrape").glob("*.parquet"):
        for value in pq.read_table(path, columns=["image"])["image"].to_pylist():
            if value and value["bytes"]:
                hashes[hashlib.sha256(value["bytes"]).hexdigest()[:16]] += 1
    return hashes


def cpu_seconds() -> float:
    """Return the processor time of all processes that this process has waited for, and of their own."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(setting: str, arguments: argparse.Namespace) -> list[Measurement]:
    """Run the pipeline once in a new workspace."""
    with tempfile.TemporaryDirectory() as folder:
        workspace, recorded = Path(folder, "workspace"), Path(folder, "records")
        recorded.mkdir()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(arguments.project), str(RECORDER)])}
        prepare(setting, workspace, arguments, environment)
        command = [sys.executable, "-P", "-m", "seedling.cli.main", "run", "--effort", "quick", "-w", str(workspace)]
        began, used = time.perf_counter(), cpu_seconds()
        subprocess.run(command, check=True, env=environment | {"SEEDLING_RECORDS": str(recorded)})
        seconds, used = time.perf_counter() - began, cpu_seconds() - used
        records, collected = Records.of(recorded), collected_images(workspace)
    by_stage: Counter[str] = Counter()
    for content in collected:
        by_stage.update(records.decodes.get(content, Counter()))
    megabytes = 1e6
    rows = {
        "decodes per collected image": (by_stage.total() / len(collected), "decodes"),
        **{f"decodes per image, {stage}": (n / len(collected), "decodes") for stage, n in sorted(by_stage.items())},
        "run": (seconds, "s"),
        "processor time": (used, "s"),
        "folders hashed by train": (records.hashed["train"] / megabytes, "MB"),
        "payload bytes read": (records.read.total() / megabytes, "MB"),
        "payload bytes read per byte returned": (records.read.total() / max(1, records.returned.total()), "ratio"),
    }
    command_text = "python benchmarks/decoding.py --data DATA --backbone BACKBONE"
    return [
        Measurement(setting, arguments.system, metric, value, value, value, unit, 1, command_text)
        for metric, (value, unit) in rows.items()
    ]


def earlier_results(system: str, settings: list[str]) -> list[Measurement]:
    """Return the rows of results/decoding.csv that this call does not measure again."""
    path = RESULTS / "decoding.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [
            Measurement(**{**row, **{name: float(row[name]) for name in ("value", "low", "high")}, "n": int(row["n"])})
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if row.system != system or row.setting not in settings]


def main() -> None:
    """Run the settings and write results/decoding.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--system", default="after")
    parser.add_argument("--project", type=Path, default=PROJECT)
    parser.add_argument("--only", choices=SETTINGS, action="append")
    arguments = parser.parse_args()
    settings = arguments.only or list(SETTINGS)
    measured = []
    for setting in settings:
        measured += measure(setting, arguments)
        rows = [*earlier_results(arguments.system, settings), *measured]
        order = {name: number for number, name in enumerate(SETTINGS)}
        write("decoding", sorted(rows, key=lambda row: (order[row.setting], row.system != "before")))


if __name__ == "__main__":
    main()
