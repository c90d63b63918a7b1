"""Prevents imports of modules from the working folder, in this process and in its child processes.

`python -m` inserts the working folder at the start of `sys.path`. A file of the workspace with the name of a
dependency, such as scrapy.py, would be executed instead of the dependency.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # equivalent to `python -P`, for child processes
PACKAGE = "seedling"


def remove_working_folder() -> None:
    """Remove the working folder from `sys.path` if `python -m` inserted it, and set PYTHONSAFEPATH for child processes.

    The folder stays if it contains this package, as in a checkout of the repository.
    """
    os.environ.update(SAFE_PATH)
    if sys.flags.safe_path or not sys.path or not _started_as_module():
        return
    first, packages_root = Path(sys.path[0] or ".").resolve(), Path(__file__).resolve().parents[1]
    if first == Path.cwd().resolve() != packages_root:
        del sys.path[0]


def _started_as_module() -> bool:
    """Whether Python was started as `python -m seedling` or `python -m seedling.…`."""
    arguments = sys.orig_argv[1:]
    module = arguments[arguments.index("-m") + 1 :][:1] if "-m" in arguments else []
    return bool(module) and module[0].partition(".")[0] == PACKAGE
