"""The address of a running review server, for pages, for a run that waits for reviewers, and for a second server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from seedling.workspace import Workspace


def write_server_address(workspace: Path, url: str) -> None:
    """Record the address of the review server that this process runs. Only this user can read it: it has a token."""
    path = Workspace(workspace).review_server
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"url": url, "pid": os.getpid(), "started": psutil.Process().create_time()}
    replacement = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(replacement, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    replacement.replace(path)


def remove_server_address(workspace: Path) -> None:
    """Remove the record, unless another server has replaced it."""
    if _record(workspace).get("pid") == os.getpid():
        Workspace(workspace).review_server.unlink(missing_ok=True)


def running_reviewer_url(workspace: Path) -> str | None:
    """The address of the running review server; None if there is none, or if its process was killed."""
    record = _record(workspace)
    url, process_id = record.get("url"), record.get("pid")
    if not isinstance(url, str) or urlsplit(url).scheme not in {"http", "https"} or not isinstance(process_id, int):
        return None
    try:
        started = psutil.Process(process_id).create_time()
    except psutil.Error:
        return None
    recorded = record.get("started")
    is_same = not isinstance(recorded, float) or abs(started - recorded) < 1  # an id may be in use again
    return url if is_same else None


def _record(workspace: Path) -> dict[str, object]:
    try:
        record = json.loads(Workspace(workspace).review_server.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
