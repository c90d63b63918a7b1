""".seedling/runs/<run>.json: the records of past runs, for the report, history.html, `status` and `compare`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, SerializeAsAny

from seedling.errors import DamagedFile
from seedling.files.reading import reading
from seedling.records.evaluation import EvaluationSummary
from seedling.records.record import Record, RecordPart
from seedling.terminal.notices import state_once
from seedling.workspace import Workspace


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


class LabelIssuesRecord(RecordPart):
    """Label issues according to validate; earlier versions wrote `labels` under another name.

    flagged: likely label errors; expected: expected number of wrong labels; labels: number of labels.
    """

    model_config = ConfigDict(extra="ignore")

    flagged: int
    expected: float
    labels: int | None = None


class StageRunRecord(RecordPart):
    """A stage of a run. how: `done`, `restored` or `unchanged`."""

    model_config = ConfigDict(extra="ignore")

    stage: str
    how: str
    seconds: float


class RunRecord(Record):
    """A finished run. The keys with a default are missing in records of earlier versions, and other keys are ignored.

    started, ended: ISO 8601; inputs, label_issues, labeled_rows: None if they are unknown; metrics: the results of
    evaluate, None if nothing was evaluated.
    """

    model_config = ConfigDict(extra="ignore")

    name: str
    started: str | None = None
    ended: str
    what_changed: str | None = None
    outcome: str | None = None
    inputs: RunInputs | None = None
    label_issues: LabelIssuesRecord | None = None
    labeled_rows: int | None = None
    stages: tuple[StageRunRecord, ...] = ()
    metrics: SerializeAsAny[EvaluationSummary] | None = None


def read_run_records(workspace: Path) -> list[RunRecord]:
    """All records, the oldest first. Damaged ones are left out and named on standard error: no run depends on them."""
    records = []
    for path in sorted(Workspace(workspace).run_records.glob("*.json")):
        try:
            records.append(_read_record(path))
        except (DamagedFile, OSError) as error:
            state_once(f"{error} The run is left out of the history." if isinstance(error, DamagedFile) else str(error))
    return sorted(records, key=lambda record: (record.ended, record.name))


def _read_record(path: Path) -> RunRecord:
    """Read one record. Raises DamagedFile if it is not a record of a run, and OSError."""
    with reading(path):
        content = path.read_bytes()
        value = json.loads(content)
    if not (isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("name", "ended"))):
        raise DamagedFile(path, "it is not a record of a run", "delete it")
    with reading(path):
        return RunRecord.parse(content)
