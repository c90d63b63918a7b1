"""The count of looks at the locked test split: a log that is only ever added to, and survives runs."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.notices import state_once


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
    cut = log.is_file() and log.stat().st_size > 0 and not log.read_bytes().endswith(b"\n")
    with log.open("a", encoding="utf-8") as file:  # behind half a line a new one is begun, else both would be lost
        file.write(("\n" if cut else "") + json.dumps(line, sort_keys=True) + "\n")


def looks_at(log: Path, test: str) -> list[dict[str, Any]]:
    """The first look of each different model at this test split, the oldest first; a changed split starts anew.

    A line that a kill or a full disk cut is left out, and standard error says so.
    """
    if not log.is_file():
        return []
    firsts: dict[str, dict[str, Any]] = {}
    for number, text in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            split, model = line["test"], line["model"]
        except (ValueError, KeyError, TypeError):
            state_once(
                f"{log}: line {number} is damaged and not counted as a test-set evaluation: complete or delete it."
            )
            continue
        if split == test:
            firsts.setdefault(model, line)
    return list(firsts.values())
