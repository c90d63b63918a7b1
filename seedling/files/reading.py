"""Reading files that may be damaged: cut by a full disk, half written by a process that was killed, edited by hand.

Every reader of a workspace's files goes through here, so that an error names the file and what to do about it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedling.errors import DamagedFile, SeedlingError

if TYPE_CHECKING:
    import pandas as pd

STAGE_OUTPUTS = ("generations", "models", "reports")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong while the block reads this file is raised as DamagedFile; errors of permission, of a file that
    is not there, and of memory stay what they are.
    """
    try:
        yield
    except (SeedlingError, PermissionError, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # a library's parser raises what it likes: KeyError, BadZipFile, SafetensorError …
        raise DamagedFile(path, error, remedy(path)) from error


def read_json(path: Path) -> Any:
    """The file's value. Raises DamagedFile where it is no JSON, and FileNotFoundError."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def remedy(path: Path) -> str:
    """What to do about a damaged file at this place."""
    if set(path.parts) & set(STAGE_OUTPUTS):
        return "delete this file and run `seedling run`, which restores it from DVC's cache or makes it again"
    if ".seedling" in path.parts:
        return "delete this file and run again"
    return "restore it from a backup, or delete it"


def read_frame(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The Parquet file's rows. Raises DamagedFile where it is cut or no Parquet, and FileNotFoundError."""
    import pandas as pd

    with reading(path):
        return pd.read_parquet(path, columns=columns)
