"""Records of runs: one file per run below .seedling/runs, for the report, history.html, `status` and `compare`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from seedling.config.params import read_yaml
from seedling.errors import DamagedFile, SeedlingError
from seedling.records.manifest import Manifest, read_manifest_if_any
from seedling.records.results import read_evaluation
from seedling.records.run_records import LabelIssuesRecord, RunInputs, RunRecord, StageRunRecord, read_run_records
from seedling.records.stage_notes import ValidateNotes
from seedling.versioning.ledger import Outcome
from seedling.workspace import Workspace


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
    started: datetime | None = None,
    what_changed: str = "",
    outcome: str = "",
    inputs: RunInputs | None = None,
) -> None:
    """Writes the run's record: start and end time, inputs, outcome and seconds per stage, and metrics."""
    record = RunRecord(
        name=name,
        started=None if started is None else started.isoformat(timespec="milliseconds"),
        ended=datetime.now().astimezone().isoformat(timespec="seconds"),
        what_changed=what_changed,
        outcome=outcome,
        inputs=inputs,
        label_issues=label_issues(workspace),
        labeled_rows=_labeled_rows(workspace),
        stages=tuple(
            StageRunRecord(stage=stage.stage, how=stage.how, seconds=round(stage.seconds, 3)) for stage in outcomes
        ),
        metrics=read_evaluation(Workspace(workspace).reports),
    )
    record.write(Workspace(workspace).run_record(name))


def label_issues(workspace: Path) -> LabelIssuesRecord | None:
    """The label issues according to validate; None if it could not estimate them."""
    manifest = _manifest(Workspace(workspace).generation("validate"))
    notes = None if manifest is None else manifest.notes
    noise = notes.estimated_issues if isinstance(notes, ValidateNotes) else None
    if noise is None:
        return None
    return LabelIssuesRecord(flagged=noise.flagged, expected=noise.expected, labels=noise.labels)


def _labeled_rows(workspace: Path) -> int | None:
    manifest = _manifest(Workspace(workspace).generation("validate"))
    return None if manifest is None else sum(count.rows for count in manifest.counts if count.label is not None)


def last_record(workspace: Path) -> RunRecord | None:
    """The record of the newest run that can be read; None without runs."""
    records = read_run_records(workspace)
    return records[-1] if records else None


def _manifest(folder: Path) -> Manifest | None:
    """The manifest of a generation; None if it is missing or damaged."""
    try:
        return read_manifest_if_any(folder)
    except (DamagedFile, OSError):
        return None
