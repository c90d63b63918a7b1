"""Reads files that may be damaged: cut by a full disk, incomplete after a kill, or edited by hand.

All readers of a workspace's files use this module, so that an error names the file and its remedy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from seedling.errors import DamagedFile, LaterFile, SeedlingError
from seedling.workspace import STAGE_OUTPUTS, STATE

if TYPE_CHECKING:
    import pandas as pd


class LaterVersion(ValueError):
    """A file that a later version of Seedling wrote."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise errors of reading this file as DamagedFile, and a later version's file as LaterFile.

    Errors of permission, of a missing file, and of memory are raised unchanged.
    """
    try:
        yield
    except (SeedlingError, PermissionError, FileNotFoundError, MemoryError):
        raise
    except LaterVersion as error:
        raise LaterFile(path, str(error)) from error
    except Exception as error:  # parsers raise many types: KeyError, BadZipFile, SafetensorError …
        raise DamagedFile(path, error, remedy(path)) from error


def read_json(path: Path) -> Any:
    """Return the file's value. Raises DamagedFile if it is not JSON, and FileNotFoundError."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def remedy(path: Path) -> str:
    """Return what to do about a damaged file at this path."""
    if set(path.parts) & set(STAGE_OUTPUTS):
        return "delete this file and run `seedling run`, which restores it from DVC's cache or creates it again"
    if STATE in path.parts:
        return "delete this file and run again"
    return "restore it from a backup, or delete it"


def row_dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries by column. All our columns have text as names, which pandas does not require."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def read_frame(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the Parquet file's rows. Raises DamagedFile if it is cut or not Parquet, and FileNotFoundError."""
    import pandas as pd

    with reading(path):
        return pd.read_parquet(path, columns=None if columns is None else list(columns))
