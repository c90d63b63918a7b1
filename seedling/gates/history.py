"""The history of all gates: each result of each stage's gate, also of those that failed, in .seedling/gates/history.jsonl.

Written by `run_stage` whoever runs the stage, so that `dvc repro` is in it as well as `seedling run`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

HISTORY = Path(".seedling", "gates", "history.jsonl")
MAX_RECORDS_PER_STAGE = 50
COMPACTED_AT_BYTES = 2_000_000


@dataclass(frozen=True)
class GateRecord:
    """One evaluation of one stage's gate. checks: as in gate.json, each with its `meaning` where it has a sentence of its own."""

    stage: str
    time: str
    checks: list[dict[str, Any]]

    @property
    def passed(self) -> bool:
        """Whether no critical expectation failed."""
        return not any(not check["passed"] and check["severity"] == "critical" for check in self.checks)


def record_gate(
    workspace: Path, stage: str, checks: Sequence[Mapping[str, Any]], meanings: Mapping[str, str] | None = None
) -> None:
    """Appends one evaluation of the stage's gate. meanings: expectation → its sentence, of the user's own ones."""
    path = workspace / HISTORY
    path.parent.mkdir(parents=True, exist_ok=True)
    described = [
        {**check, **({"meaning": meaning} if (meaning := (meanings or {}).get(check["expectation"])) else {})}
        for check in checks
    ]
    record = {
        "stage": stage,
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "checks": described,
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False, sort_keys=True, default=str) + "\n")
    if path.stat().st_size > COMPACTED_AT_BYTES:
        _compact(path)


def gate_history(workspace: Path) -> list[GateRecord]:
    """All evaluations, the oldest first; a line that a kill cut short is left out."""
    path = workspace / HISTORY
    return list(_records(path)) if path.is_file() else []


def _records(path: Path) -> Iterator[GateRecord]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            yield GateRecord(record["stage"], record["time"], record["checks"])
        except (ValueError, KeyError, TypeError):
            continue


def _compact(path: Path) -> None:
    """Keeps the newest evaluations of each stage, so that the file is bounded."""
    records, kept = list(_records(path)), set[int]()
    counts: dict[str, int] = {}
    for number in range(len(records) - 1, -1, -1):
        stage = records[number].stage
        counts[stage] = counts.get(stage, 0) + 1
        if counts[stage] <= MAX_RECORDS_PER_STAGE:
            kept.add(number)
    lines = [
        json.dumps({"stage": record.stage, "time": record.time, "checks": record.checks}, ensure_ascii=False)
        for number, record in enumerate(records)
        if number in kept
    ]
    replacement = path.with_suffix(".new")
    replacement.write_text("\n".join(lines) + "\n", encoding="utf-8")
    replacement.replace(path)
