"""Great Expectations' own files below .seedling/gx: its configuration, suites and last results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from seedling.errors import InputError
from seedling.files.yaml_files import read_yaml_file
from seedling.terminal.notices import state_once

CONFIGURATION = "great_expectations.yml"
LAST_KEYS = ("stores", "data_docs_sites")  # a configuration that was cut lacks them


def remove_damaged_store(store: Path) -> bool:
    """Removes the folder where a file in it is cut or empty, and gives whether it did: Great Expectations makes a new one.

    Nothing is lost: the results of each gate stand in the generations (gate.json) and in the history of all gates.
    """
    damaged = next((path for path in sorted(store.rglob("*")) if path.is_file() and not _is_whole(path)), None)
    if damaged is None:
        return False
    state_once(f"{damaged} is damaged: Great Expectations' folder {store} is made anew, nothing is lost.")
    shutil.rmtree(store)
    return True


def _is_whole(path: Path) -> bool:
    try:
        if path.name == CONFIGURATION:
            return set(LAST_KEYS) <= {*(read_yaml_file(path) or {})}
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, InputError):
        return False
    return True
