"""Reader of the records of past runs: small JSON files below .seedling/runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seedling.errors import DamagedFile
from seedling.files.reading import read_json
from seedling.terminal.notices import state_once
from seedling.workspace import Workspace


def read_run_records(workspace: Path) -> list[dict[str, Any]]:
    """All records, the oldest first. Damaged ones are left out and named on standard error: no run depends on them."""
    records = []
    for path in sorted(Workspace(workspace).run_records.glob("*.json")):
        try:
            record = read_json(path)
            if not (isinstance(record, dict) and all(isinstance(record.get(key), str) for key in ("name", "ended"))):
                raise DamagedFile(path, "it is not a record of a run", "delete it")
        except (DamagedFile, OSError) as error:
            state_once(f"{error} The run is left out of the history." if isinstance(error, DamagedFile) else str(error))
            continue
        records.append({"stages": [], "metrics": None, **record})
    return sorted(records, key=lambda record: (record["ended"], record["name"]))
