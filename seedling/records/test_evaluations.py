"""The log of test-set evaluations: each model that was evaluated on the locked test split.

evaluate writes it, the report reads it. The log is test_evaluations.jsonl at the top of the workspace. Git tracks it,
so a clone has it too; no stage depends on it. A copy in .seedling/ keeps the lines that a checkout of an older commit
or experiment removes from the tracked file. Lines are only ever added, so logs are merged by taking the lines of all.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from seedling.errors import InputError
from seedling.terminal.notices import state_once
from seedling.workspace import Workspace

LOG_LOST = "log lost"


@dataclass(frozen=True)
class LoggedEvaluation:
    """One evaluation of a model on the test split. time: ISO 8601; who: a user name; test, model: digests."""

    time: str
    who: str
    test: str
    model: str
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationLog:
    """The evaluations of one test split. models: the first evaluation of each different model, the oldest first.

    incomplete_since: time at which the log was restarted although results existed, or "" if there are results and no
    log at all; None if the log is complete.
    """

    models: list[LoggedEvaluation]
    incomplete_since: str | None = None


def log_test_evaluation(
    workspace: Path, test_digest: str, model_digest: str, metrics: Sequence[str], *, has_earlier_results: bool = False
) -> None:
    """Adds a line to the log: time, user, digests of the test split and the model, and names of the metrics.

    has_earlier_results: whether the workspace contains results of an earlier evaluation on a test split. If it does and
    there is no log, the new log is marked as incomplete.
    """
    lines = _lines(workspace)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if not lines and has_earlier_results:
        lines.append(json.dumps({"event": LOG_LOST, "time": now}, sort_keys=True))
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    evaluation = LoggedEvaluation(now, user, test_digest, model_digest, tuple(sorted(metrics)))
    _write(workspace, [*lines, json.dumps(asdict(evaluation), sort_keys=True)])


def read_test_evaluations(workspace: Path, test_digest: str, *, has_results: bool) -> EvaluationLog:
    """The evaluations on this test split. has_results: whether the workspace contains results on it.

    Raises InputError if git left conflict markers in the log.
    """
    entries = [json.loads(line) for line in _lines(workspace)]
    by_model: dict[str, LoggedEvaluation] = {}
    for entry in entries:
        if entry.get("test") == test_digest:
            evaluation = LoggedEvaluation(
                entry["time"],
                str(entry.get("who", "unknown")),
                entry["test"],
                entry["model"],
                tuple(entry.get("metrics", ())),
            )
            by_model.setdefault(evaluation.model, evaluation)
    lost = min((entry["time"] for entry in entries if entry.get("event") == LOG_LOST), default=None)
    if lost is None and has_results and not by_model:
        lost = ""
    return EvaluationLog(list(by_model.values()), lost)


def bring_log_up_to_date(workspace: Path) -> bool:
    """Adds lines of the local copies to the tracked log if it lacks them; returns whether it did."""
    lines = _lines(workspace)
    if not lines or lines == _lines_of(Workspace(workspace).test_evaluations_file):
        return False
    _write(workspace, lines)
    return True


def merge_lines(logs: Iterable[Iterable[str]]) -> list[str]:
    """The distinct lines of several logs, by time; damaged lines are left out."""
    lines = dict.fromkeys(line for log in logs for line in log if _is_entry(line))
    return sorted(lines, key=lambda line: str(json.loads(line).get("time", "")))


def _lines(workspace: Path) -> list[str]:
    paths = Workspace(workspace)
    logs = (paths.test_evaluations_file, paths.test_evaluations_copy, paths.former_test_evaluations)
    return merge_lines(_lines_of(log) for log in logs)


def _lines_of(log: Path) -> list[str]:
    """The lines of a log. A line that is truncated is left out, with a message on standard error.

    Raises InputError if git left conflict markers in the log.
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
    """Writes both copies. Each is renamed into place, so that a killed process leaves no truncated line."""
    content = "".join(f"{line}\n" for line in lines)
    for path in (Workspace(workspace).test_evaluations_copy, Workspace(workspace).test_evaluations_file):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.new")
        partial.write_text(content, encoding="utf-8")
        partial.replace(path)
