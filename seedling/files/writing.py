"""Writes files and folders so that a kill or a full disk leaves the old ones or the new ones, never a part of them."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_NAME_BYTES = 240  # of 255 that file systems allow; a number may follow


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


@contextmanager
def complete_or_absent(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder, which becomes `folder` at the end, or is removed on an error."""
    partial_folder = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    try:
        yield partial_folder
        if folder.exists():
            folder.rmdir()
        partial_folder.replace(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def plain_names(classes: Sequence[str]) -> dict[str, str]:
    """Maps each class to a distinct folder name of letters, digits, dots and dashes, without path separators."""
    folder_names: dict[str, str] = {}
    for name in classes:
        plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name)).strip("._") or "class"
        plain = plain.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
        taken = {folder_name.casefold() for folder_name in folder_names.values()}
        number, free = 2, plain
        while free.casefold() in taken:
            number, free = number + 1, f"{plain}_{number}"
        folder_names[name] = free
    return folder_names
