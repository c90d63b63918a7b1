"""Records of runs: one file per run below .seedling/runs, for the report, history.html, `status` and `compare`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from seedling.config.params import read_yaml
from seedling.dataset.generation import write_json
from seedling.errors import SeedlingError
from seedling.records.results import read_evaluation
from seedling.records.run_records import read_run_records
from seedling.versioning.ledger import Outcome
from seedling.workspace import MANIFEST, Workspace


@dataclass(frozen=True)
class Run:
    """A run's name and its record."""

    name: str
    record: dict[str, Any]


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run, from which changes since the previous run are derived.

    data_digest, data_files: of data/ according to data.dvc; params: contents of params.yaml; gates: a hash of
    gates.yaml and expectations.py.
    """

    data_digest: str | None = None
    data_files: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    gates: str = ""


def read_inputs(workspace: Path) -> RunInputs:
    """The current inputs of the workspace; unreadable ones are left out."""
    paths = Workspace(workspace)
    try:
        (data,) = read_yaml(paths.data_pointer)["outs"]
    except (SeedlingError, KeyError, TypeError, ValueError):
        data = {}
    try:
        params = read_yaml(paths.params_file)
    except SeedlingError:
        params = {}
    gate_files = (paths.gates_file, paths.expectations_file)
    texts = [path.read_bytes() for path in gate_files if path.is_file()]
    return RunInputs(
        data_digest=data.get("md5"),
        data_files=data.get("nfiles"),
        params=params if isinstance(params, dict) else {},
        gates=hashlib.sha256(b"\0".join(texts)).hexdigest(),
    )


def record_run(
    workspace: Path,
    name: str,
    outcomes: Sequence[Outcome],
    *,
    what_changed: str = "",
    outcome: str = "",
    inputs: RunInputs | None = None,
) -> None:
    """Writes the run's record: end time, inputs, outcome and seconds per stage, and metrics."""
    metrics = read_evaluation(Workspace(workspace).reports)
    record = {
        "name": name,
        "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
        "what_changed": what_changed,
        "outcome": outcome,
        "inputs": None if inputs is None else asdict(inputs),
        "label_issues": label_issues(workspace),
        "labeled_rows": _labeled_rows(workspace),
        "stages": [{"stage": stage.stage, "how": stage.how, "seconds": round(stage.seconds, 3)} for stage in outcomes],
        "metrics": metrics,
    }
    write_json(Workspace(workspace).run_record(name), record)


def label_issues(workspace: Path) -> dict[str, Any] | None:
    """{flagged, expected, labels} label issues according to validate; None if it could not estimate them."""
    manifest = _json(Workspace(workspace).generation("validate") / MANIFEST) or {}
    noise = (manifest.get("notes") or {}).get("label_issues") or {}
    if "expected" not in noise:
        return None
    return {"flagged": noise["flagged"], "expected": noise["expected"], "labels": noise["labels"]}


def _labeled_rows(workspace: Path) -> int | None:
    counts = (_json(Workspace(workspace).generation("validate") / MANIFEST) or {}).get("counts")
    return None if counts is None else sum(count["rows"] for count in counts if count["label"] is not None)


def runs(workspace: Path) -> list[Run]:
    """All runs, the oldest first."""
    return [Run(record["name"], record) for record in read_run_records(workspace)]


def last_record(workspace: Path) -> dict[str, Any] | None:
    """The record of the newest run that can be read; None without runs."""
    records = read_run_records(workspace)
    return records[-1] if records else None


def _json(path: Path) -> dict[str, Any] | None:
    """The JSON object in the file; None if it is missing or truncated."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
