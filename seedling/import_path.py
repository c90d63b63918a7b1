"""Keeps Python from importing modules that lie in the working folder, in this process and in those that it starts.

`python -m` puts the working folder first in `sys.path`: a file of the workspace that is named like a dependency, such as
scrapy.py, would be executed in its place.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # what `python -P` is for child processes
PACKAGE = "seedling"


def leave_out_working_folder() -> None:
    """Takes the working folder out of `sys.path` where `python -m` put it there, and sets PYTHONSAFEPATH for child processes.

    The folder stays where our own packages lie in it, as in a checkout of the repository.
    """
    os.environ.update(SAFE_PATH)
    if sys.flags.safe_path or not sys.path or not _started_as_module():
        return
    first, packages_root = Path(sys.path[0] or ".").resolve(), Path(__file__).resolve().parents[1]
    if first == Path.cwd().resolve() != packages_root:
        del sys.path[0]


def _started_as_module() -> bool:
    """Whether Python was started as `python -m seedling` or `python -m seedling.…`."""
    words = sys.orig_argv[1:]
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return bool(module) and module[0].partition(".")[0] == PACKAGE
