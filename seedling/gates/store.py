"""Great Expectations' own files in .seedling/gx: its configuration, suites and latest results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from seedling.errors import InputError
from seedling.files.yaml_files import read_yaml_file
from seedling.terminal.notices import state_once

CONFIGURATION = "great_expectations.yml"
LAST_KEYS = ("stores", "data_docs_sites")  # missing in a truncated configuration


def remove_damaged_store(store: Path) -> bool:
    """Remove the folder if a file in it is truncated or empty. Returns whether it was removed.

    Great Expectations creates a new folder. Nothing is lost, because each gate's results are also in the generation
    (gate.json) and in the history of all gates.
    """
    damaged = next((path for path in sorted(store.rglob("*")) if path.is_file() and not _is_complete(path)), None)
    if damaged is None:
        return False
    state_once(f"{damaged} is damaged. Great Expectations' folder {store} is created again; nothing is lost.")
    shutil.rmtree(store)
    return True


def _is_complete(path: Path) -> bool:
    try:
        if path.name == CONFIGURATION:
            return set(LAST_KEYS) <= {*(read_yaml_file(path) or {})}
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, InputError):
        return False
    return True
