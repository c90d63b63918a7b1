"""The log of test-set evaluations: each model that the locked test split has judged. Written by evaluate, read by the report.

The log is test_evaluations.jsonl at the top of the workspace, which git tracks, so that a clone knows it; no stage depends on it.
A copy in .seedling/ keeps the lines that a checkout of an older commit or experiment takes from the tracked file. Lines are
only ever added, so two logs are merged by taking the lines of both.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seedling.errors import InputError
from seedling.terminal.notices import state_once

LOG = "test_evaluations.jsonl"
LOCAL_COPY = Path(".seedling", LOG)
FORMER_LOG = Path(".seedling", "looks.jsonl")
LOG_LOST = "log lost"


@dataclass(frozen=True)
class EvaluationLog:
    """What the log says of one test split. models: the first evaluation of each different model, the oldest first.

    incomplete_since: when the log began anew though results existed, or "" where there are results and no log at all;
    None where the log is complete.
    """

    models: list[dict[str, Any]]
    incomplete_since: str | None = None


def log_test_evaluation(
    workspace: Path, test_digest: str, model_digest: str, metrics: Sequence[str], *, has_earlier_results: bool = False
) -> None:
    """Adds a line to the log: when, who, which test split and model, by their digests, and which metrics were taken.

    has_earlier_results: whether the workspace holds results of an earlier evaluation on a test split; where it does and there is no log, the
    log says that it is incomplete.
    """
    lines = _lines(workspace)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if not lines and has_earlier_results:
        lines.append(json.dumps({"event": LOG_LOST, "time": now}, sort_keys=True))
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    entry = {"time": now, "who": user, "test": test_digest, "model": model_digest, "metrics": sorted(metrics)}
    _write(workspace, [*lines, json.dumps(entry, sort_keys=True)])


def read_test_evaluations(workspace: Path, test_digest: str, *, has_results: bool) -> EvaluationLog:
    """The evaluations on this test split. has_results: whether the workspace holds results on it.

    Raises InputError where git left conflict markers in the log.
    """
    entries = [json.loads(line) for line in _lines(workspace)]
    by_model: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.get("test") == test_digest:
            by_model.setdefault(entry["model"], entry)
    lost = min((entry["time"] for entry in entries if entry.get("event") == LOG_LOST), default=None)
    if lost is None and has_results and not by_model:
        lost = ""
    return EvaluationLog(list(by_model.values()), lost)


def bring_log_up_to_date(workspace: Path) -> bool:
    """Writes the tracked log where it lacks lines that this machine knows, from its former place too; says whether it did."""
    lines = _lines(workspace)
    if not lines or lines == _lines_of(workspace / LOG):
        return False
    _write(workspace, lines)
    return True


def merge_lines(logs: Iterable[Iterable[str]]) -> list[str]:
    """The lines of several logs, each once, by time; a line that is damaged is in none."""
    lines = dict.fromkeys(line for log in logs for line in log if _is_entry(line))
    return sorted(lines, key=lambda line: str(json.loads(line).get("time", "")))


def _lines(workspace: Path) -> list[str]:
    return merge_lines(_lines_of(workspace / name) for name in (LOG, LOCAL_COPY, FORMER_LOG))


def _lines_of(log: Path) -> list[str]:
    """The log's lines; one that a kill or a full disk cut is left out, and standard error says so.

    Raises InputError where git left conflict markers in the log.
    """
    if not log.is_file():
        return []
    lines = []
    for number, line in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
            raise InputError(
                f"{log}: line {number} is a conflict marker of git: run `seedling resolve`, then run again."
            )
        if _is_entry(line):
            lines.append(line)
        elif line.strip():
            state_once(f"{log}: line {number} is damaged and not counted as a test-set evaluation.")
    return lines


def _is_entry(line: str) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(entry, dict):
        return False
    needed = ("time",) if entry.get("event") == LOG_LOST else ("test", "model", "time")
    return all(isinstance(entry.get(name), str) for name in needed)


def _write(workspace: Path, lines: Sequence[str]) -> None:
    """Both copies, each renamed into place, so that a kill leaves no half line."""
    content = "".join(f"{line}\n" for line in lines)
    for path in (workspace / LOCAL_COPY, workspace / LOG):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.new")
        partial.write_text(content, encoding="utf-8")
        partial.replace(path)
