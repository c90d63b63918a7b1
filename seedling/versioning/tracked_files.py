"""The files that DVC and git keep for a workspace, looked at before DVC reads them: conflicts, empty or wrong files, with the remedy.

Any command that opens the ledger does this.
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

REMEDIES = {
    "dvc.yaml": "`git checkout -- dvc.yaml` brings it back",
    "dvc.lock": "`git checkout -- dvc.lock` brings back the committed one, or delete it: `seedling run` writes it anew, from DVC's cache where it can",
    "data.dvc": "`git checkout -- data.dvc` brings back the committed one, or delete it where data/ is whole: `seedling run` writes it anew",
    "gates.yaml": "`git checkout -- gates.yaml` brings it back",
    "params.yaml": "`git checkout -- params.yaml` brings it back",
}
REQUIRED_KEY = {"dvc.yaml": "stages", "dvc.lock": "stages", "data.dvc": "outs"}


def check_tracked_files(workspace: Path) -> None:
    """Raises InputError for the first of these files that cannot be used, with what is wrong and what to do."""
    for name in ("dvc.yaml", "params.yaml", "gates.yaml"):
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
        raise InputError(f"{path} is no UTF-8 ({error.reason} at byte {error.start}): {remedy}.") from error
    if not text.strip():
        raise InputError(f"{path} is empty: {remedy}.")
    check_no_conflict(text, path)
    if path.name in {"params.yaml", "gates.yaml"} or ALIAS.search(text):
        _check_shape(path, parse_yaml(text, path), remedy)  # DVC would walk through what aliases stand for
    elif (key := REQUIRED_KEY[path.name]) and not re.search(rf"^{key}:", text, re.MULTILINE):
        raise InputError(f"{path} has no '{key}:': {remedy}.")


def _check_shape(path: Path, value: Any, remedy: str) -> None:
    key = REQUIRED_KEY.get(path.name)
    if not isinstance(value, dict) or (key is not None and key not in value):
        what = f"has no '{key}:'" if key else "holds no sections"
        raise InputError(f"{path} {what}: {remedy}.")


def explain_dvc(message: str, workspace: Path) -> InputError | None:
    """What DVC says of a tracked file that it cannot read, with the remedy; None where it speaks of something else."""
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
    """Removes from DVC's list of busy folders those of processes that have ended, and the list itself where a kill cut it.

    DVC recognizes an ended process by its number alone, and in a container that was restarted the numbers are the same again.
    To be called by whoever holds the workspace.
    """
    path = dvc_tmp / "rwlock"
    try:
        written = path.stat().st_mtime
        busy = json.loads(path.read_text(encoding="utf-8"))
        kept = {
            "write": {name: entry for name, entry in busy.get("write", {}).items() if _alive(entry, written)},
            "read": {
                name: [entry for entry in entries if _alive(entry, written)]
                for name, entries in busy.get("read", {}).items()
            },
        }
    except FileNotFoundError:
        return
    except (ValueError, AttributeError, KeyError, TypeError):
        state_once(f"{path} was damaged, and is begun anew: it only lists which DVC commands are at work.")
        path.unlink(missing_ok=True)
        return
    kept["read"] = {name: entries for name, entries in kept["read"].items() if entries}
    if kept != {"write": busy.get("write", {}), "read": busy.get("read", {})}:
        beside = path.with_name("rwlock.new")
        beside.write_text(json.dumps(kept), encoding="utf-8")
        beside.replace(path)


def _alive(entry: dict[str, Any], written: float) -> bool:
    """Whether the process that holds the folder can still be at work: it began before the list was last written."""
    try:
        return bool(psutil.Process(int(entry["pid"])).create_time() <= written)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
