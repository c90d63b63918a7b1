"""The count of looks at the locked test split: a log that is only ever added to, and survives runs."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def log_look(log: Path, test: str, model: str, metrics: Sequence[str]) -> None:
    """Adds a line for this look: when, who, which test split and which model, by their digests, and which metrics were taken."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        who = "unknown"
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": who,
        "test": test,
        "model": model,
        "metrics": sorted(metrics),
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")


def looks_at(log: Path, test: str) -> list[dict[str, Any]]:
    """The first look of each different model at this test split, the oldest first; a changed split starts anew."""
    if not log.is_file():
        return []
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    firsts: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line["test"] == test:
            firsts.setdefault(line["model"], line)
    return list(firsts.values())
