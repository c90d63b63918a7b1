"""Checks a workspace's dvc.yaml, dvc.lock, data.dvc, gates.yaml and params.yaml before DVC reads them.

Every command that opens the ledger runs these checks. They report conflict markers and empty or invalid files, with the
remedy.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psutil

from seedling.errors import InputError
from seedling.files.yaml_files import ALIAS, MAX_BYTES, check_no_conflict, parse_yaml
from seedling.terminal.notices import state_once
from seedling.workspace import DATA_POINTER, DVC_LOCK, DVC_PROCESS_LOCKS, DVC_YAML, GATES_FILE, PARAMS_FILE

REMEDIES = {
    DVC_YAML: "`git checkout -- dvc.yaml` restores it",
    DVC_LOCK: (
        "`git checkout -- dvc.lock` restores the committed version; or delete it, and `seedling run` writes a new one, "
        "from DVC's cache if possible"
    ),
    DATA_POINTER: (
        "`git checkout -- data.dvc` restores the committed version; or delete it if data/ is complete, and "
        "`seedling run` writes a new one"
    ),
    GATES_FILE: "`git checkout -- gates.yaml` restores it",
    PARAMS_FILE: "`git checkout -- params.yaml` restores it",
}
REQUIRED_KEY = {DVC_YAML: "stages", DVC_LOCK: "stages", DATA_POINTER: "outs"}


def check_tracked_files(workspace: Path) -> None:
    """Raise InputError for the first of these files that cannot be used; the message has the reason and the remedy."""
    for name in (DVC_YAML, PARAMS_FILE, GATES_FILE):
        if not (workspace / name).is_file():
            raise InputError(f"{workspace / name} is missing: {REMEDIES[name]}.")
    for name, remedy in REMEDIES.items():
        path = workspace / name
        if path.is_file():
            _check(path, remedy)


def _check(path: Path, remedy: str) -> None:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} has more than {MAX_BYTES:,} bytes: {remedy}.")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): {remedy}.") from error
    if not text.strip():
        raise InputError(f"{path} is empty: {remedy}.")
    check_no_conflict(text, path)
    if path.name in {PARAMS_FILE, GATES_FILE} or ALIAS.search(text):
        _check_shape(path, parse_yaml(text, path), remedy)  # without this limit, DVC would expand all aliases
    elif (key := REQUIRED_KEY[path.name]) and not re.search(rf"^{key}:", text, re.MULTILINE):
        raise InputError(f"{path} has no '{key}:': {remedy}.")


def _check_shape(path: Path, value: Any, remedy: str) -> None:
    key = REQUIRED_KEY.get(path.name)
    if not isinstance(value, dict) or (key is not None and key not in value):
        fault = f"has no '{key}:'" if key else "has no sections"
        raise InputError(f"{path} {fault}: {remedy}.")


def explain_dvc(message: str, workspace: Path) -> InputError | None:
    """Translate DVC's message about an unreadable tracked file into an InputError; None for other messages."""
    if not any(
        phrase in message
        for phrase in ("validation failed", "is corrupted", "is not valid utf-8", "Unable to read param")
    ):
        return None
    for name, remedy in REMEDIES.items():
        if name in message:
            return InputError(f"{workspace / name} cannot be used ({' '.join(message.split())[:300]}): {remedy}.")
    return None


def drop_stale_locks(dvc_tmp: Path) -> None:
    """Remove the locks of ended processes from DVC's rwlock file, and the file itself if a kill truncated it.

    DVC recognizes an ended process by its id alone, and ids repeat after the restart of a container. The caller must
    hold the workspace lock.
    """
    path = dvc_tmp / DVC_PROCESS_LOCKS
    try:
        write_time = path.stat().st_mtime
        locks = json.loads(path.read_text(encoding="utf-8"))
        live_locks = {
            "write": {name: entry for name, entry in locks.get("write", {}).items() if _is_alive(entry, write_time)},
            "read": {
                name: [entry for entry in entries if _is_alive(entry, write_time)]
                for name, entries in locks.get("read", {}).items()
            },
        }
    except FileNotFoundError:
        return
    except (ValueError, AttributeError, KeyError, TypeError):
        state_once(f"{path} was damaged and is replaced; it only lists the DVC commands that are running.")
        path.unlink(missing_ok=True)
        return
    live_locks["read"] = {name: entries for name, entries in live_locks["read"].items() if entries}
    if live_locks != {"write": locks.get("write", {}), "read": locks.get("read", {})}:
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_text(json.dumps(live_locks), encoding="utf-8")
        temporary.replace(path)


def _is_alive(entry: dict[str, Any], write_time: float) -> bool:
    """Whether the process of the lock exists and started before the lock file was last written."""
    try:
        return bool(psutil.Process(int(entry["pid"])).create_time() <= write_time)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
