"""Writes files so that a kill or a full disk leaves the old file or the new one, never a part of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON: sorted keys, an indent of two spaces, and a final newline.

    Equal values give equal bytes. The file is renamed into place, so that a kill or a full disk leaves no partial file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
