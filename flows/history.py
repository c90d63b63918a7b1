"""What became of each run: a small file a run below .seedling/runs, for the report, `status` and `compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.ledger import Outcome
from tasks.generation import write_json

RUNS = Path(".seedling", "runs")


@dataclass(frozen=True)
class Run:
    """A run's name and what it recorded."""

    name: str
    record: dict[str, Any]


def record_run(workspace: Path, name: str, outcomes: Sequence[Outcome]) -> None:
    """Writes the run's file: when it ended, each stage with how and how long, the metrics."""
    metrics = workspace / "reports" / "metrics.json"
    record = {
        "name": name,
        "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
        "stages": [{"stage": one.stage, "how": one.how, "seconds": round(one.seconds, 3)} for one in outcomes],
        "metrics": json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else None,
    }
    write_json(workspace / RUNS / f"{name}.json", record)


def runs(workspace: Path) -> list[Run]:
    """All runs, the oldest first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (workspace / RUNS).glob("*.json")]
    return [Run(one["name"], one) for one in sorted(found, key=lambda one: (one["ended"], one["name"]))]
