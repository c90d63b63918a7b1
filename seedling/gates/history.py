"""The history of all gates, passed and failed, in .seedling/gates/history.jsonl.

`run_stage` writes it, so it covers `dvc repro` as well as `seedling run`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from seedling.records.gate import Check, GateRecord, described
from seedling.workspace import Workspace

MAX_RECORDS_PER_STAGE = 50
MAX_HISTORY_BYTES = 2_000_000  # a larger file is compacted


def record_gate(
    workspace: Path,
    stage: str,
    checks: Sequence[Check],
    meanings: Mapping[str, str] | None = None,
    *,
    max_bytes: int = MAX_HISTORY_BYTES,
    max_records_per_stage: int = MAX_RECORDS_PER_STAGE,
) -> None:
    """Append one run of the stage's gate.

    meanings: name → description of the user's own expectations. max_bytes: a larger file is compacted to the newest
    records of each stage.
    """
    path = Workspace(workspace).gate_history
    path.parent.mkdir(parents=True, exist_ok=True)
    record = GateRecord(
        stage=stage,
        time=datetime.now().astimezone().isoformat(timespec="seconds"),
        checks=tuple(described(check, meanings or {}) for check in checks),
    )
    with path.open("a", encoding="utf-8") as file:
        file.write(record.line())
    if path.stat().st_size > max_bytes:
        _compact(path, max_records_per_stage)


def gate_history(workspace: Path) -> list[GateRecord]:
    """All runs of all gates, the oldest first. Lines that are incomplete, for example after a kill, are skipped."""
    path = Workspace(workspace).gate_history
    return list(_records(path)) if path.is_file() else []


def _records(path: Path) -> Iterator[GateRecord]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield GateRecord.parse(line)
        except ValueError:
            continue


def _compact(path: Path, max_records_per_stage: int) -> None:
    """Keep only the newest records of each stage, so that the file stays small."""
    records, kept = list(_records(path)), set[int]()
    counts: dict[str, int] = {}
    for number in range(len(records) - 1, -1, -1):
        stage = records[number].stage
        counts[stage] = counts.get(stage, 0) + 1
        if counts[stage] <= max_records_per_stage:
            kept.add(number)
    lines = [record.line() for number, record in enumerate(records) if number in kept]
    replacement = path.with_suffix(".new")
    replacement.write_text("".join(lines), encoding="utf-8")
    replacement.replace(path)
