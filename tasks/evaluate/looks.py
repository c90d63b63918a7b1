"""The count of looks at the locked test split: a log that is only ever added to, and survives runs."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime
from pathlib import Path


def log_look(log: Path, test: str, model: str) -> None:
    """Adds a line for this look: when, who, which test split and which model, by their digests."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        who = "unknown"
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "who": who, "test": test, "model": model}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")


def count_looks(log: Path, test: str) -> int:
    """How many different models this test split has judged; a changed split starts a new count."""
    if not log.is_file():
        return 0
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return len({line["model"] for line in lines if line["test"] == test})
