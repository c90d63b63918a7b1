"""Records of runs: one file per run below .seedling/runs, for the report, history.html, `status` and `compare`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from seedling.config.params import read_yaml
from seedling.errors import SeedlingError
from seedling.records.results import read_evaluation
from seedling.records.run_records import FOLDER as RUNS
from seedling.records.run_records import LabelIssuesRecord, RunInputs, RunRecord, StageRunRecord, read_run_records
from seedling.versioning.ledger import Outcome


def read_inputs(workspace: Path) -> RunInputs:
    """The current inputs of the workspace; unreadable ones are left out."""
    try:
        (data,) = read_yaml(workspace / "data.dvc")["outs"]
    except (SeedlingError, KeyError, TypeError, ValueError):
        data = {}
    try:
        params = read_yaml(workspace / "params.yaml")
    except SeedlingError:
        params = {}
    texts = [path.read_bytes() for name in ("gates.yaml", "expectations.py") if (path := workspace / name).is_file()]
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
    record = RunRecord(
        name=name,
        ended=datetime.now().astimezone().isoformat(timespec="seconds"),
        what_changed=what_changed,
        outcome=outcome,
        inputs=inputs,
        label_issues=label_issues(workspace),
        labeled_rows=_labeled_rows(workspace),
        stages=tuple(
            StageRunRecord(stage=stage.stage, how=stage.how, seconds=round(stage.seconds, 3)) for stage in outcomes
        ),
        metrics=read_evaluation(workspace / "reports"),
    )
    record.write(workspace / RUNS / f"{name}.json")


def label_issues(workspace: Path) -> LabelIssuesRecord | None:
    """The label issues according to validate; None if it could not estimate them."""
    manifest = _json(workspace / "generations" / "validate" / "manifest.json") or {}
    noise = (manifest.get("notes") or {}).get("label_issues") or {}
    if "expected" not in noise:
        return None
    return LabelIssuesRecord(flagged=noise["flagged"], expected=noise["expected"], labels=noise["labels"])


def _labeled_rows(workspace: Path) -> int | None:
    counts = (_json(workspace / "generations" / "validate" / "manifest.json") or {}).get("counts")
    return None if counts is None else sum(count["rows"] for count in counts if count["label"] is not None)


def last_record(workspace: Path) -> RunRecord | None:
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
