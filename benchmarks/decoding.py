"""Count how often a run decodes each image, hashes folders, and reads payloads, and measure its processor time.

    python benchmarks/decoding.py --data FOLDER --backbone FOLDER [--photographs 1000] [--system after]
        [--project FOLDER] [--only SETTING]

Settings: the digits example without an encoder, and trashnet's photographs with and without an encoder. All stages of
a new workspace run one after the other with `effort: quick`, and with logistic regression as the only learner, since
what learners cost is measured elsewhere. benchmarks/recorder/ records all processes. The results of another
`--system` are kept, so that two states of the code can be compared: `--project` is the folder whose code runs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
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
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from record import RESULTS, Measurement, write

PROJECT = Path(__file__).resolve().parents[1]
RECORDER = Path(__file__).with_name("recorder")
CANDIDATE = "logistic_regression"  # networks train for minutes, but decode nothing
STAGES = ("scrape", "validate", "augment", "synthesize", "train@0", "pseudo_label@1", "train@1", "evaluate")
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


def write_photographs(data: Path, count: int, folder: Path) -> None:
    """Write the first photographs of trashnet: 30 % to labeled/, 20 % to test/, and the others to unlabeled/."""
    frame = pd.read_parquet(data / "trashnet/data.parquet").drop_duplicates("image").head(count)
    row: Any
    for number, row in enumerate(frame.itertuples()):
        split = "labeled" if number < 0.3 * count else "test" if number < 0.5 * count else "unlabeled"
        target = folder / split if split == "unlabeled" else folder / split / str(row.label)
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{row.id}.jpg").write_bytes(row.image)


def prepare(setting: str, workspace: Path, arguments: argparse.Namespace, environment: dict[str, str]) -> None:
    """Create the workspace of the setting."""
    workspace.mkdir()
    if setting == "digits":
        for name in ("params.yaml", "gates.yaml"):
            shutil.copy(arguments.project / name, workspace / name)
        script = arguments.project / "examples/digits/prepare.py"
        subprocess.run([sys.executable, script, workspace / "data"], check=True, env=environment)
        set_line(workspace / "params.yaml", "effort: normal", "effort: quick")
    else:
        write_photographs(arguments.data, arguments.photographs, workspace / "data")
        files = arguments.project / "seedling/init/workspace_files"
        encoder = f"{{model: {arguments.backbone.resolve()}}}" if setting.endswith(", encoder") else "null"
        text = (files / "params.yaml.template").read_text().replace("MODALITY", "image").replace("ENCODER", encoder)
        text = text.replace("- SOURCES", "- {kind: folder, path: .}")
        (workspace / "params.yaml").write_text(text)
        shutil.copy(files / "gates.yaml.template", workspace / "gates.yaml")
        set_line(workspace / "params.yaml", "effort: normal", "effort: quick")
    set_line(workspace / "params.yaml", "candidates: null", f"candidates: [{CANDIDATE}]")


def set_line(path: Path, old: str, new: str) -> None:
    """Replace a value in params.yaml."""
    text = path.read_text()
    if old not in text:
        raise ValueError(f"{path} has no '{old}'")
    path.write_text(text.replace(old, new, 1))


def collected_images(workspace: Path) -> Counter[str]:
    """Return the hashes of the encoded images of the generation of scrape, kept and rejected."""
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
        environment |= {"SEEDLING_RECORDS": str(recorded)}
        began, used = time.perf_counter(), cpu_seconds()
        for stage in STAGES:
            environment["SEEDLING_RECORDED_STAGE"] = stage.partition("@")[0]
            command = [sys.executable, "-P", "-m", "seedling.runner", stage]
            subprocess.run(command, check=True, cwd=workspace, env=environment)
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
    command_text = (
        f"python benchmarks/decoding.py --data DATA --backbone BACKBONE --photographs {arguments.photographs}"
    )
    return [
        Measurement(setting, arguments.system, metric, value, value, value, unit, 1, command_text)
        for metric, (value, unit) in rows.items()
    ]


def measurement_of(row: dict[str, str]) -> Measurement:
    """Return the measurement of one line of the results."""
    return Measurement(
        setting=row["setting"],
        system=row["system"],
        metric=row["metric"],
        value=float(row["value"]),
        low=float(row["low"]),
        high=float(row["high"]),
        unit=row["unit"],
        n=int(row["n"]),
        command=row["command"],
    )


def earlier_results(system: str, settings: list[str]) -> list[Measurement]:
    """Return the rows of results/decoding.csv that this call does not measure again."""
    path = RESULTS / "decoding.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [measurement_of(row) for row in csv.DictReader(file)]
    return [row for row in rows if row.system != system or row.setting not in settings]


def main() -> None:
    """Run the settings and write results/decoding.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--photographs", type=int, default=1_000)
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
